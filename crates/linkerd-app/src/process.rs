//! Metrics of the process and of its identity, read when they are asked for.

use linkerd_control::{Control, IdentityStatus};
use linkerd_metrics::{Encode, Kind, Labels, Number};
use std::{
    fs,
    sync::LazyLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Writes all of them. What /proc does not tell is left out.
pub(crate) fn encode(out: &mut dyn Encode, control: &Control) {
    identity(out, control.identity());
    build(out);
    process(out);
}

fn identity(out: &mut dyn Encode, status: &IdentityStatus) {
    if status.expiration() > 0 {
        gauge(
            out,
            "control_identity_cert_expiration_timestamp_seconds",
            "When the certificate expires.",
            Number::Unsigned(status.expiration()),
        );
        gauge(
            out,
            "control_identity_cert_refresh_timestamp_seconds",
            "When it was last renewed.",
            Number::Unsigned(status.refreshed()),
        );
    }
    let name = "control_identity_cert_refreshes_total";
    out.family(name, "Attempts to renew it.", Kind::Counter);
    for (result, count) in [("ok", status.successes()), ("error", status.failures())] {
        out.number(&Labels::new().with("result", result), Number::Unsigned(count));
    }
}

fn build(out: &mut dyn Encode) {
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let labels = Labels::new()
        .with("date", option_env!("LINKERD2_PROXY_BUILD_DATE").unwrap_or(""))
        .with("git_sha", option_env!("LINKERD2_PROXY_GIT_SHA").unwrap_or(""))
        .with("profile", profile)
        .with(
            "vendor",
            option_env!("LINKERD2_PROXY_VENDOR").unwrap_or("linkerd"),
        )
        .with("version", crate::VERSION);
    out.family("proxy_build_info", "What this proxy is.", Kind::Gauge);
    out.number(&labels, Number::Unsigned(1));
    let crypto = linkerd_tls::crypto();
    let labels = Labels::new()
        .with("tls_suites", &crypto.suites.join(","))
        .with("tls_kx_groups", &crypto.key_exchanges.join(","))
        .with("tls_rand", crypto.provider)
        .with("tls_key_provider", crypto.provider)
        .with("tls_fips", if crypto.fips { "true" } else { "false" });
    out.family("rustls_info", "The cryptography of this proxy.", Kind::Gauge);
    out.number(&labels, Number::Unsigned(1));
}

fn process(out: &mut dyn Encode) {
    let start = START.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge(
        out,
        "process_start_time_seconds",
        "Start, in seconds since 1970.",
        millis(start),
    );
    gauge(
        out,
        "process_clock_time_seconds",
        "The clock, in seconds since 1970.",
        millis(now),
    );
    counter(
        out,
        "process_uptime_seconds_total",
        "Time since the start.",
        millis(START.since.elapsed()),
    );
    if let Some(stat) = Stat::read() {
        counter(
            out,
            "process_cpu_seconds_total",
            "User and system time.",
            Number::Float(stat.cpu_seconds),
        );
        gauge(
            out,
            "process_virtual_memory_bytes",
            "Address space.",
            Number::Unsigned(stat.virtual_bytes),
        );
        gauge(
            out,
            "process_resident_memory_bytes",
            "Resident memory.",
            Number::Unsigned(stat.resident_bytes),
        );
        gauge(out, "process_threads", "Threads.", Number::Unsigned(stat.threads));
    }
    if let Ok(fds) = fs::read_dir("/proc/self/fd") {
        let count = Number::Unsigned(fds.count() as u64);
        gauge(out, "process_open_fds", "Open file descriptors.", count);
    }
    if let Some(limit) = max_fds() {
        gauge(
            out,
            "process_max_fds",
            "Limit of file descriptors.",
            Number::Unsigned(limit),
        );
    }
    if let Some((received, transmitted)) = network() {
        counter(
            out,
            "process_network_receive_bytes_total",
            "Received by the pod's interfaces.",
            Number::Unsigned(received),
        );
        counter(
            out,
            "process_network_transmit_bytes_total",
            "Sent by the pod's interfaces.",
            Number::Unsigned(transmitted),
        );
    }
}

/// The process's start, for as long as it is taken early: [`mark_start`].
struct Start {
    at: SystemTime,
    since: Instant,
}

static START: LazyLock<Start> = LazyLock::new(|| Start {
    at: SystemTime::now(),
    since: Instant::now(),
});

/// Called first in `main`.
pub fn mark_start() {
    LazyLock::force(&START);
}

struct Stat {
    cpu_seconds: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
    threads: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// proc(5): the second field, the program's name, may hold anything, so counting starts behind it.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = field(14)? + field(15)?;
        Some(Self {
            cpu_seconds: Duration::from_millis(ticks * MILLIS_PER_TICK).as_secs_f64(),
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * PAGE_BYTES,
        })
    }
}

fn max_fds() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

/// Bytes received and sent by all interfaces but loopback.
fn network() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/self/net/dev").ok()?;
    let interfaces = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.trim() != "lo");
    Some(interfaces.fold((0, 0), |(received, sent), (_, counts)| {
        let counts: Vec<u64> = counts
            .split_ascii_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        let at = |index: usize| counts.get(index).copied().unwrap_or_default();
        (received + at(0), sent + at(8))
    }))
}

fn gauge(out: &mut dyn Encode, name: &str, help: &str, value: Number) {
    out.family(name, help, Kind::Gauge);
    out.number(&Labels::new(), value);
}

fn counter(out: &mut dyn Encode, name: &str, help: &str, value: Number) {
    out.family(name, help, Kind::Counter);
    out.number(&Labels::new(), value);
}

/// Seconds, exact to the millisecond.
fn millis(duration: Duration) -> Number {
    Number::Float((duration.as_secs_f64() * 1_000.0).round() / 1_000.0)
}

/// Both are constants of Linux on the machines that this proxy is built for.
const MILLIS_PER_TICK: u64 = 10;
const PAGE_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_blanks_and_parentheses_do_not_shift_the_fields() {
        let fields: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = Stat::parse(&format!("1 (a) b (c) S {}", fields.join(" "))).unwrap();
        assert!((stat.cpu_seconds - 0.29).abs() < 1e-9);
        assert_eq!((stat.threads, stat.virtual_bytes), (20, 23));
        assert_eq!(stat.resident_bytes, 24 * PAGE_BYTES);
    }

    #[test]
    fn the_kernel_answers() {
        assert!(Stat::read().is_some() && max_fds().is_some() && network().is_some());
    }
}
