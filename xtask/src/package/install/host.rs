//! A system of its own to install packages in: a tree of Debian's, booted in namespaces that end with it. What it writes
//! is in memory, and it sees no network but what it makes.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{say, target, tool};

/// The release that packages are installed on, and what it needs beside its smallest set.
const RELEASE: &str = "bookworm";
const INCLUDED: &str = "systemd,iproute2,libpcap0.8,rpm";

/// Units that would change the kernel which the system shares with this machine.
const MASKED: [&str; 3] =
    ["systemd-sysctl.service", "systemd-modules-load.service", "systemd-remount-fs.service"];

/// What a system has to itself; it ends with the command that makes it.
const NAMESPACES: [&str; 8] =
    ["--pid", "--fork", "--kill-child", "--mount", "--net", "--uts", "--ipc", "--cgroup"];

/// How long a system may take to come up.
const BOOT: Duration = Duration::from_secs(60);

/// Runs what its first process is to be.
#[derive(Clone, Copy)]
pub(super) enum Manager {
    Systemd,
    /// None, as in a chroot.
    Plain,
}

/// The tree of files that every system begins as; made once.
pub(super) fn base() -> Result<PathBuf> {
    let folder = target().join("package-test");
    // The name says what is in it: with another set another tree is made.
    let place = folder.join(format!("{RELEASE}-{}", INCLUDED.replace(',', "-")));
    if place.exists() {
        return Ok(place);
    }
    say(&format!("debootstrap {RELEASE} (the system that packages are installed in)"));
    let partial = super::super::layout::fresh(folder.join("partial"))?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", &format!("--include={INCLUDED}"), RELEASE]).arg(&partial);
    if let Ok(mirror) = std::env::var("DEBIAN_MIRROR") {
        debootstrap.arg(mirror);
    }
    let output = debootstrap.output().context("cannot run debootstrap")?;
    if !output.status.success() {
        bail!("debootstrap failed:\n{}", tail(&String::from_utf8_lossy(&output.stdout)));
    }
    let units = partial.join("etc/systemd/system");
    for unit in MASKED {
        std::os::unix::fs::symlink("/dev/null", units.join(unit))?;
    }
    fs::rename(&partial, &place)?;
    Ok(place)
}

/// Why this machine does not let a system of its own be made; nothing where it does.
pub(in crate::package) fn refusal() -> Result<Option<String>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(Some("this is not run by root".to_owned()));
    }
    let probe = "mount --make-rprivate / && mount -t tmpfs probe /mnt && mkdir /mnt/a /mnt/b /mnt/c \
                 && mount -t overlay -o lowerdir=/mnt/a,upperdir=/mnt/b,workdir=/mnt/c probe /mnt/a \
                 && mount -t cgroup2 cgroup2 /mnt/b && mount -t bpf bpf /mnt/b";
    let mut unshare = Command::new("unshare");
    unshare.args(NAMESPACES).args(["sh", "-c", probe]).stdin(Stdio::null());
    tool::refusal(&mut unshare)
}

/// A running system. It ends when dropped.
pub(super) struct Host {
    unshare: Child,
    first: u32,
    work: PathBuf,
}

/// What a command in it came to.
pub(super) struct Ran {
    pub(super) success: bool,
    /// Standard output and error, as they came.
    pub(super) text: String,
}

impl Host {
    /// Boots one, in which the folder `shared` is /srv.
    pub(super) fn boot(manager: Manager, shared: &Path) -> Result<Self> {
        let base = base()?;
        let script = crate::workspace().join("packaging/tests/boot.sh");
        let work = std::env::temp_dir().join(format!("onenet-install-{}", std::process::id()));
        super::super::layout::fresh(work.clone())?;
        let unshare = Command::new("unshare")
            .args(NAMESPACES)
            .arg("sh")
            .arg(script)
            .args([&base, &work, &shared.canonicalize()?])
            .arg(match manager {
                Manager::Systemd => "systemd",
                Manager::Plain => "plain",
            })
            .stdin(Stdio::null())
            .spawn()
            .context("cannot run unshare")?;
        let mut host = Self { unshare, first: 0, work };
        host.first = host.first_process()?;
        let up = match manager {
            Manager::Systemd => "systemctl is-system-running --wait",
            Manager::Plain => "[ \"$(cat /proc/1/comm)\" = sleep ] && echo running",
        };
        host.within(BOOT, "the system comes up", &format!("{up} 2>/dev/null | grep -E 'running|degraded'"))?;
        Ok(host)
    }

