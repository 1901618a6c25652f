//! Reported verdicts against the truth of the month, counted by verdict and by case.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use super::truth::{AddressTruth, MonthTruth};

/// The verdict that says that nothing can be said; it is never wrong where something happened.
const UNKNOWN: &str = "unknown";

/// What was reported: for each address the verdicts, each with the address spaces it names.
pub type Reported = BTreeMap<IpAddr, BTreeSet<(BTreeSet<String>, String)>>;

/// How the reports of one verdict stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Addresses that it is true of.
    pub truth: u64,
    /// Addresses that it was reported of.
    pub reported: u64,
    /// Reported, and true with these address spaces.
    pub right: u64,
    /// Reported where the truth accepts it, or says more than `unknown`.
    pub accepted: u64,
    /// Reported and not true.
    pub wrong: u64,
}

impl Tally {
    /// Of a thousand reports that were right or wrong, how many were right; none where there were none.
    pub fn precision(&self) -> Option<u64> {
        per_mille(self.right, self.right + self.wrong)
    }

    /// Of a thousand addresses that it is true of, how many were reported.
    pub fn recall(&self) -> Option<u64> {
        per_mille(self.right, self.truth)
    }
}

fn per_mille(part: u64, whole: u64) -> Option<u64> {
    (part * 1000).checked_div(whole)
}

/// Verdicts and cases in numbers. As text it is a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonthComparison {
    /// By verdict.
    pub verdicts: BTreeMap<String, Tally>,
    /// By case: addresses, and of them those with all that must be said and nothing wrong.
    pub cases: BTreeMap<String, (u64, u64)>,
    /// What was wrong or missing, one line each.
    pub mistakes: Vec<String>,
}

impl MonthTruth {
    /// Counts what was reported against the truth. Several reports of one verdict for one address, such as one for
    /// each pair of address spaces, count as one with all their spaces.
    pub fn compare(&self, reported: &Reported) -> MonthComparison {
        let mut result = MonthComparison::default();
        let truths: BTreeMap<IpAddr, &AddressTruth> = self.addresses.iter().map(|t| (t.address, t)).collect();
        let none = BTreeSet::new();
        let addresses: BTreeSet<IpAddr> = truths.keys().chain(reported.keys()).copied().collect();
        for address in addresses {
            let truth = truths.get(&address).copied();
            let reports = reported.get(&address).unwrap_or(&none);
            let mut verdicts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
            for (spaces, verdict) in reports {
                verdicts.entry(verdict).or_default().extend(spaces.iter().map(String::as_str));
            }
            let good = result.take(address, truth, &verdicts);
            if let Some(truth) = truth {
                let case = result.cases.entry(truth.case.clone()).or_default();
                case.0 += 1;
                case.1 += u64::from(good);
            }
        }
        result
    }
}

impl MonthComparison {
    /// Whether nothing was wrong and nothing missing.
    pub fn is_right(&self) -> bool {
        self.mistakes.is_empty()
    }

    fn take(
        &mut self,
        address: IpAddr,
        truth: Option<&AddressTruth>,
        verdicts: &BTreeMap<&str, BTreeSet<&str>>,
    ) -> bool {
        let expected = truth.and_then(|truth| truth.verdict.as_deref());
        let (mut good, mut said) = (true, expected.is_none());
        let case = truth.map_or("no case", |truth| &truth.case);
        if let Some(expected) = expected {
            self.verdicts.entry(expected.to_owned()).or_default().truth += 1;
        }
        for (verdict, spaces) in verdicts {
            let tally = self.verdicts.entry((*verdict).to_owned()).or_default();
            tally.reported += 1;
            let true_spaces =
                truth.is_some_and(|t| t.spaces.iter().map(String::as_str).eq(spaces.iter().copied()));
            let accepted = truth.is_some_and(|t| t.accepted.iter().any(|accepted| accepted == verdict));
            if expected == Some(*verdict) && true_spaces {
                tally.right += 1;
                said = true;
            } else if accepted || (*verdict == UNKNOWN && expected.is_some()) {
                tally.accepted += 1;
                said |= accepted;
            } else {
                tally.wrong += 1;
                good = false;
                let spaces: Vec<&str> = spaces.iter().copied().collect();
                let expected = expected.unwrap_or("nothing");
                self.mistakes.push(format!(
                    "{address} ({case}): {verdict} in {}, expected {expected}",
                    spaces.join(", ")
                ));
            }
        }
        if !said {
            self.mistakes.push(format!("{address} ({case}): {} not reported", expected.unwrap_or_default()));
        }
        good && said
    }
}

