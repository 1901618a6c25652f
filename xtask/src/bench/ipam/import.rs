//! What an import of as many rows takes: shown, written, checked, and read by a collector that starts. No IPAM system can be
//! had here to import the same rows into; beside it stands the least that a script would do with them.

use std::{fmt::Write as _, time::Instant};

use anyhow::Result;

use super::{Bench, IMPORTED, Report, judge};
use crate::{
    bench::{delivery::Usage, measure::Taken, rounds::grouped},
    collector,
    programs::path,
    say,
};

/// Reads the rows, makes addresses and prefixes of them, sorts, and looks for the same one twice.
const SCRIPT: &str = "\
import csv, ipaddress, sys
seen = set()
for name, column, make in (('prefixes', 'prefix', ipaddress.ip_network), ('addresses', 'address', ipaddress.ip_interface)):
    with open(f'{sys.argv[1]}/{name}.csv', newline='') as file:
        for row in csv.DictReader(file):
            key = (row['vrf'], make(row[column]))
            if key in seen:
                sys.exit(f'{key} twice')
            seen.add(key)
print(len(sorted(seen, key=lambda key: (key[0], key[1].version, int(key[1].network_address if hasattr(key[1], 'network_address') else key[1].ip)))))
";

pub(super) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let folder = bench.folder.join("sheets");
    let (rows, prefixes) = (bench.rows.to_string(), bench.prefixes.to_string());
    bench.generate(&["sheets", path(&folder)?, "--rows", &rows, "--prefixes", &prefixes])?;
    let file = |name: &str| folder.join(name);
    let (plan, claims, addresses) = (file("plan.toml"), file("prefixes.csv"), file("addresses.csv"));
    let words =
        ["plan", "import", "--format", "netbox", "--plan", path(&plan)?, path(&claims)?, path(&addresses)?];
    say("onenet-collector plan import, shown and then written");
    let (shown, _) = bench.measure("onenet-collector", &words)?;
    let (applied, said) = bench.measure("onenet-collector", &[&words[..], &["--apply"]].concat())?;
    anyhow::ensure!(
        said.contains(&format!("{prefixes} prefixes and {rows} addresses")),
        "the import says:\n{said}"
    );
    let (again, _) = bench.measure("onenet-collector", &[&words[..], &["--apply"]].concat())?;
    // It fails, as it should, because claims overlap.
    say("onenet-collector plan check, and a collector that starts with the plan");
    let program = bench.program("onenet-collector");
    let check = [path(&program)?, "plan", "check", path(&plan)?];
    let sh = ["sh", "-c", "\"$@\"; test $? -eq 1", "sh"];
    let command: Vec<String> = sh.iter().chain(&check).map(|word| (*word).to_owned()).collect();
    let (checked, _) = bench.measure_any(&command)?;
    let began = Instant::now();
    let mut started = judge::start(bench, &bench.folder.join("imported"), &plan)?;
    collector::await_answer(&mut started, judge::WEB, || Ok(()))?;
    let wall = began.elapsed().as_secs_f64();
    let usage = Usage::of(started.process_id())?;
    started.stop()?;
    let start = Taken { wall, cpu: usage.cpu, peak: usage.peak };
    let script = ["python3", "-c", SCRIPT, path(&folder)?].map(str::to_owned);
    let python = match bench.measure_any(&script) {
        Ok((taken, _)) => Some(taken),
        Err(error) => {
            say(&format!("python3 cannot be run beside it: {error:#}"));
            None
        }
    };
    // Writing to a string cannot fail.
    let _ = writeln!(
        report.text,
        "{} rows of addresses and {} of prefixes, as NetBox exports them:\n\n| | elapsed s | processor s | peak MiB |\n|---|--:|--:|--:|",
        grouped(bench.rows.into()),
        grouped(bench.prefixes.into())
    );
    let lines = [
        ("`plan import`, shown", Some(shown)),
        ("`plan import --apply`", Some(applied)),
        ("the same import once more, `--apply`", Some(again)),
        ("`plan check`", Some(checked)),
        ("a collector starts with it, until it answers", Some(start)),
        ("Python: csv and ipaddress, no checks but for the same row twice", python),
    ];
    for (what, taken) in lines {
        if let Some(Taken { wall, cpu, peak }) = taken {
            let _ = writeln!(report.text, "| {what} | {wall:.1} | {cpu:.1} | {peak:.0} |");
        }
    }
    if let Some(python) = python {
        let _ = writeln!(
            report.text,
            "\nThe import takes {:.2} of the script's time.",
            shown.wall / python.wall.max(0.001)
        );
    }
    report.text.push('\n');
    let worst = [shown.wall, applied.wall, again.wall].into_iter().fold(0.0, f64::max);
    report.targets.push((format!("import, seconds, at most {IMPORTED:.0}"), IMPORTED, worst));
    Ok(())
}
