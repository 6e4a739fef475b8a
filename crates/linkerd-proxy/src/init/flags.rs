//! The flags of Linkerd's proxy-init.

use ipnet::IpNet;
use std::ops::RangeInclusive;

pub(super) type PortRange = RangeInclusive<u16>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) incoming_proxy_port: u16,
    pub(super) outgoing_proxy_port: u16,
    pub(super) proxy_uid: u32,
    pub(super) proxy_gid: Option<u32>,
    /// Empty: all.
    pub(super) ports_to_redirect: Vec<PortRange>,
    pub(super) inbound_ports_to_ignore: Vec<PortRange>,
    pub(super) outbound_ports_to_ignore: Vec<PortRange>,
    pub(super) subnets_to_ignore: Vec<IpNet>,
    pub(super) simulate: bool,
    pub(super) ipv6: bool,
    pub(super) verbose: bool,
    pub(super) close_wait_seconds: Option<u32>,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            incoming_proxy_port: 4143,
            outgoing_proxy_port: 4140,
            proxy_uid: 2102,
            proxy_gid: None,
            ports_to_redirect: Vec::new(),
            inbound_ports_to_ignore: Vec::new(),
            outbound_ports_to_ignore: Vec::new(),
            subnets_to_ignore: Vec::new(),
            simulate: false,
            ipv6: true,
            verbose: false,
            close_wait_seconds: None,
        }
    }
}

impl Flags {
    /// `--name value`, `--name=value`, and for switches `--name` or `--name=false`.
    pub(super) fn parse(args: &[String]) -> Result<Self, String> {
        let mut flags = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_string())),
                None => (arg.as_str(), None),
            };
            let long = long_name(name).ok_or_else(|| format!("unknown flag `{arg}`"))?;
            if SWITCHES.contains(&long) {
                flags.switch(long, inline.as_deref().unwrap_or("true"))?;
                continue;
            }
            let value = inline
                .or_else(|| args.next().cloned())
                .ok_or_else(|| format!("`{name}` needs a value"))?;
            flags.set(long, &value)?;
        }
        Ok(flags)
    }

    fn switch(&mut self, name: &str, value: &str) -> Result<(), String> {
        let on = value
            .parse()
            .map_err(|_| format!("`{name}` is true or false, not {value:?}"))?;
        match name {
            "--simulate" => self.simulate = on,
            "--ipv6" => self.ipv6 = on,
            // Locks are a matter of iptables.
            _ => {}
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let bad = |what: &str| format!("`{name}` is {what}, not {value:?}");
        match name {
            "--incoming-proxy-port" => self.incoming_proxy_port = value.parse().map_err(|_| bad("a port"))?,
            "--outgoing-proxy-port" => self.outgoing_proxy_port = value.parse().map_err(|_| bad("a port"))?,
            "--proxy-uid" => self.proxy_uid = value.parse().map_err(|_| bad("a user id"))?,
            "--proxy-gid" => {
                let gid: i64 = value.parse().map_err(|_| bad("a group id"))?;
                // -1, Linkerd's default, and 0 mean: none.
                self.proxy_gid = u32::try_from(gid).ok().filter(|gid| *gid > 0);
            }
            "--ports-to-redirect" => {
                self.ports_to_redirect = ports(value).ok_or_else(|| bad("a list of ports"))?;
            }
            "--inbound-ports-to-ignore" => {
                self.inbound_ports_to_ignore = ports(value).ok_or_else(|| bad("a list of ports"))?;
            }
            "--outbound-ports-to-ignore" => {
                self.outbound_ports_to_ignore = ports(value).ok_or_else(|| bad("a list of ports"))?;
            }
            "--subnets-to-ignore" => {
                self.subnets_to_ignore = subnets(value).ok_or_else(|| bad("a list of networks"))?;
            }
            "--timeout-close-wait-secs" => {
                let seconds: u32 = value.parse().map_err(|_| bad("a number of seconds"))?;
                self.close_wait_seconds = (seconds > 0).then_some(seconds);
            }
            "--log-level" => self.verbose = matches!(value, "debug" | "trace"),
            "--netns" => {
                return Err("`--netns` is not supported: run `init` inside the network namespace".into());
            }
            // Formats of logs and places of iptables: nothing here depends on them.
            _ => {}
        }
        Ok(())
    }
}

fn long_name(name: &str) -> Option<&'static str> {
    FLAGS
        .iter()
        .find(|(short, long)| *short == name || *long == name)
        .map(|(_, long)| *long)
}

fn ports(text: &str) -> Option<Vec<PortRange>> {
    let mut ranges: Vec<PortRange> = items(text).map(port_range).collect::<Option<_>>()?;
    ranges.sort_by_key(|range| *range.start());
    Some(ranges.into_iter().fold(Vec::new(), merge))
}

fn port_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range: PortRange = first.trim().parse().ok()?..=last.trim().parse().ok()?;
    (!range.is_empty()).then_some(range)
}