impl fmt::Display for MonthComparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |share: Option<u64>| {
            share.map_or_else(|| "-".to_owned(), |s| format!("{}.{:03}", s / 1000, s % 1000))
        };
        writeln!(
            out,
            "{:<12} {:>6} {:>9} {:>6} {:>9} {:>6} {:>10} {:>7}",
            "verdict", "truth", "reported", "right", "accepted", "wrong", "precision", "recall"
        )?;
        for (verdict, tally) in &self.verdicts {
            writeln!(
                out,
                "{verdict:<12} {:>6} {:>9} {:>6} {:>9} {:>6} {:>10} {:>7}",
                tally.truth,
                tally.reported,
                tally.right,
                tally.accepted,
                tally.wrong,
                part(tally.precision()),
                part(tally.recall()),
            )?;
        }
        writeln!(out, "\n{:<24} {:>9} {:>6}", "case", "addresses", "right")?;
        for (case, (addresses, right)) in &self.cases {
            writeln!(out, "{case:<24} {addresses:>9} {right:>6}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(
        last: u8,
        case: &str,
        spaces: &[&str],
        verdict: Option<&str>,
        accepted: &[&str],
    ) -> AddressTruth {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        AddressTruth {
            address: [10, 1, 0, last].into(),
            case: case.to_owned(),
            spaces: texts(spaces),
            sites: vec!["boston".to_owned()],
            verdict: verdict.map(str::to_owned),
            accepted: texts(accepted),
            rules: Vec::new(),
            from: 0,
            until: 1,
            why: "made up".to_owned(),
        }
    }

    fn report(reports: &[(u8, &[&str], &str)]) -> Reported {
        let mut all = Reported::new();
        for (last, spaces, verdict) in reports {
            let spaces = spaces.iter().map(|space| (*space).to_owned()).collect();
            all.entry([10, 1, 0, *last].into()).or_default().insert((spaces, (*verdict).to_owned()));
        }
        all
    }

    fn month() -> MonthTruth {
        let addresses = vec![
            truth(1, "two-hosts", &["a", "b"], Some("two-hosts"), &[]),
            truth(2, "two-hosts", &["a", "b", "c"], Some("two-hosts"), &[]),
            truth(3, "two-hosts", &["a", "b"], Some("two-hosts"), &[]),
            truth(4, "moved", &["a", "b"], Some("moved"), &[]),
            truth(5, "indistinct", &["a", "b"], Some("unknown"), &["two-hosts"]),
            truth(6, "failover", &["a"], None, &[]),
        ];
        MonthTruth { addresses, ..MonthTruth::default() }
    }

    #[test]
    fn the_truth_itself_is_right() {
        let comparison = month().compare(&report(&[
            (1, &["a", "b"], "two-hosts"),
            (2, &["a", "b"], "two-hosts"),
            (2, &["b", "c"], "two-hosts"),
            (3, &["a", "b"], "two-hosts"),
            (4, &["a", "b"], "moved"),
            (5, &["a", "b"], "two-hosts"),
        ]));
        assert!(comparison.is_right(), "{:?}", comparison.mistakes);
        let tally = comparison.verdicts["two-hosts"];
        assert_eq!((tally.truth, tally.reported, tally.right, tally.accepted, tally.wrong), (3, 4, 3, 1, 0));
        assert_eq!((tally.precision(), tally.recall()), (Some(1000), Some(1000)));
        assert_eq!(comparison.cases["failover"], (1, 1));
    }

    #[test]
    fn what_is_wrong_and_what_is_missing_counts() {
        let comparison = month().compare(&report(&[
            (1, &["a", "b"], "two-hosts"),
            // One space short, a wrong verdict, a verdict for nothing, and one for an address of no case.
            (2, &["a", "b"], "two-hosts"),
            (3, &["a", "b"], "unknown"),
            (4, &["a", "b"], "two-hosts"),
            (6, &["a"], "two-hosts"),
            (9, &["a", "b"], "two-hosts"),
        ]));
        let tally = comparison.verdicts["two-hosts"];
        assert_eq!((tally.truth, tally.reported, tally.right, tally.wrong), (3, 5, 1, 4));
        assert_eq!((tally.precision(), tally.recall()), (Some(200), Some(333)));
        assert_eq!(comparison.verdicts["unknown"].accepted, 1);
        assert_eq!(comparison.cases["two-hosts"], (3, 1));
        // Four wrong; 2, 3, 4 and 5 lack what must be said of them.
        assert_eq!(comparison.mistakes.len(), 8);
        let text = comparison.to_string();
        assert!(
            text.contains("two-hosts         3         5      1         0      4      0.200   0.333"),
            "{text}"
        );
    }
}
