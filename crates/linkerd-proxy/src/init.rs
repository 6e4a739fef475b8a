//! `linkerd2-proxy init`: redirects the pod's TCP traffic to the proxy, by rules of nftables.

mod flags;
mod rules;

use self::{flags::Flags, rules::ruleset};
use std::{
    io::{self, Write},
    process::{Command, ExitCode, Stdio},
};

#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("{0}\nhint: see `linkerd2-proxy init --help`")]
    Usage(String),
    #[error(
        "`nft` is not installed: nothing was redirected\nhint: install nftables on the machine or in the image"
    )]
    NoNft,
    #[error(
        "not permitted to change the pod's network: nothing was redirected\nhint: the init container needs the capability NET_ADMIN, and uid 0 where capabilities are not ambient\n{0}"
    )]
    NotPermitted(String),
    #[error("`nft` failed, nothing was redirected: {0}")]
    Nft(String),
    #[error("cannot run `nft`: {0}")]
    Run(io::Error),
    #[error("cannot set the close-wait timeout: {0}")]
    CloseWait(io::Error),
}

pub(crate) fn run(args: &[String]) -> ExitCode {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        let _ = io::stdout().write_all(flags::HELP.as_bytes());
        return ExitCode::SUCCESS;
    }
    match try_run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::complain(&format!("error: {error}"));
            ExitCode::from(if matches!(error, InitError::Usage(_)) {
                crate::EX_USAGE
            } else {
                1
            })
        }
    }
}

fn try_run(args: &[String]) -> Result<(), InitError> {
    let flags = Flags::parse(args).map_err(InitError::Usage)?;
    let rules = ruleset(&flags);
    if flags.verbose || flags.simulate {
        let _ = io::stdout().write_all(rules.as_bytes());
    }
    if flags.simulate {
        return Ok(());
    }
    apply(&rules)?;
    if let Some(seconds) = flags.close_wait_seconds {
        std::fs::write(CLOSE_WAIT, seconds.to_string()).map_err(InitError::CloseWait)?;
    }
    let _ = writeln!(
        io::stdout(),
        "redirecting inbound TCP to port {} and outbound TCP to port {}",
        flags.incoming_proxy_port,
        flags.outgoing_proxy_port
    );
    Ok(())
}

/// All of the rules or none: nft applies a file as one transaction.
fn apply(rules: &str) -> Result<(), InitError> {
    let spawned = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut nft = spawned.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => InitError::NoNft,
        _ => InitError::Run(error),
    })?;
    if let Some(mut stdin) = nft.stdin.take() {
        // A program that ends before it has read everything tells why on its standard error.
        let _ = stdin.write_all(rules.as_bytes());
    }
    let output = nft.wait_with_output().map_err(InitError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_string();
    if message.contains("Operation not permitted") {
        Err(InitError::NotPermitted(message))
    } else {
        Err(InitError::Nft(message))
    }
}

const CLOSE_WAIT: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