/// nft refuses sets whose ranges overlap.
fn merge(mut ranges: Vec<PortRange>, next: PortRange) -> Vec<PortRange> {
    match ranges.last_mut() {
        Some(last) if *next.start() <= last.end().saturating_add(1) => {
            *last = *last.start()..=*last.end().max(next.end());
        }
        _ => ranges.push(next),
    }
    ranges
}

fn subnets(text: &str) -> Option<Vec<IpNet>> {
    let nets: Vec<IpNet> = items(text)
        .map(|item| {
            item.parse()
                .or_else(|_| item.parse::<std::net::IpAddr>().map(IpNet::from))
                .ok()
        })
        .collect::<Option<_>>()?;
    Some(IpNet::aggregate(&nets))
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Short and long names; those without a short one repeat the long one.
const FLAGS: [(&str, &str); 18] = [
    ("-p", "--incoming-proxy-port"),
    ("-o", "--outgoing-proxy-port"),
    ("-u", "--proxy-uid"),
    ("-g", "--proxy-gid"),
    ("-r", "--ports-to-redirect"),
    ("--inbound-ports-to-ignore", "--inbound-ports-to-ignore"),
    ("--outbound-ports-to-ignore", "--outbound-ports-to-ignore"),
    ("--subnets-to-ignore", "--subnets-to-ignore"),
    ("--timeout-close-wait-secs", "--timeout-close-wait-secs"),
    ("--log-level", "--log-level"),
    ("--log-format", "--log-format"),
    ("--netns", "--netns"),
    ("--iptables-mode", "--iptables-mode"),
    ("--firewall-bin-path", "--firewall-bin-path"),
    ("--firewall-save-bin-path", "--firewall-save-bin-path"),
    ("--simulate", "--simulate"),
    ("--ipv6", "--ipv6"),
    ("-w", "--use-wait-flag"),
];
const SWITCHES: [&str; 3] = ["--simulate", "--ipv6", "--use-wait-flag"];

pub(super) const HELP: &str = "\
Redirects the TCP traffic of this network namespace to the proxy.

usage: linkerd2-proxy init [FLAGS]

  -p, --incoming-proxy-port PORT        where inbound connections go (4143)
  -o, --outgoing-proxy-port PORT        where outbound connections go (4140)
  -u, --proxy-uid UID                   connections of this user are left alone (2102)
  -g, --proxy-gid GID                   connections of this group are left alone (none)
  -r, --ports-to-redirect LIST          only these inbound ports (all)
      --inbound-ports-to-ignore LIST    ports or ranges, such as 4190,4191,8000-8100
      --outbound-ports-to-ignore LIST
      --subnets-to-ignore LIST          sources whose inbound connections are left alone
      --timeout-close-wait-secs N       conntrack's timeout of half-closed connections
      --ipv6[=false]                    IPv6 too (true)
      --simulate                        print the rules instead of setting them
      --log-level LEVEL                 debug prints the rules as well
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Flags, String> {
        Flags::parse(&args.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_injectors_arguments_are_understood() {
        let flags = parse(&[
            "--ipv6=false",
            "--incoming-proxy-port",
            "4143",
            "--outgoing-proxy-port",
            "4140",
            "--proxy-uid",
            "2102",
            "--inbound-ports-to-ignore",
            "4190,4191,4567,4568",
            "--outbound-ports-to-ignore",
            "4567,4568",
        ]);
        let flags = flags.unwrap();
        assert!(!flags.ipv6);
        assert_eq!(flags.inbound_ports_to_ignore, [4190..=4191, 4567..=4568]);
    }

    #[test]
    fn short_flags_and_equals_signs() {
        let flags = parse(&["-p=1", "-o", "2", "-u", "3", "-g", "-1", "-w", "--simulate"]).unwrap();
        assert_eq!(
            (
                flags.incoming_proxy_port,
                flags.outgoing_proxy_port,
                flags.proxy_uid
            ),
            (1, 2, 3)
        );
        assert_eq!((flags.proxy_gid, flags.simulate), (None, true));
    }

    #[test]
    fn overlapping_ranges_are_merged() {
        assert_eq!(ports("10-20, 15-30,31, 80"), Some(vec![10..=31, 80..=80]));
        assert_eq!(ports("65535,65534"), Some(vec![65534..=65535]));
    }

    #[test]
    fn mistakes_are_named() {
        for (args, named) in [
            (&["--what"][..], "--what"),
            (&["-p"], "-p"),
            (&["-p", "x"], "--incoming-proxy-port"),
            (&["--subnets-to-ignore", "10.0.0.0/40"], "--subnets-to-ignore"),
            (&["--inbound-ports-to-ignore", "9-1"], "--inbound-ports-to-ignore"),
            (&["--netns", "/x"], "--netns"),
        ] {
            assert!(parse(args).unwrap_err().contains(named), "{args:?}");
        }
    }
}
