//! What an operator does with both programs on one machine, from the first configuration to the first finding; the same
//! whatever package they came in.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::host::Host;

/// How long something may take that takes a second or two on a machine that does nothing else.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// What an upgrade must keep: the sensor's keys, the authority, and what was committed.
const KEPT: &str = "cat /var/lib/onenet/agent/keys/* /var/lib/onenet/collector/*.key /etc/onenet/agent.toml /etc/onenet/collector.toml | sha256sum";

/// What is there before an upgrade.
pub(super) struct Held {
    keys: String,
    batches: u64,
    findings: String,
    epoch: String,
}

/// Nothing runs before it is set up, but it will.
pub(super) fn waits_enabled(host: &Host) -> Result<()> {
    for unit in ["onenet-agent", "onenet-collector"] {
        host.must(&format!("{unit} is enabled"), &format!("systemctl is-enabled {unit}"))?;
        host.must(
            &format!("{unit} does not run before it is set up"),
            &format!(
                "[ \"$(systemctl is-active {unit})\" = inactive ] && ! systemctl --failed | grep onenet"
            ),
        )?;
        host.must(
            &format!("a start of {unit} without set-up is skipped"),
            &format!("systemctl start {unit}"),
        )?;
        host.must(
            "and its status says what it waits for",
            &format!("(systemctl status {unit} || :) | grep -E 'Condition.*(enrolment.json|server.pem)'"),
        )?;
        host.must(
            &format!("{unit} has its manual"),
            &format!("gzip -t /usr/share/man/man1/{unit}-run.1.gz"),
        )?;
    }
    Ok(())
}

/// `init`, `token create`, `enroll`, as root, and the services run.
pub(super) fn set_up(host: &Host) -> Result<()> {
    host.must("the collector's keys are made", "onenet-collector init --keys-only --name collector.example")?;
    host.must(
        "root made them for the service's user",
        "[ \"$(stat -c '%a %U' /var/lib/onenet/collector/ca.key)\" = '600 onenet-collector' ]",
    )?;
    host.must(
        "the collector's configuration is changed",
        "echo '# Changed here.' >>/etc/onenet/collector.toml",
    )?;
    host.must("the plan is sound", "onenet-collector plan check /etc/onenet/plan.toml")?;
    host.must("the collector starts, and says when it is ready", "systemctl start onenet-collector")?;
    host.must(
        "a sensor gets its token",
        "onenet-collector token create --sensor boston-1 --site boston >/root/token",
    )?;
    host.must(
        "the link of the edge",
        "ip netns add inside && ip link add edge0 type veth peer name client0 netns inside \
         && ip address add 10.17.0.1/24 dev edge0 && ip link set edge0 up \
         && ip -n inside address add 10.17.0.2/24 dev client0 && ip -n inside link set client0 up \
         && ip -n inside link set lo up",
    )?;
    host.must(
        "the agent is configured",
        "sed -i -e 's|https://collector.example:7443|https://127.0.0.1:7443|' -e 's|\"eth0\"|\"edge0\"|' \
         /etc/onenet/agent.toml && printf '[[interface]]\\nname = \"edge0\"\\nrole = \"inside\"\\n' \
         >>/etc/onenet/agent.toml && onenet-agent check-config",
    )?;
    host.must("the sensor enrols", "onenet-agent enroll --token \"$(head -n 1 /root/token)\"")?;
    host.must(
        "its keys are the service's",
        "[ -z \"$(find /var/lib/onenet/agent ! -user onenet-agent)\" ] \
         && [ -z \"$(find /var/lib/onenet/collector ! -user onenet-collector)\" ]",
    )?;
    for program in ["onenet-agent", "onenet-collector"] {
        host.must_fail(
            &format!("{program} is not run by root among the files of its user"),
            &format!("{program} run"),
            &format!("belongs to {program}"),
        )?;
    }
    host.must("the agent starts, and says when it is ready", "systemctl start onenet-agent")?;
    host.must(
        "the agent has no more privileges than it needs",
        "agent=$(systemctl show -p MainPID --value onenet-agent) && grep -E '^(Uid|Cap|Seccomp:|NoNewPrivs)' /proc/$agent/status \
         && grep -q '^CapEff:[[:space:]]000000c000003000' /proc/$agent/status && grep -q '^Seccomp:[[:space:]]2' /proc/$agent/status",
    )?;
    host.must(
        "the collector has none",
        "collector=$(systemctl show -p MainPID --value onenet-collector) \
         && grep -q '^CapEff:[[:space:]]0000000000000000' /proc/$collector/status",
    )?;
    Ok(())
}

