//! Systems on which something is wrong: an installation fails with one clear line and leaves them as they were, or works
//! with less and says so.

use anyhow::Result;

use super::{
    Shelf,
    host::{self, Host, Manager},
    story,
};

/// What is wrong: what to say of it, how it comes to be, how it goes, and what an installation must say.
const WRONG: [(&str, &str, &str, &str); 3] = [
    (
        "without /etc/passwd",
        "mv /etc/passwd /root/passwd",
        "mv /root/passwd /etc/passwd",
        "/etc/passwd is missing",
    ),
    (
        "with a read-only /etc",
        "mount --bind /etc /etc && mount -o remount,bind,ro /etc",
        "umount /etc",
        "/etc is read-only",
    ),
    (
        "with a full /var",
        "cp -a /var /run/kept && mount -t tmpfs -o size=256m full /var && cp -a /run/kept/. /var/ && rm -r /run/kept \
         && ! dd if=/dev/zero of=/var/tmp/full bs=64k 2>/dev/null",
        "umount /var",
        "No space left on device",
    ),
];

/// The .deb packages.
pub(super) fn deb(shelf: &Shelf) -> Result<()> {
    let host = Host::boot(Manager::Plain, &shelf.folder)?;
    for (what, make, mend, saying) in WRONG {
        let before = host.snapshot()?;
        host.must(&format!("a system {what}"), make)?;
        for package in ["onenet-agent", "onenet-collector"] {
            host.must_fail(
                &format!("{package} is refused"),
                &format!("dpkg -i /srv/now/{package}_*.deb"),
                saying,
            )?;
        }
        host.must("mended", mend)?;
        host::unchanged("nothing has changed", &before, &host.snapshot()?)?;
        host.must("and dpkg is sound", "[ -z \"$(dpkg --audit)\" ] && ! dpkg-query -W -f '${db:Status-Status} ${Package}\\n' | grep onenet | grep -v ^not-installed")?;
        host.must(
            "now they are installed, and purged",
            "dpkg -i /srv/now/*.deb && dpkg -P onenet-agent onenet-collector",
        )?;
        host::unchanged("a purge leaves nothing", &before, &host.snapshot()?)?;
    }
    drop(host);
    let host = Host::boot(Manager::Systemd, &shelf.folder)?;
    host.must(
        "a kernel that shows no BTF",
        "mount -t tmpfs none /sys/kernel/btf && ! ls /sys/kernel/btf/* 2>/dev/null",
    )?;
    host.must("both packages are installed", "dpkg -i /srv/now/*.deb")?;
    story::set_up(&host)?;
    story::finds(&host)
}
