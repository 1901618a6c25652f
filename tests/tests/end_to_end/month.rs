//! A hard month at both edges, by the real programs: moves, leases that pass on, virtual addresses, NAT, hosts that are
//! seen at both edges, equal and nested claims, silence. What is behind each address is held to the truth.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use ipnet::IpNet;
use onenet_tests::traffic::{
    Options,
    month::{ClaimTruth, Findings, MonthTruth, Reported, about_address, about_claim, generate_month},
};
use serde_json::Value;

use crate::harness::{AgentConfig, Lab, say, text as path_text};

fn names(value: &Value) -> BTreeSet<String> {
    value.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

fn address(finding: &Value) -> IpAddr {
    let text = finding["subject"]["address"].as_str().expect("an address");
    text.parse().expect("an address")
}

fn prefix(finding: &Value) -> IpNet {
    finding["subject"]["prefix"].as_str().expect("a prefix").parse().expect("a prefix")
}

/// The verdict of every finding that has one.
fn verdicts(findings: &[Value]) -> Reported {
    let mut reported = Reported::new();
    for finding in findings {
        if let Some(verdict) = finding["evidence"]["verdict"].as_str() {
            let said = (names(&finding["address_spaces"]), verdict.to_owned());
            reported.entry(address(finding)).or_default().insert(said);
        }
    }
    reported
}

/// What each rule raised, in the words of the truth. Of uses that are not as planned every address counts, and the
/// inventory has them.
fn raised(truth: &MonthTruth, findings: &[Value], inventory: &[Value], dark: &[Value]) -> Findings {
    let mut raised = Findings::new();
    let mut add = |rule: &str, about: String| {
        raised.entry(rule.to_owned()).or_default().insert(about);
    };
    // One finding stands for all that is another's of one claim, so an address that does not come with the prefix is told
    // by the inventory.
    let mut routed: Vec<(String, IpNet)> = Vec::new();
    for finding in findings {
        let rule = finding["rule"].as_str().expect("a rule");
        match rule {
            "overlap.address" | "address.duplicate" | "gateway.mac" | "dhcp.rogue" => {
                add(rule, about_address(address(finding)));
            }
            "overlap.routed" => {
                let parts: Vec<&str> = finding["key"].as_str().expect("a key").split('|').collect();
                let [_, user, _, owner] = parts[..] else { panic!("{parts:?}") };
                // A finding names the claim, of which a part may be what arrives.
                let mut parts = truth.routed.iter().map(|routed| routed.prefix);
                let part = parts.find(|part| prefix(finding).contains(part));
                let arriving = part.unwrap_or_else(|| prefix(finding));
                routed.push((user.to_owned(), arriving));
                let claim = ClaimTruth { prefix: arriving, secretariat: owner.to_owned() };
                add(rule, format!("{} by {user}", about_claim(&claim)));
            }
            _ => {}
        }
    }
    for entry in inventory {
        let address: IpAddr = entry["address"].as_str().expect("an address").parse().expect("an address");
        let user = entry["secretariat"].as_str().unwrap_or_default();
        let is_routed = routed.iter().any(|(by, net)| by == user && net.contains(&address));
        match entry["standing"].as_str() {
            Some("undeclared") => add("address.undeclared", about_address(address)),
            Some("misplaced") if !is_routed => add("address.misplaced", about_address(address)),
            _ => {}
        }
    }
    for claim in dark {
        let claim = ClaimTruth {
            prefix: claim["cidr"].as_str().expect("a prefix").parse().expect("a prefix"),
            secretariat: claim["secretariat"].as_str().expect("a secretariat").to_owned(),
        };
        add("claim.dark", about_claim(&claim));
    }
    raised
}

/// The prefixes that are claimed in several address spaces, and by whom.
fn contested(truth: &MonthTruth) -> BTreeMap<IpNet, BTreeSet<String>> {
    let mut contested: BTreeMap<IpNet, BTreeSet<String>> = BTreeMap::new();
    for pair in &truth.declared {
        let inner = pair.claims.iter().max_by_key(|claim| claim.prefix.prefix_len()).expect("two claims");
        let by = contested.entry(inner.prefix).or_default();
        by.extend(pair.claims.iter().map(|claim| claim.secretariat.clone()));
    }
    contested
}

#[test]
fn two_hosts_are_told_from_one_and_nothing_else_is_raised() {
    let directory = tempfile::tempdir().expect("a directory");
    // Another seed is another month, with the same cases.
    let seed = std::env::var("ONENET_MONTH_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let truth = generate_month(directory.path(), Options { seed, scale: 0.2 }).expect("captures");
    let mut lab = Lab::new(Some(&directory.path().join("plan.toml")), "");
    // A month is not quite thirty days long.
    let config = lab.collector_dir().join("collector.toml");
    let text = std::fs::read_to_string(&config).expect("a configuration");
    assert!(text.contains("#dark_days = 30"), "{text}");
    std::fs::write(&config, text.replace("#dark_days = 30", "dark_days = 25")).expect("a configuration");
    lab.start();
    let edges: Vec<_> = ["boston", "lowell"]
        .map(|site| {
            let mut tables = String::new();
            let capture = directory.path().join(format!("{site}-inside.pcap"));
            let interfaces =
                std::fs::read_to_string(directory.path().join(format!("{site}-interfaces.toml")));
            let interfaces = interfaces.expect("interface settings");
            let name = interfaces.lines().find_map(|line| line.strip_prefix("name = ")).expect("a name");
            write!(
                tables,
                "[[source]]\nkind = \"pcap-file\"\npath = {:?}\ninterface = {name}\n\n{interfaces}\n",
                path_text(&capture)
            )
            .expect("a string");
            lab.enrol(AgentConfig {
                sensor: format!("{site}-1"),
                site: site.to_owned(),
                plan: Some(directory.path().join("plan.toml")),
                top: String::new(),
                tables,
            })
        })
        .into();
    std::thread::scope(|scope| {
        for edge in &edges {
            scope.spawn(|| edge.run_until_end());
        }
    });
    lab.settle();
    let (findings, inventory) = (lab.items("/api/v1/findings"), lab.items("/api/v1/inventory"));
    let dark = lab.call(&["inventory", "--dark", "--format", "json"]).success();
    let dark: Vec<Value> = serde_json::from_str(&dark).expect("JSON");

    let comparison = truth.compare(&verdicts(&findings));
    say(&format!(
        "a hard month (seed {seed}), {} hosts, {} packets:\n{comparison}",
        truth.hosts, truth.packets
    ));
    let tally = comparison.verdicts.get("two-hosts").expect("there are some");
    let mut mistakes = comparison.mistakes.clone();
    for (rule, (missing, surplus)) in truth.compare_findings(&raised(&truth, &findings, &inventory, &dark)) {
        if rule != "overlap.declared" {
            mistakes.extend(missing.iter().map(|about| format!("{rule}: {about} is missing")));
            mistakes.extend(surplus.iter().map(|about| format!("{rule}: {about} is too much")));
        }
    }
    let declared = findings.iter().filter(|finding| finding["rule"] == "overlap.declared");
    let declared: BTreeMap<IpNet, BTreeSet<String>> =
        declared.map(|finding| (prefix(finding), names(&finding["secretariats"]))).collect();
    assert_eq!(declared, contested(&truth));
    assert_eq!(tally.precision(), Some(1000), "{mistakes:#?}");
    assert!(tally.recall() >= Some(990), "{mistakes:#?}");
    assert_eq!(mistakes, [""; 0], "{mistakes:#?}");
}
