//! Systems on which something is wrong: an installation fails with one clear line and leaves them as they were, or works
//! with less and says so.

use anyhow::Result;

use super::{
    host::{self, Host, Manager},
    shelf::Shelf,
    story,
};

/// What is wrong: what to say of it, how it comes to be, how it goes, and what an installation by dpkg and one by rpm must
/// say.
const WRONG: [(&str, &str, &str, [&str; 2]); 3] = [
    (
        "without /etc/passwd",
        "mv /etc/passwd /root/passwd",
        "mv /root/passwd /etc/passwd",
        ["/etc/passwd is missing"; 2],
    ),
    (
        "with a read-only /etc",
        "mount --bind /etc /etc && mount -o remount,bind,ro /etc",
        "umount /etc",
        // rpm counts the room of each file system beforehand, and a read-only one has none.
        ["/etc is read-only", "more space on the / filesystem"],
    ),
    (
        "with a full /var",
        "cp -a /var /run/kept && mount -t tmpfs -o size=256m full /var && cp -a /run/kept/. /var/ && rm -r /run/kept \
         && ! dd if=/dev/zero of=/var/tmp/full bs=64k 2>/dev/null",
        "umount /var",
        ["No space left on device", "No space left on device"],
    ),
];

/// How packages are put in and taken out whole, and how it is told that none is there.
struct Commands {
    install: &'static str,
    /// The file of a package.
    file: fn(&str) -> String,
    none: &'static str,
    purge: &'static str,
}

const DEB: Commands = Commands {
    install: "dpkg -i",
    file: |package| format!("/srv/now/{package}_*.deb"),
    none: "[ -z \"$(dpkg --audit)\" ] && ! dpkg-query -W -f '${db:Status-Status} ${Package}\\n' | grep onenet \
           | grep -v ^not-installed",
    purge: "dpkg -P onenet-agent onenet-collector",
};

const RPM: Commands = Commands {
    install: "rpm --force-debian -i --nodeps",
    file: |package| format!("/srv/now/{package}-[0-9]*.rpm"),
    none: "! rpm -qa | grep onenet",
    // As docs/packaging.md says.
    purge: "rpm --force-debian -e onenet-agent onenet-collector && rm -rf /var/lib/onenet /etc/onenet \
            && userdel onenet-agent && userdel onenet-collector",
};

/// Both kinds of packages.
pub(super) fn packages(shelf: &Shelf) -> Result<()> {
    for (index, commands) in [DEB, RPM].iter().enumerate() {
        wrong(&Host::boot(Manager::Plain, &shelf.folder)?, commands, index)?;
    }
    let host = Host::boot(Manager::Systemd, &shelf.folder)?;
    host.must(
        "a kernel that shows no BTF",
        "mount -t tmpfs none /sys/kernel/btf && ! ls /sys/kernel/btf/* 2>/dev/null",
    )?;
    host.must("both packages are installed", "dpkg -i /srv/now/*.deb")?;
    story::set_up(&host)?;
    story::finds(&host)?;
    host.must(
        "it says what it reads by, and why",
        "onenet-agent status | grep 'by libpcap, because .*/sys/kernel/btf'",
    )?;
    Ok(())
}

fn wrong(host: &Host, commands: &Commands, index: usize) -> Result<()> {
    let Commands { install, file, none, purge } = commands;
    for (what, make, mend, saying) in WRONG {
        let before = host.snapshot()?;
        host.must(&format!("a system {what}"), make)?;
        let saying = saying.get(index).copied().unwrap_or_default();
        for package in ["onenet-agent", "onenet-collector"] {
            let package_file = file(package);
            host.must_fail(
                &format!("{install} refuses {package}"),
                &format!("{install} {package_file}"),
                saying,
            )?;
        }
        host.must("mended", mend)?;
        host::unchanged("nothing has changed", &before, &host.snapshot()?)?;
        host.must("and the package manager knows of nothing", none)?;
        let both = ["onenet-agent", "onenet-collector"].map(file).join(" ");
        host.must("now they are installed, and purged", &format!("{install} {both} && {purge}"))?;
        host::unchanged("a purge leaves nothing", &before, &host.snapshot()?)?;
    }
    Ok(())
}
