//! The .rpm packages, in a root of their own.

use anyhow::Result;

use super::{
    LATER,
    host::{self, Host, Manager},
    shelf::Shelf,
    story,
};

/// Debian's rpm warns that packages are not Debian's; it is the tool under test.
const RPM: &str = "rpm --force-debian";

/// A clean machine, from installation to removal.
pub(super) fn story(shelf: &Shelf) -> Result<()> {
    let host = Host::boot(Manager::Systemd, &shelf.folder)?;
    host.must(
        "libpcap is where Red Hat has it",
        "ln -s libpcap.so.0.8 /usr/lib/x86_64-linux-gnu/libpcap.so.1",
    )?;
    host.must_fail(
        "without what they need they are refused",
        &format!("{RPM} -i /srv/now/*.rpm"),
        "libpcap.so.1()(64bit) is needed by",
    )?;
    host.must("what Enterprise Linux 9 has is there", &format!("{RPM} -i /srv/system/base.rpm"))?;
    let before = host.snapshot()?;
    host.must("both packages are installed", &format!("{RPM} -i /srv/now/*.rpm"))?;
    host.must("what is there is what they hold", &format!("{RPM} -V onenet-agent onenet-collector"))?;
    story::waits_enabled(&host)?;
    story::set_up(&host)?;
    story::finds(&host)?;
    story::reads_by_ebpf(&host)?;

    let held = story::held(&host)?;
    host.must("an upgrade", &format!("{RPM} -U /srv/later/*.rpm"))?;
    host.must("is of the version after", &format!("{RPM} -q onenet-agent | grep {LATER}"))?;
    host.must("the new default lies beside", "test -f /etc/onenet/agent.toml.rpmnew")?;
    story::is_kept(&host, &held)?;

    for package in ["onenet-agent", "onenet-collector"] {
        for (how, saying) in [
            ("-U", "which is newer than"),
            ("-U --oldpackage", "may not read what the installed 99.1.0-1 has written"),
        ] {
            host.must_fail(
                &format!("a downgrade of {package} by rpm {how} is refused, with a reason"),
                &format!("{RPM} {how} /srv/now/{package}-[0-9]*.rpm"),
                saying,
            )?;
            host.must(
                "and the later version goes on",
                &format!(
                    "[ \"$({RPM} -q {package} | grep -c .)\" = 1 ] && {RPM} -q {package} | grep {LATER} \
                     && [ \"$(systemctl is-active {package})\" = active ]"
                ),
            )?;
        }
    }
    host.must(
        "who insists goes back",
        &format!("ONENET_ALLOW_DOWNGRADE=1 {RPM} -U --oldpackage /srv/now/*.rpm"),
    )?;
    story::is_kept(&host, &held)?;

    host.must("a removal", &format!("{RPM} -e onenet-agent onenet-collector"))?;
    host.must(
        "keeps keys, spool, database, and the users; rpm has no purge",
        "ls /var/lib/onenet/agent/keys/enrolment.json /var/lib/onenet/collector/data/control.db && getent passwd onenet-agent",
    )?;
    host.must(
        "what docs/packaging.md says takes the rest",
        "rm -r /var/lib/onenet /etc/onenet && userdel onenet-agent && userdel onenet-collector",
    )?;
    host.must("the link goes", "ip netns del inside; rm -f /root/token /root/right")?;
    host::unchanged("that leaves nothing", &before, &host.snapshot()?)
}