    /// The process that is the first one inside.
    fn first_process(&mut self) -> Result<u32> {
        let unshare = self.unshare.id();
        let children = format!("/proc/{unshare}/task/{unshare}/children");
        let end = Instant::now() + BOOT;
        while Instant::now() < end {
            if let Some(status) = self.unshare.try_wait()? {
                bail!("the system ended as it came up ({status})");
            }
            let found = fs::read_to_string(&children).unwrap_or_default();
            if let Some(first) = found.split_whitespace().next() {
                return Ok(first.parse()?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the system did not come up")
    }

    /// Runs lines of the shell inside, as root.
    pub(super) fn run(&self, lines: &str) -> Result<Ran> {
        let output = Command::new("nsenter")
            .args(["--target", &self.first.to_string(), "--all", "--", "env", "-i", "--chdir=/"])
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"])
            .args([
                "HOME=/root",
                "timeout",
                "120",
                "bash",
                "-o",
                "pipefail",
                "-c",
                &format!("exec 2>&1\n{lines}"),
            ])
            .stdin(Stdio::null())
            .output()
            .context("cannot run nsenter")?;
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok(Ran { success: output.status.success(), text })
    }

    /// The same, which must succeed; gives what it printed.
    pub(super) fn must(&self, what: &str, lines: &str) -> Result<String> {
        let ran = self.run(lines)?;
        ensure!(ran.success, "{what}: failed\n  $ {lines}\n{}{}", ran.text, self.journal());
        println!("  ok: {what}");
        Ok(ran.text)
    }

    /// The same, which must fail, and say this.
    pub(super) fn must_fail(&self, what: &str, lines: &str, saying: &str) -> Result<()> {
        let ran = self.run(lines)?;
        ensure!(!ran.success, "{what}: it succeeded\n  $ {lines}\n{}", ran.text);
        ensure!(ran.text.contains(saying), "{what}: it did not say {saying:?}\n  $ {lines}\n{}", ran.text);
        println!("  ok: {what}");
        Ok(())
    }

    /// Waits until the lines succeed; gives what they then printed.
    pub(super) fn within(&self, time: Duration, what: &str, lines: &str) -> Result<String> {
        let end = Instant::now() + time;
        loop {
            let ran = self.run(lines)?;
            if ran.success {
                println!("  ok: {what}");
                return Ok(ran.text);
            }
            ensure!(
                Instant::now() < end,
                "{what}: not within {} s\n  $ {lines}\n{}{}",
                time.as_secs(),
                ran.text,
                self.journal()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Everything a package could leave behind: each path with its kind, permissions and owner, users, groups, what is
    /// enabled, and what is pinned in the kernel.
    pub(super) fn snapshot(&self) -> Result<Vec<String>> {
        // Not what package managers and the log keep, nor the copies of the account files that useradd makes.
        let ran = self.run(
            "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /srv \
             -o -path /var/log -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/rpm \
             -o -path /root/.rpmdb -o -path '/etc/*shadow-' -o -path /etc/passwd- -o -path /etc/group- -o -path /etc/.pwd.lock \\) -prune \
             -o -printf '%p %y %m %u %g %l\\n' | sort\n\
             sort /etc/passwd /etc/group\nfind /sys/fs/bpf\nfind /run/systemd -name '*onenet*'\nls /run | grep onenet || :",
        )?;
        ensure!(ran.success, "the system cannot be looked at:\n{}", ran.text);
        Ok(ran.text.lines().map(str::to_owned).collect())
    }

    /// What the services said last.
    fn journal(&self) -> String {
        let ran = self.run("journalctl --no-pager -n 60 -o cat -u 'onenet-*' 2>/dev/null");
        ran.map(|ran| format!("the services said:\n{}", ran.text)).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its first process ends with it, and everything else with that one.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let _ = fs::remove_dir_all(&self.work);
    }
}

/// Fails unless both are the same, with what is more or less.
pub(super) fn unchanged(what: &str, before: &[String], after: &[String]) -> Result<()> {
    let mut differences = String::new();
    for (mark, these, those) in [('-', before, after), ('+', after, before)] {
        let known: std::collections::HashSet<&String> = those.iter().collect();
        for line in these.iter().filter(|line| !known.contains(line)) {
            writeln!(differences, "  {mark} {line}")?;
        }
    }
    ensure!(differences.is_empty(), "{what}: the system is not as it was\n{differences}");
    println!("  ok: {what}");
    Ok(())
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(20)).map(|line| format!("{line}\n")).collect()
}
