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
    #[error(
        "the kernel has no nf_tables, or not all of it: nothing was redirected\nhint: load the modules nf_tables and nft_redir on the node\n{0}"
    )]
    NoNfTables(String),
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
    Err(failure(
        String::from_utf8_lossy(&output.stderr).trim().to_string(),
    ))
}

/// What nft's words mean; they end in the kernel's.
fn failure(message: String) -> InitError {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["Operation not permitted", "Permission denied"]) {
        InitError::NotPermitted(message)
    } else if says(&["not supported", "No such file or directory"]) {
        InitError::NoNfTables(message)
    } else {
        InitError::Nft(message)
    }
}

const CLOSE_WAIT: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_lacks_is_told_from_what_it_forbids() {
        let of = |message: &str| failure(message.into());
        for message in [
            "netlink: Error: cache initialization failed: Protocol not supported",
            "Error: Could not process rule: Operation not supported",
            "Error: Could not process rule: No such file or directory\n redirect to :4143",
        ] {
            assert!(matches!(of(message), InitError::NoNfTables(_)), "{message}");
        }
        let forbidden = "netlink: Error: cache initialization failed: Operation not permitted";
        assert!(matches!(of(forbidden), InitError::NotPermitted(_)));
        assert!(matches!(of("Error: syntax error"), InitError::Nft(_)));
    }
}
