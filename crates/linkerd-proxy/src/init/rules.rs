//! The rules, as text for `nft -f`.

use super::flags::{Flags, PortRange};
use ipnet::IpNet;
use std::fmt::Write as _;

/// One table for each address family. Each is made, deleted and made again in the same transaction: that replaces
/// what an earlier run left, and works where there was none (`destroy` is too new for some).
pub(super) fn ruleset(flags: &Flags) -> String {
    let mut out = String::new();
    table(&mut out, "ip", flags, |net| matches!(net, IpNet::V4(_)));
    if flags.ipv6 {
        table(&mut out, "ip6", flags, |net| matches!(net, IpNet::V6(_)));
    }
    out
}

fn table(out: &mut String, family: &str, flags: &Flags, of_family: impl Fn(&&IpNet) -> bool) {
    let subnets: Vec<_> = flags
        .subnets_to_ignore
        .iter()
        .filter(of_family)
        .map(ToString::to_string)
        .collect();
    let _ = writeln!(out, "table {family} {TABLE}");
    let _ = writeln!(out, "delete table {family} {TABLE}");
    let _ = writeln!(out, "table {family} {TABLE} {{");
    chain(out, "prerouting", "dstnat", &inbound(family, flags, &subnets));
    chain(out, "output", "-100", &outbound(flags));
    let _ = writeln!(out, "}}");
}

fn chain(out: &mut String, hook: &str, priority: &str, rules: &[String]) {
    let _ = writeln!(out, "    chain {hook} {{");
    let _ = writeln!(
        out,
        "        type nat hook {hook} priority {priority}; policy accept;"
    );
    for rule in rules {
        let _ = writeln!(out, "        {rule}");
    }
    let _ = writeln!(out, "    }}");
}

/// From the network to the application: by way of the proxy's inbound port.
fn inbound(family: &str, flags: &Flags, subnets: &[String]) -> Vec<String> {
    let mut rules = Vec::new();
    if !flags.inbound_ports_to_ignore.is_empty() {
        rules.push(format!(
            "tcp dport {} return comment \"ignored ports\"",
            set(&flags.inbound_ports_to_ignore)
        ));
    }
    if !subnets.is_empty() {
        rules.push(format!(
            "{family} saddr {{ {} }} return comment \"ignored subnets\"",
            subnets.join(", ")
        ));
    }
    let matched = if flags.ports_to_redirect.is_empty() {
        "meta l4proto tcp".to_string()
    } else {
        format!("tcp dport {}", set(&flags.ports_to_redirect))
    };
    let port = flags.incoming_proxy_port;
    rules.push(format!(
        "{matched} redirect to :{port} comment \"to the proxy's inbound port\""
    ));
    rules
}

/// From the application to the network, except what the proxy itself sends and what stays within the pod.
fn outbound(flags: &Flags) -> Vec<String> {
    let mut rules = vec![format!(
        "meta skuid {} return comment \"the proxy itself\"",
        flags.proxy_uid
    )];
    if let Some(gid) = flags.proxy_gid {
        rules.push(format!("meta skgid {gid} return comment \"the proxy's group\""));
    }
    rules.push("oifname \"lo\" return comment \"within the pod\"".into());
    if !flags.outbound_ports_to_ignore.is_empty() {
        rules.push(format!(
            "tcp dport {} return comment \"ignored ports\"",
            set(&flags.outbound_ports_to_ignore)
        ));
    }
    let port = flags.outgoing_proxy_port;
    rules.push(format!(
        "meta l4proto tcp redirect to :{port} comment \"to the proxy's outbound port\""
    ));
    rules
}

fn set(ranges: &[PortRange]) -> String {
    let items: Vec<_> = ranges
        .iter()
        .map(|range| match (range.start(), range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        })
        .collect();
    format!("{{ {} }}", items.join(", "))
}

const TABLE: &str = "linkerd_proxy";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_rules() {
        let flags = Flags {
            ipv6: false,
            inbound_ports_to_ignore: vec![4190..=4191],
            outbound_ports_to_ignore: vec![443..=443],
            subnets_to_ignore: vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
            ..Flags::default()
        };
        let expected = "\
table ip linkerd_proxy
delete table ip linkerd_proxy
table ip linkerd_proxy {
    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        tcp dport { 4190-4191 } return comment \"ignored ports\"
        ip saddr { 10.1.0.0/16 } return comment \"ignored subnets\"
        meta l4proto tcp redirect to :4143 comment \"to the proxy's inbound port\"
    }
    chain output {
        type nat hook output priority -100; policy accept;
        meta skuid 2102 return comment \"the proxy itself\"
        oifname \"lo\" return comment \"within the pod\"
        tcp dport { 443 } return comment \"ignored ports\"
        meta l4proto tcp redirect to :4140 comment \"to the proxy's outbound port\"
    }
}
";
        assert_eq!(ruleset(&flags), expected);
    }

    #[test]
    fn both_families_get_their_own_table_and_subnets() {
        let subnets_to_ignore = vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let rules = ruleset(&Flags {
            subnets_to_ignore,
            ..Flags::default()
        });
        assert!(rules.contains("table ip6 linkerd_proxy {"));
        assert!(rules.contains("ip saddr { 10.1.0.0/16 }") && rules.contains("ip6 saddr { fd00::/8 }"));
    }
}
