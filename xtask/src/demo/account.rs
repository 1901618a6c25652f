//! The table at the end of a demo: what each sensor read and shipped, what the collector holds, and the findings
//! against the truth.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{
    Stage,
    edge::{Edge, Status},
    path,
};
use crate::{http, programs::output};

/// How long the correlation and the SIEM feeds may take after the last batch is committed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Prints the account and says whether it balances and the findings are as planted.
pub(crate) fn print(stage: &Stage, edges: &mut [Edge], truth: Option<&Path>) -> Result<bool> {
    wait_until_told(stage)?;
    eprintln!();
    eprintln!(
        "{:<10} {:>9} = {:>9} + {:>8} + {:>7}  {:>8}  {:>8} = {:<8} ",
        "sensor", "packets", "parsed", "unparsed", "dropped", "flows", "sealed", "stored"
    );
    let mut balanced = true;
    for edge in edges {
        let (status, held) = settled(stage, edge)?;
        let fits = fits(&status, held);
        balanced &= fits;
        eprintln!(
            "{:<10} {:>9} = {:>9} + {:>8} + {:>7}  {:>8}  {:>8} = {:<8} {}",
            edge.sensor,
            status.packets,
            status.parsed,
            status.unparsed,
            status.dropped,
            held.flows,
            status.batches_sealed,
            held.batches,
            if fits { "balanced" } else { "DOES NOT BALANCE" }
        );
    }
    let as_planted = findings(stage, truth)?;
    places(stage)?;
    Ok(balanced && as_planted)
}

/// What the collector holds of a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    batches: u64,
    flows: u64,
}

fn held(sensors: &Value, name: &str) -> Result<Held> {
    let items = sensors["items"].as_array().context("the API lists no sensors")?;
    let sensor = items.iter().find(|s| s["sensor"] == name);
    let sensor = sensor.with_context(|| format!("the collector does not know {name}"))?;
    let number = |key: &str| sensor[key].as_u64().with_context(|| format!("sensor {name} has no {key}"));
    Ok(Held { batches: number("batches")?, flows: number("flows")? })
}

/// Asks agent and collector until both say the same: heartbeats go on while they are asked, so that one more can
/// be sealed than is stored yet. Gives the last answers in any case.
fn settled(stage: &Stage, edge: &mut Edge) -> Result<(Status, Held)> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = edge.status(stage)?;
        let held = held(&http::get_json(stage.web, "/api/v1/sensors")?, &edge.sensor)?;
        if fits(&status, held) || Instant::now() > deadline {
            return Ok((status, held));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Whether every packet is accounted for and everything sealed is stored.
fn fits(status: &Status, held: Held) -> bool {
    status.packets > 0
        && status.packets == status.parsed + status.unparsed
        && status.batches_sealed == held.batches
        && status.flow_records == held.flows
}

/// Waits until the collector has correlated what it holds and every feed has sent what it has to.
fn wait_until_told(stage: &Stage) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let health = http::get_json(stage.web, "/api/v1/health")?;
        let feeds = health["feeds"].as_array().map(Vec::as_slice).unwrap_or_default();
        if health["correlated"] == true && feeds.iter().all(|feed| feed["behind"] == 0) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "the collector has not correlated and fed everything within {} s: {health}",
                PATIENCE.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Prints the findings, against the truth where there is one.
fn findings(stage: &Stage, truth: Option<&Path>) -> Result<bool> {
    let collector = stage.collector_dir();
    let arguments = ["findings", "--dir", path(&collector)?, "--limit", "10000", "--format", "json"];
    let text = output(&stage.program("onenet-collector"), &arguments)?;
    let Some(truth) = truth else {
        let list: Value = serde_json::from_str(&text).context("`findings` printed no JSON")?;
        let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
        eprintln!("\n{} findings (real captures: no truth to hold them against)", list.len());
        for finding in list {
            let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            eprintln!("  {:<16} {:<9} {}", text("rule"), text("severity"), text("summary"));
        }
        return Ok(true);
    };
    let file = stage.dir.join("findings.json");
    std::fs::write(&file, &text)?;
    // A beacon shows over hours, and on the wires a day passes in seconds.
    let without: &[&str] = if stage.live { &["--without", "beacon"] } else { &[] };
    let compared = Command::new(stage.program("onenet-truth"))
        .args(["--truth", path(truth)?, "--findings", path(&file)?])
        .args(without)
        .stdin(Stdio::null())
        .output()
        .context("cannot start onenet-truth")?;
    eprintln!(
        "\nFindings against truth (= found as planted, - planted and missing, + found and not planted)"
    );
    let lines = String::from_utf8_lossy(&compared.stdout);
    for line in lines.lines() {
        eprintln!("  {line}");
    }
    let count = |sign: &str| lines.lines().filter(|line| line.starts_with(sign)).count();
    eprintln!("  {} as planted, {} missing, {} not planted", count("="), count("-"), count("+"));
    match compared.status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("onenet-truth failed: {}", String::from_utf8_lossy(&compared.stderr)),
    }
}

/// Says where to look.
fn places(stage: &Stage) -> Result<()> {
    let ecs = stage.collector_dir().join("siem").join("events.ndjson");
    if !ecs.is_file() {
        bail!("the SIEM file {} is not there", ecs.display());
    }
    eprintln!();
    eprintln!("page       http://{}/", stage.page);
    eprintln!("API        http://{}/api/v1/findings", stage.page);
    eprintln!("SIEM file  {}", ecs.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            packets: 10,
            parsed: 8,
            unparsed: 2,
            flow_records: 5,
            batches_sealed: 4,
            ..Status::default()
        }
    }

    #[test]
    fn an_account_fits_only_where_nothing_is_missing() {
        assert!(fits(&status(), Held { batches: 4, flows: 5 }));
        assert!(!fits(&status(), Held { batches: 3, flows: 5 }));
        assert!(!fits(&status(), Held { batches: 4, flows: 4 }));
        assert!(!fits(&Status { parsed: 7, ..status() }, Held { batches: 4, flows: 5 }));
        assert!(!fits(&Status::default(), Held { batches: 0, flows: 0 }));
    }

    #[test]
    fn a_sensor_is_found_by_its_name() {
        let sensors = serde_json::json!({ "items": [{ "sensor": "boston-1", "batches": 3, "flows": 9 }] });
        assert_eq!(held(&sensors, "boston-1").expect("it is there"), Held { batches: 3, flows: 9 });
        assert!(held(&sensors, "lowell-1").is_err());
    }
}
