//! Metrics of the process and of its identity, read when they are asked for.

use linkerd_control::{Control, IdentityStatus};
use std::{
    fmt::Write as _,
    fs,
    sync::LazyLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Appends all of them. What /proc does not tell is left out.
pub fn render(out: &mut String, control: &Control) {
    identity(out, control.identity());
    build(out);
    process(out);
}

fn identity(out: &mut String, status: &IdentityStatus) {
    let prefix = "control_identity_cert";
    if status.expiration() > 0 {
        gauge(
            out,
            &format!("{prefix}_expiration_timestamp_seconds"),
            "When the certificate expires",
            status.expiration(),
        );
        gauge(
            out,
            &format!("{prefix}_refresh_timestamp_seconds"),
            "When it was last renewed",
            status.refreshed(),
        );
    }
    let name = format!("{prefix}_refreshes_total");
    header(out, &name, "Attempts to renew it", "counter");
    let _ = writeln!(out, "{name}{{result=\"ok\"}} {}", status.successes());
    let _ = writeln!(out, "{name}{{result=\"error\"}} {}", status.failures());
}

fn build(out: &mut String) {
    header(out, "proxy_build_info", "What this proxy is", "gauge");
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let version = crate::VERSION;
    let _ = writeln!(
        out,
        "proxy_build_info{{version=\"{version}\",profile=\"{profile}\",vendor=\"linkerd\"}} 1"
    );
}

fn process(out: &mut String) {
    let start = START.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge(
        out,
        "process_start_time_seconds",
        "Start, in seconds since 1970",
        seconds(start.as_secs_f64()),
    );
    gauge(
        out,
        "process_clock_time_seconds",
        "The clock, in seconds since 1970",
        seconds(now.as_secs_f64()),
    );
    counter(
        out,
        "process_uptime_seconds_total",
        "Time since the start",
        seconds(START.since.elapsed().as_secs_f64()),
    );
    if let Some(stat) = Stat::read() {
        counter(
            out,
            "process_cpu_seconds_total",
            "User and system time",
            stat.cpu_seconds,
        );
        gauge(
            out,
            "process_virtual_memory_bytes",
            "Address space",
            stat.virtual_bytes,
        );
        gauge(
            out,
            "process_resident_memory_bytes",
            "Resident memory",
            stat.resident_bytes,
        );
        gauge(out, "process_threads", "Threads", stat.threads);
    }
    if let Ok(fds) = fs::read_dir("/proc/self/fd") {
        gauge(out, "process_open_fds", "Open file descriptors", fds.count());
    }
    if let Some(limit) = max_fds() {
        gauge(out, "process_max_fds", "Limit of file descriptors", limit);
    }
    if let Some((received, transmitted)) = network() {
        counter(
            out,
            "process_network_receive_bytes_total",
            "Received by the pod's interfaces",
            received,
        );
        counter(
            out,
            "process_network_transmit_bytes_total",
            "Sent by the pod's interfaces",
            transmitted,
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
    cpu_seconds: String,
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
            cpu_seconds: format!("{}.{:02}", ticks / TICKS_PER_SECOND, ticks % TICKS_PER_SECOND),
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

fn seconds(value: f64) -> String {
    format!("{value:.3}")
}

fn gauge(out: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    header(out, name, help, "gauge");
    let _ = writeln!(out, "{name} {value}");
}

fn counter(out: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    header(out, name, help, "counter");
    let _ = writeln!(out, "{name} {value}");
}

fn header(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}.");
    let _ = writeln!(out, "# TYPE {name} {kind}");
}

/// Both are constants of Linux on the machines that this proxy is built for.
const TICKS_PER_SECOND: u64 = 100;
const PAGE_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_blanks_and_parentheses_do_not_shift_the_fields() {
        let fields: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = Stat::parse(&format!("1 (a) b (c) S {}", fields.join(" "))).unwrap();
        assert_eq!(
            (stat.cpu_seconds.as_str(), stat.threads, stat.virtual_bytes),
            ("0.29", 20, 23)
        );
        assert_eq!(stat.resident_bytes, 24 * PAGE_BYTES);
    }

    #[test]
    fn the_kernel_answers() {
        assert!(Stat::read().is_some() && max_fds().is_some() && network().is_some());
    }
}
