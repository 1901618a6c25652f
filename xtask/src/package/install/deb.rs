//! The .deb packages.

use anyhow::Result;

use super::{
    LATER,
    host::{self, Host, Manager},
    shelf::Shelf,
    story,
};

const INSTALL: &str = "dpkg -i /srv/now/*.deb";

/// A clean machine, from installation to purge.
pub(super) fn story(shelf: &Shelf) -> Result<()> {
    let host = Host::boot(Manager::Systemd, &shelf.folder)?;
    host.must("it has no network", "rm -f /etc/apt/sources.list")?;
    let before = host.snapshot()?;
    host.must(
        "apt is told of the repository",
        "install -D -m 644 /srv/repository/onenet.asc /etc/apt/keyrings/onenet.asc \
         && install -m 644 /srv/repository/onenet.sources /etc/apt/sources.list.d/onenet.sources && apt-get update",
    )?;
    let told =
        host.must("both packages are installed", "apt-get install -y onenet-agent onenet-collector")?;
    for next in ["onenet-agent enroll", "onenet-collector init"] {
        anyhow::ensure!(told.contains(next), "the installation does not say what is next: {told}");
    }
    story::waits_enabled(&host)?;
    story::set_up(&host)?;
    story::finds(&host)?;
    story::reads_by_ebpf(&host)?;
    story::reloads(&host)?;
    story::has_another(&host)?;
    story::is_watched(&host)?;

    let held = story::held(&host)?;
    shelf.serve("later")?;
    host.must("an upgrade", "apt-get update && apt-get upgrade -y -o Dpkg::Options::=--force-confold")?;
    host.must(
        "is of the version after",
        &format!("dpkg-query -W -f '${{Version}}\\n' onenet-agent | grep {LATER}"),
    )?;
    host.must("the new default lies beside", "test -f /etc/onenet/agent.toml.dpkg-dist")?;
    story::is_kept(&host, &held)?;

    for package in ["onenet-agent", "onenet-collector"] {
        host.must_fail(
            &format!("a downgrade of {package} is refused, with a reason"),
            &format!("dpkg -i /srv/now/{package}_*.deb"),
            "may not read what the installed 99.1.0-1 has written",
        )?;
        host.must(
            "and the later version goes on",
            &format!(
                "[ \"$(dpkg-query -W -f '${{Status}} ${{Version}}' {package})\" = 'install ok installed {LATER}-1' ] \
                 && [ \"$(systemctl is-active {package})\" = active ]"
            ),
        )?;
    }
    host.must("who insists goes back", "ONENET_ALLOW_DOWNGRADE=1 dpkg -i --force-confold /srv/now/*.deb")?;
    story::is_kept(&host, &held)?;
    host.must("what the operator disables", "systemctl disable onenet-agent")?;
    host.must(
        "stays disabled through an upgrade",
        "dpkg -i --force-confold /srv/later/*.deb && [ \"$(systemctl is-enabled onenet-agent)\" = disabled ]",
    )?;

    host.must("a removal", "dpkg -r onenet-agent onenet-collector")?;
    host.must(
        "takes the programs",
        "! ls /usr/bin/onenet-* 2>/dev/null && ! grep ^onenet- /proc/[0-9]*/comm",
    )?;
    host.must(
        "keeps configuration, keys, spool and database",
        "ls /etc/onenet/agent.toml /etc/onenet/plan.toml /var/lib/onenet/agent/keys/enrolment.json /var/lib/onenet/agent/spool \
         /var/lib/onenet/collector/data/control.db /var/lib/onenet/collector/ca.key",
    )?;
    host.must_fail(
        "an older version is refused what is left, too",
        "dpkg -i /srv/now/onenet-agent_*.deb",
        "may not read",
    )?;
    host.must("a purge", "apt-get purge -y onenet-agent onenet-collector")?;
    host.must(
        "what the operator made goes",
        "rm -r /etc/apt/keyrings/onenet.asc /etc/apt/sources.list.d/onenet.sources /root/token /root/right && ip netns del inside",
    )?;
    host::unchanged("a purge leaves nothing", &before, &host.snapshot()?)
}

/// As an image is made: without a running systemd, and then purged.
pub(super) fn chroot(shelf: &Shelf) -> Result<()> {
    let host = Host::boot(Manager::Plain, &shelf.folder)?;
    let before = host.snapshot()?;
    host.must("both packages are installed", INSTALL)?;
    host.must(
        "they are enabled for the first boot",
        "ls /etc/systemd/system/multi-user.target.wants/onenet-agent.service \
         /etc/systemd/system/multi-user.target.wants/onenet-collector.service",
    )?;
    host.must("they are installed once more", INSTALL)?;
    host.must(
        "one is purged, and the other stays whole",
        "dpkg -P onenet-agent && onenet-collector plan check /etc/onenet/plan.toml",
    )?;
    host.must("and so is the other", "dpkg -P onenet-collector")?;
    host::unchanged("a purge leaves nothing", &before, &host.snapshot()?)
}