/// A scan from the inside, until it is in the SIEM's file.
pub(super) fn finds(host: &Host) -> Result<()> {
    host.within(SOON, "the agent sees its interface", "onenet-agent status | grep -q edge0")?;
    host.must(
        "traffic: a host of a secretariat tries many ports",
        "for port in $(seq 1 60); do ip netns exec inside timeout 1 bash -c \"echo >/dev/tcp/10.17.0.1/$port\" 2>/dev/null || :; done",
    )?;
    let found = host.within(
        Duration::from_secs(60),
        "the finding is in the SIEM's file",
        "grep -m 1 '10[.]17[.]0[.]2.*scan\\|scan.*10[.]17[.]0[.]2' /var/lib/onenet/collector/siem/events.ndjson",
    )?;
    ensure!(serde_json::from_str::<serde_json::Value>(found.trim()).is_ok(), "no JSON: {found}");
    host.within(SOON, "its address is in the inventory", "onenet-collector inventory | grep -w 10.17.0.2")?;
    host.must(
        "and the page is there",
        "exec 3<>/dev/tcp/127.0.0.1/7480; printf 'GET / HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3; read -r line <&3; \
         echo \"$line\"; [[ $line == *200* ]]",
    )?;
    Ok(())
}

/// It reads by what it should: eBPF under no more privileges than the unit gives, where the kernel has what that takes.
pub(super) fn reads_by_ebpf(host: &Host) -> Result<()> {
    if host.run("test -e /sys/kernel/btf/vmlinux")?.success {
        host.must("it reads by eBPF", "onenet-agent status | grep -E 'edge0 by (tcx|clsact|xdp)'")?;
    } else {
        println!("  this kernel has no BTF: reading by eBPF under the unit is NOT tested here");
    }
    Ok(())
}

/// `systemctl reload`, with what is right and with what is wrong.
pub(super) fn reloads(host: &Host) -> Result<()> {
    for (unit, action, configuration) in [
        ("onenet-agent", "configuration reloaded", "/etc/onenet/agent.toml"),
        ("onenet-collector", "read again", "/etc/onenet/plan.toml"),
    ] {
        host.must(&format!("{unit} reloads"), &format!("systemctl reload {unit}"))?;
        host.within(SOON, "and says so", &format!("journalctl -u {unit} -o cat | grep '{action}'"))?;
        host.must_fail(
            &format!("{unit} refuses what is wrong"),
            &format!(
                "cp {configuration} /root/right && echo 'no = such = line' >>{configuration}\n\
                 systemctl reload {unit}; code=$?; cp /root/right {configuration}; exit $code"
            ),
            "",
        )?;
        host.must(
            "and goes on with what it has",
            &format!("[ \"$(systemctl is-active {unit})\" = active ] && systemctl reload {unit}"),
        )?;
    }
    Ok(())
}

/// A second sensor on the same machine, as root sets it up.
pub(super) fn has_another(host: &Host) -> Result<()> {
    host.must(
        "a second sensor is configured",
        "sed -e 's|boston-1|lowell-2|' -e 's|\"boston\"|\"lowell\"|' \
         -e 's|^#state_dir = .*|state_dir = \"/var/lib/onenet/agent-lowell-2\"|' /etc/onenet/agent.toml \
         >/etc/onenet/agent-lowell-2.toml && onenet-agent check-config --config /etc/onenet/agent-lowell-2.toml",
    )?;
    host.must(
        "and enrols",
        "token=$(onenet-collector token create --sensor lowell-2 --site lowell | head -n 1) \
         && onenet-agent enroll --config /etc/onenet/agent-lowell-2.toml --token \"$token\"",
    )?;
    host.must(
        "it runs beside the first",
        "systemctl start onenet-agent@lowell-2 && systemctl is-active onenet-agent",
    )?;
    host.within(
        SOON,
        "and delivers",
        "onenet-collector sensors --format json | grep -A 12 lowell-2 | grep -E '\"sequence\": *[1-9]'",
    )?;
    host.must(
        "its files are the service's",
        "[ -z \"$(find /var/lib/onenet/agent-lowell-2 ! -user onenet-agent)\" ]",
    )?;
    host.must("it goes", "systemctl stop onenet-agent@lowell-2 && rm /etc/onenet/agent-lowell-2.toml")?;
    Ok(())
}

