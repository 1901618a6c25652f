//! The findings that the month must raise, rule by rule, to be compared with those that were raised.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::truth::{ClaimTruth, MonthTruth};

/// Findings by rule: what each is about, in words.
pub type Findings = BTreeMap<String, BTreeSet<String>>;

/// What a finding about an address is about.
pub fn about_address(address: IpAddr) -> String {
    address.to_string()
}

/// What a finding about a claim is about.
pub fn about_claim(claim: &ClaimTruth) -> String {
    format!("{} {}", claim.secretariat, claim.prefix)
}

/// What a finding about two claims is about, whichever comes first.
pub fn about_claims(claims: &[ClaimTruth; 2]) -> String {
    let mut texts = claims.each_ref().map(about_claim);
    texts.sort();
    texts.join(" and ")
}

impl MonthTruth {
    /// What each rule must raise. A gateway is named by `gateway.mac` only: that two stations answer for it is the
    /// same incident.
    pub fn findings(&self) -> Findings {
        let mut findings = Findings::new();
        let mut add = |rule: &str, about: String| {
            findings.entry(rule.to_owned()).or_default().insert(about);
        };
        for truth in &self.addresses {
            for rule in truth.rules.iter().filter(|rule| *rule != "overlap.routed") {
                add(rule, about_address(truth.address));
            }
        }
        for truth in &self.declared {
            add("overlap.declared", about_claims(&truth.claims));
        }
        for truth in &self.dark {
            add("claim.dark", about_claim(truth));
        }
        for truth in &self.routed {
            let claim = ClaimTruth { prefix: truth.prefix, secretariat: truth.owner.clone() };
            add("overlap.routed", format!("{} by {}", about_claim(&claim), truth.secretariat));
        }
        for truth in &self.gateway {
            add("gateway.mac", about_address(truth.address));
        }
        findings
    }

    /// Findings that were raised against those that must be: for each rule of the truth, those that are missing and
    /// those that nothing accounts for.
    pub fn compare_findings(
        &self,
        raised: &Findings,
    ) -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
        let none = BTreeSet::new();
        let expected = self.findings();
        let sides = expected.iter().map(|(rule, expected)| {
            let raised = raised.get(rule).unwrap_or(&none);
            let missing = expected.difference(raised).cloned().collect();
            (rule.clone(), (missing, raised.difference(expected).cloned().collect()))
        });
        sides.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::IntruderTruth, *};

    #[test]
    fn what_is_missing_and_what_is_too_much_stands_by_rule() {
        let claim = |prefix: &str, secretariat: &str| ClaimTruth {
            prefix: prefix.parse().expect("a prefix"),
            secretariat: secretariat.to_owned(),
        };
        let gateway = IntruderTruth {
            address: [10, 10, 0, 1].into(),
            mac: onenet_core::net::MacAddress([2; 6]),
            secretariat: "af".to_owned(),
            site: "boston".to_owned(),
            from: 1,
            until: 2,
        };
        let truth = MonthTruth {
            dark: vec![claim("10.9.0.0/16", "af"), claim("10.8.0.0/16", "eoe")],
            gateway: vec![gateway],
            ..MonthTruth::default()
        };
        let mut raised = truth.findings();
        assert!(truth.compare_findings(&raised).values().all(|(a, b)| a.is_empty() && b.is_empty()));
        let dark = raised.get_mut("claim.dark").expect("dark claims");
        dark.remove("af 10.9.0.0/16");
        dark.insert("eea 10.7.0.0/16".to_owned());
        let (missing, surplus) = &truth.compare_findings(&raised)["claim.dark"];
        assert_eq!(missing.iter().next().expect("one"), "af 10.9.0.0/16");
        assert_eq!(surplus.iter().next().expect("one"), "eea 10.7.0.0/16");
        let pair = [claim("10.1.0.0/16", "b"), claim("10.1.0.0/16", "a")];
        assert_eq!(about_claims(&pair), "a 10.1.0.0/16 and b 10.1.0.0/16");
    }
}
