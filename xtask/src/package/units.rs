//! The systemd units: how exposed they leave a service, by systemd's own reckoning.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

/// The units and how exposed each may be, in tenths.
pub(super) const LIMITS: [(&str, u32); 3] =
    [("onenet-collector.service", 15), ("onenet-agent.service", 20), ("onenet-agent@.service", 20)];

fn file(name: &str) -> PathBuf {
    crate::workspace().join("packaging/systemd").join(name)
}

/// How exposed a unit is, in tenths, from 0 for not at all to 100.
pub(super) fn exposure(unit: &str) -> Result<u32> {
    // A template cannot be judged without a name.
    let folder = std::env::temp_dir().join(format!("xtask-{unit}-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let instance = folder.join(unit.replace("@.", "@lowell."));
    fs::copy(file(unit), &instance).with_context(|| file(unit).display().to_string())?;
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(&instance)
        .output()
        .context("cannot run systemd-analyze")?;
    fs::remove_dir_all(folder)?;
    let text = String::from_utf8_lossy(&output.stdout);
    overall(&text).with_context(|| {
        format!("systemd-analyze does not judge {unit}: {text}{}", String::from_utf8_lossy(&output.stderr))
    })
}

/// The number in the line `→ Overall exposure level for onenet-agent.service: 1.9 OK`, in tenths.
fn overall(text: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.contains("Overall exposure level"))?;
    let (whole, tenths) = line.rsplit_once(": ")?.1.split_whitespace().next()?.split_once('.')?;
    let number = |digits: &str| digits.parse::<u32>().ok();
    number(whole)?.checked_mul(10)?.checked_add(number(tenths).filter(|tenths| *tenths < 10)?)
}

/// Tenths as systemd prints them.
pub(super) fn shown(tenths: u32) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::{super::layout::PROGRAMS, *};

    #[test]
    fn the_verdict_is_read_to_the_tenth() {
        assert_eq!(overall("x\n→ Overall exposure level for a.service: 1.9 OK :-)\n"), Some(19));
        assert_eq!(overall("→ Overall exposure level for a.service: 10.0 DANGEROUS"), Some(100));
        assert_eq!(overall("→ Overall exposure level for a.service: ? OK"), None);
        assert_eq!(overall(""), None);
    }

    #[test]
    fn services_are_no_more_exposed_than_they_need_to_be() {
        let here =
            Command::new("systemd-analyze").arg("--version").output().is_ok_and(|out| out.status.success());
        if !here {
            eprintln!("systemd-analyze is not installed: the exposure of the units is NOT checked here");
            return;
        }
        for (unit, tenths) in LIMITS {
            let found = exposure(unit).expect("it is judged");
            assert!(found <= tenths, "{unit}: {}", shown(found));
        }
    }

    #[test]
    fn the_template_is_hardened_as_the_single_service_is() {
        let settings = |name: &str, own: [(&str, &str); 2]| {
            let text = fs::read_to_string(file(name)).expect("read");
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
                let text = fs::read_to_string(file(&name)).expect("read");
                for line in
                    ["Type=notify", "WatchdogSec=", "ExecReload=", "Restart=always", "ProtectSystem=strict"]
                {
                    assert!(text.contains(&format!("\n{line}")), "{name}: {line}");
                }
                assert!(text.contains(&format!("\nUser={}\n", program.name)), "{name}: its user");
            }
        }
    }
}