/// A service that hangs is started anew.
pub(super) fn is_watched(host: &Host) -> Result<()> {
    for unit in ["onenet-agent", "onenet-collector"] {
        host.must(
            &format!("{unit} with a short watchdog"),
            &format!(
                "mkdir -p /run/systemd/system/{unit}.service.d \
                 && printf '[Service]\\nWatchdogSec=5\\n' >/run/systemd/system/{unit}.service.d/watchdog.conf \
                 && systemctl daemon-reload && systemctl restart {unit} && sleep 8 \
                 && [ \"$(systemctl show -p NRestarts --value {unit})\" = 0 ]"
            ),
        )?;
        host.must("it hangs", &format!("kill -STOP $(systemctl show -p MainPID --value {unit})"))?;
        host.within(
            SOON,
            "and is started anew by the watchdog",
            &format!(
                "journalctl -u {unit} -o cat | grep -i watchdog && [ \"$(systemctl show -p NRestarts --value {unit})\" = 1 ] \
                 && [ \"$(systemctl is-active {unit})\" = active ]"
            ),
        )?;
        host.must(
            "the watchdog is as it was",
            &format!("rm -r /run/systemd/system/{unit}.service.d && systemctl daemon-reload && systemctl restart {unit}"),
        )?;
    }
    Ok(())
}

/// What is there now.
pub(super) fn held(host: &Host) -> Result<Held> {
    let keys = host.run(KEPT)?.text;
    let batches = batches(host)?;
    let findings =
        host.run("onenet-collector findings list --format json | grep -o '\"id\": *\"[^\"]*\"' | sort")?.text;
    let epoch = host.run("onenet-agent status | grep -o 'epoch [1-9][0-9]*'")?.text;
    ensure!(
        batches > 0 && !findings.is_empty() && !epoch.is_empty(),
        "nothing to keep: {batches} {findings} {epoch}"
    );
    Ok(Held { keys, batches, findings, epoch })
}

fn batches(host: &Host) -> Result<u64> {
    let ran = host.run("onenet-collector sensors --format json")?;
    let told: serde_json::Value = serde_json::from_str(&ran.text)?;
    Ok(told[0]["sequence"].as_u64().unwrap_or_default())
}

/// An upgrade has kept it, and the new version goes on from there.
pub(super) fn is_kept(host: &Host, before: &Held) -> Result<()> {
    ensure!(host.run(KEPT)?.text == before.keys, "keys or a changed configuration are not what they were");
    println!("  ok: keys and changed configuration are what they were");
    for unit in ["onenet-agent", "onenet-collector"] {
        host.within(
            SOON,
            &format!("{unit} runs again"),
            &format!("[ \"$(systemctl is-active {unit})\" = active ]"),
        )?;
    }
    let epoch = format!("onenet-agent status | grep '{}'", before.epoch.trim());
    host.within(SOON, "the chain goes on in its epoch", &epoch)?;
    let now = held(host)?;
    ensure!(
        now.findings.lines().count() >= before.findings.lines().count(),
        "findings are gone: {}",
        now.findings
    );
    println!("  ok: findings are there");
    let mut now = now.batches;
    for _ in 0..100 {
        if now > before.batches {
            println!("  ok: and the chain grows: {} batches, {now} now", before.batches);
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
        now = batches(host)?;
    }
    anyhow::bail!("no batch has come since: {} then, {now} now", before.batches)
}
