//! Keeping the proxy certified.

use crate::{
    IdentityConfig,
    channel::{Channel, Security},
    metrics::ServiceMetrics,
};
use linkerd_policy::{Id, client::Backoff};
use linkerd_proto::identity::{CertifyRequest, CertifyResponse, identity_client::IdentityClient};
use linkerd_tls::{Certificate, CredentialsStore, InvalidAnchors, InvalidCertificate, TrustAnchors};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time;

/// Numbers for metrics. Times are seconds since 1970; 0: never.
#[derive(Debug, Default)]
pub struct IdentityStatus {
    expiration: AtomicU64,
    refreshed: AtomicU64,
    successes: AtomicU64,
    failures: AtomicU64,
}

impl IdentityStatus {
    #[must_use]
    pub fn expiration(&self) -> u64 {
        self.expiration.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn refreshed(&self) -> u64 {
        self.refreshed.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn successes(&self) -> u64 {
        self.successes.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

#[derive(Debug, thiserror::Error)]
enum CertifyError {
    #[error("cannot read the token {0}: {1}")]
    Token(PathBuf, io::Error),
    #[error("the token {0} is empty")]
    EmptyToken(PathBuf),
    #[error("cannot make a signing request: {0}")]
    Request(#[from] rcgen::Error),
    #[error("{} ({:?})", .0.message(), .0.code())]
    Service(#[from] tonic::Status),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the answer has no expiry")]
    NoExpiry,
    #[error("the answer's trust anchors are invalid: {0}")]
    Anchors(#[from] InvalidAnchors),
    #[error("the certificate is refused: {0}")]
    Certificate(#[from] InvalidCertificate),
}

/// Certifies, and certifies again well before each expiry. Never returns.
pub(crate) async fn maintain(
    config: IdentityConfig,
    connect_timeout: Duration,
    store: Arc<CredentialsStore>,
    status: Arc<IdentityStatus>,
    metrics: ServiceMetrics,
) {
    let mut anchors = config.anchors.clone();
    let retry = retry_backoff();
    let mut failures = 0;
    loop {
        let pause = match certify(&config, connect_timeout, &store, &mut anchors, &metrics).await {
            Ok(valid_until) => {
                failures = 0;
                status.successes.fetch_add(1, Ordering::Relaxed);
                status.expiration.store(seconds(valid_until), Ordering::Relaxed);
                status
                    .refreshed
                    .store(seconds(SystemTime::now()), Ordering::Relaxed);
                let pause = until_refresh(&config, valid_until, SystemTime::now(), rand::random());
                tracing::info!(id = %store.credentials().local_id(), renewal_in = ?pause, "Certified identity");
                pause
            }
            Err(error) => {
                status.failures.fetch_add(1, Ordering::Relaxed);
                failures += 1;
                report(&error, failures, store.credentials().valid_until());
                retry.pause(failures - 1, rand::random())
            }
        };
        passed(pause).await;
    }
}

/// What a failure means depends on the certificate that is there.
fn report(error: &CertifyError, attempt: u32, valid_until: Option<SystemTime>) {
    let left = valid_until.map(|until| until.duration_since(SystemTime::now()).unwrap_or_default());
    match left {
        None => tracing::warn!(%error, attempt, "cannot obtain a certificate"),
        Some(Duration::ZERO) => {
            tracing::error!(%error, attempt, "the certificate has expired and cannot be renewed; peers refuse it");
        }
        Some(left) => tracing::warn!(%error, attempt, valid_for = ?left, "cannot renew the certificate"),
    }
}

/// Waits by both clocks, whichever is first: certificates expire by the calendar, also while the machine sleeps.
async fn passed(pause: Duration) {
    let (begun, until) = (time::Instant::now(), SystemTime::now() + pause);
    loop {
        let by_calendar = until.duration_since(SystemTime::now()).unwrap_or_default();
        let left = pause.saturating_sub(begun.elapsed()).min(by_calendar);
        if left.is_zero() {
            return;
        }
        time::sleep(left.min(CALENDAR_CHECK)).await;
    }
}

/// Renewal at 70 % of what remains, up to 5 % of it earlier, so that a fleet started at once spreads out.
fn until_refresh(config: &IdentityConfig, valid_until: SystemTime, now: SystemTime, draw: f32) -> Duration {
    let remaining = valid_until.duration_since(now).unwrap_or_default();
    remaining
        .mul_f32(0.7 - 0.05 * draw.clamp(0.0, 1.0))
        .clamp(config.min_refresh, config.max_refresh)
}

async fn certify(
    config: &IdentityConfig,
    connect_timeout: Duration,
    store: &Arc<CredentialsStore>,
    anchors: &mut TrustAnchors,
    metrics: &ServiceMetrics,
) -> Result<SystemTime, CertifyError> {
    let token = read_token(&config.token_file)?;
    let id = store.credentials().local_id().clone();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let request = CertifyRequest {
        identity: id.to_string(),
        token,
        certificate_signing_request: signing_request(&id, &key)?,
    };
    // A connection of its own each time: it is needed once a day, and its trust must be the current one.
    let security = Security::Bootstrap(store.clone(), anchors.clone());
    let channel = Channel::new(config.service.clone(), security, connect_timeout, metrics.clone());
    let mut client = IdentityClient::with_origin(channel, config.service.origin());
    let response = time::timeout(CERTIFY_TIMEOUT, client.certify(request))
        .await
        .map_err(|_| CertifyError::Timeout(CERTIFY_TIMEOUT))??
        .into_inner();
    publish(config, store, anchors, response, &key)
}

fn publish(
    config: &IdentityConfig,
    store: &CredentialsStore,
    anchors: &mut TrustAnchors,
    response: CertifyResponse,
    key: &KeyPair,
) -> Result<SystemTime, CertifyError> {
    let valid_until = expiry(&response).ok_or(CertifyError::NoExpiry)?;
    let told = match &*response.trust_anchors_pem {
        "" => anchors.clone(),
        pem => TrustAnchors::from_pem(pem)?,
    };
    let chain: Vec<_> = std::iter::once(response.leaf_certificate)
        .chain(response.intermediate_certificates)
        .map(CertificateDer::from)
        .collect();
    let pem = pem(&chain);
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    store.publish(
        Certificate {
            chain,
            key,
            valid_until,
        },
        told.clone(),
    )?;
    // Only now: anchors that do not verify the proxy's own certificate are somebody's mistake.
    if told != *anchors {
        tracing::info!("Trust anchors changed");
        *anchors = told;
    }
    if let Err(error) = write_atomically(&config.directory, CERTIFICATE_FILE, &pem) {
        tracing::warn!(%error, directory = %config.directory.display(), "cannot write {CERTIFICATE_FILE}");
    }
    Ok(valid_until)
}

fn expiry(response: &CertifyResponse) -> Option<SystemTime> {
    let seconds = u64::try_from(response.valid_until.as_ref()?.seconds).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// PKCS#10 with the identity as its only name. The subject stays empty: a common name has 64 bytes at most.
fn signing_request(id: &Id, key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = id.as_str().try_into()?;
    params.subject_alt_names = vec![match id {
        Id::Dns(_) => SanType::DnsName(name),
        Id::Uri(_) => SanType::URI(name),
    }];
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// Files are read and written in place: they lie in memory, and a thread for them would cost more than they do.
fn read_token(path: &Path) -> Result<Vec<u8>, CertifyError> {
    let token = fs::read(path).map_err(|error| CertifyError::Token(path.into(), error))?;
    if token.is_empty() {
        Err(CertifyError::EmptyToken(path.into()))
    } else {
        Ok(token)
    }
}

/// Whoever reads the file sees the old or the new one, never a part.
fn write_atomically(directory: &Path, name: &str, contents: &str) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.new"));
    fs::write(&temporary, contents)?;
    fs::rename(&temporary, directory.join(name))
}

fn pem(chain: &[CertificateDer<'_>]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    chain
        .iter()
        .map(|der| pem::encode_config(&pem::Pem::new("CERTIFICATE", der.to_vec()), config))
        .collect()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

const CERTIFICATE_FILE: &str = "certificate.crt";
/// TokenReview and signing included.
const CERTIFY_TIMEOUT: Duration = Duration::from_secs(10);
/// How late a renewal may be after the machine has slept.
const CALENDAR_CHECK: Duration = Duration::from_secs(30);

#[expect(clippy::expect_used, reason = "the values are constants, and valid")]
fn retry_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(250), Duration::from_secs(30), 0.5).expect("valid backoff")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::PathBuf;

    fn config() -> IdentityConfig {
        let certificate = rcgen::generate_simple_self_signed(["a.b".to_owned()]).unwrap();
        IdentityConfig {
            service: crate::ServiceAddr {
                host: "localhost".into(),
                port: 1,
                id: None,
            },
            token_file: PathBuf::new(),
            directory: PathBuf::new(),
            anchors: TrustAnchors::from_pem(&certificate.cert.pem()).unwrap(),
            min_refresh: Duration::from_secs(10),
            max_refresh: Duration::from_secs(24 * 3600),
        }
    }

    #[test]
    fn a_day_is_renewed_after_two_thirds_and_never_later_than_seventy_percent() {
        let (config, now) = (config(), SystemTime::now());
        let until = now + Duration::from_secs(24 * 3600);
        let at = |draw| until_refresh(&config, until, now, draw).as_secs() / 3600;
        assert_eq!((at(0.0), at(1.0)), (16, 15));
    }

    #[test]
    fn what_has_expired_is_renewed_no_sooner_than_allowed() {
        let (config, now) = (config(), SystemTime::now());
        assert_eq!(until_refresh(&config, now, now, 0.5), config.min_refresh);
    }

    proptest! {
        #[test]
        fn a_fleet_spreads_its_renewals(draws in proptest::collection::vec(0.0_f32..1.0, 50)) {
            let (config, now) = (config(), SystemTime::now());
            let until = now + Duration::from_secs(3600);
            for draw in draws {
                let pause = until_refresh(&config, until, now, draw).as_secs_f32();
                prop_assert!((0.649 * 3600.0..=0.701 * 3600.0).contains(&pause));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_as_long_as_it_says() {
        let begun = time::Instant::now();
        passed(Duration::from_secs(3_600)).await;
        assert!(begun.elapsed() >= Duration::from_secs(3_600));
        assert!(begun.elapsed() < Duration::from_secs(3_601));
    }

    #[test]
    fn a_reader_of_the_certificate_never_sees_a_part() {
        let directory = std::env::temp_dir().join(format!("linkerd-identity-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for contents in ["first", "second"] {
            write_atomically(&directory, CERTIFICATE_FILE, contents).unwrap();
            assert_eq!(
                fs::read_to_string(directory.join(CERTIFICATE_FILE)).unwrap(),
                contents
            );
        }
        assert_eq!(
            fs::read_dir(&directory).unwrap().count(),
            1,
            "nothing else is left"
        );
        fs::remove_dir_all(&directory).unwrap();
    }
}
