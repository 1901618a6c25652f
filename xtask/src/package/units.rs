//! Tests of the systemd units: how exposed they leave a service, by systemd's own reckoning, and that all agree.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::layout::PROGRAMS;

/// Exposure at most, in tenths as `systemd-analyze security --threshold` takes it.
const AGENT: u32 = 20;
const COLLECTOR: u32 = 15;

fn unit(name: &str) -> PathBuf {
    crate::workspace().join("packaging/systemd").join(name)
}

fn analyzer_is_here() -> bool {
    let here =
        Command::new("systemd-analyze").arg("--version").output().is_ok_and(|out| out.status.success());
    if !here {
        eprintln!("systemd-analyze is not installed: the exposure of the units is NOT checked here");
    }
    here
}

fn exposure_is_within(file: &Path, tenths: u32) {
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", &format!("--threshold={tenths}")])
        .arg(file)
        .output()
        .expect("it runs");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("Overall exposure level"), "it has judged the unit: {text}");
    assert!(output.status.success(), "more exposed than {tenths} tenths: {text}");
}

#[test]
fn services_are_no_more_exposed_than_they_need_to_be() {
    if !analyzer_is_here() {
        return;
    }
    exposure_is_within(&unit("onenet-collector.service"), COLLECTOR);
    exposure_is_within(&unit("onenet-agent.service"), AGENT);
    // A template cannot be judged without a name.
    let folder = std::env::temp_dir().join(format!("xtask-units-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("made");
    let instance = folder.join("onenet-agent@lowell.service");
    fs::copy(unit("onenet-agent@.service"), &instance).expect("copied");
    exposure_is_within(&instance, AGENT);
    fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn the_template_is_hardened_as_the_single_service_is() {
    let settings = |name: &str, own: [(&str, &str); 2]| {
        let text = fs::read_to_string(unit(name)).expect("read");
        let text = own.iter().fold(text, |text, (from, to)| text.replace(from, to));
        let body = text.split_once("\n[Unit]").expect("a unit").1;
        body.lines().filter(|line| !line.starts_with("Description=")).collect::<Vec<_>>().join("\n")
    };
    let single = settings("onenet-agent.service", [("", ""), ("", "")]);
    let instance =
        settings("onenet-agent@.service", [("agent-%i.toml", "agent.toml"), ("agent-%i", "agent")]);
    assert_eq!(single, instance);
}

#[test]
fn every_service_notifies_is_watched_reloads_and_has_a_user_of_its_own() {
    for program in &PROGRAMS {
        for name in program.units.iter().map(|unit| unit.replace('*', "")) {
            let text = fs::read_to_string(unit(&name)).expect("read");
            for line in
                ["Type=notify", "WatchdogSec=", "ExecReload=", "Restart=always", "ProtectSystem=strict"]
            {
                assert!(text.contains(&format!("\n{line}")), "{name}: {line}");
            }
            assert!(text.contains(&format!("\nUser={}\n", program.name)), "{name}: its user");
        }
    }
}
