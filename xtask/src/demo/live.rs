//! The demo on wires: both edges as network namespaces, the sensors on their interfaces, and the day's frames sent to
//! them. All of it happens in namespaces of its own, which go with the demo; of the world outside only the page's address
//! is taken, and handed in by a socket in the demo's folder.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::{
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{Stage, captures::SiteTraffic};
use crate::{programs::output, say};

/// Where the sensors find the collector.
pub(super) const CENTRE: &str = "198.18.0.1";
/// Frames a second that each edge gets.
const PACE: &str = "20000";
/// Tells the program within the namespaces where the page's socket is, and the address it has outside.
const INSIDE: &str = "ONENET_DEMO_INSIDE";

/// Made once within the namespaces: places that `ip netns` writes to, and the centre's address.
const PRIVATE: &str = "mount -t tmpfs tmpfs /run && mkdir /run/netns && ip link set lo up";

/// Namespaces of network, mounts and processes: what is started in them ends with the demo, also where that is killed.
const UNSHARE: &[&str] = &["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"];

/// What the program within the namespaces is told by the one outside.
pub(super) struct Inside {
    socket: String,
    /// Address of the page outside.
    pub(super) page: SocketAddr,
}

/// Whether this is the program within the namespaces.
pub(super) fn inside() -> Result<Option<Inside>> {
    let Some(told) = std::env::var_os(INSIDE) else { return Ok(None) };
    let told = told.into_string().ok().context("what the demo was told is no text")?;
    let (page, socket) = told.split_once(' ').context("what the demo was told is not whole")?;
    Ok(Some(Inside { socket: socket.to_owned(), page: page.parse()? }))
}

/// Starts this program again within namespaces of its own, and hands the page in. Gives its exit code.
pub(super) fn enter() -> Result<ExitCode> {
    let probe = Command::new("unshare").args(UNSHARE).args(["sh", "-c", PRIVATE]).output();
    let probe = probe.context("cannot start unshare")?;
    if !probe.status.success() {
        bail!(
            "--live needs root and network namespaces, which this machine does not give: {}",
            String::from_utf8_lossy(&probe.stderr).trim()
        );
    }
    say("both edges in network namespaces of their own, with the sensors on their interfaces");
    let socket = std::env::temp_dir().join(format!("onenet-demo-{}.sock", std::process::id()));
    let page = TcpListener::bind("127.0.0.1:0")?;
    let address = page.local_addr()?;
    let told = format!("{address} {}", socket.display());
    let relayed = socket.clone();
    std::thread::spawn(move || {
        for stream in page.incoming().flatten() {
            if let Ok(inner) = UnixStream::connect(&relayed) {
                std::thread::spawn(move || relay(stream, inner));
            }
        }
    });
    let script = format!("{PRIVATE} && ip addr add {CENTRE}/32 dev lo && exec \"$0\" \"$@\"");
    let status = Command::new("unshare")
        .args(UNSHARE)
        .args(["sh", "-ec", &script])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, told)
        .status()
        .context("cannot start unshare")?;
    let _ = fs::remove_file(&socket);
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

impl Inside {
    /// The demo's folder, named as by the program outside: within, each demo is process 1.
    pub(super) fn folder(&self) -> PathBuf {
        Path::new(&self.socket).with_extension("")
    }

    /// Hands the page of the collector out.
    pub(super) fn serve(&self, web: SocketAddr) -> Result<()> {
        let listener = UnixListener::bind(&self.socket).with_context(|| self.socket.clone())?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Ok(inner) = TcpStream::connect(web) {
                    std::thread::spawn(move || relay(inner, stream));
                }
            }
        });
        Ok(())
    }
}

/// Copies both ways until both have ended.
fn relay(outer: TcpStream, inner: UnixStream) {
    let (Ok(mut from_outer), Ok(mut from_inner)) = (outer.try_clone(), inner.try_clone()) else { return };
    let (mut to_outer, mut to_inner) = (outer, inner);
    let back = std::thread::spawn(move || {
        copy(&mut from_inner, &mut to_outer);
        let _ = to_outer.shutdown(Shutdown::Write);
    });
    copy(&mut from_outer, &mut to_inner);
    let _ = to_inner.shutdown(Shutdown::Write);
    let _ = back.join();
}

fn copy(from: &mut impl Read, to: &mut impl Write) {
    // Whoever reads the page sees that it broke off.
    let _ = io::copy(from, to);
}

/// Makes the namespace of an edge with its interfaces: each is one end of a wire.
pub(super) fn make_edge(traffic: &SiteTraffic, number: usize) -> Result<()> {
    let site = &traffic.site;
    let mut script = format!("ip netns add {site} && ip -n {site} link set lo up\n");
    for source in &traffic.sources {
        let name = source.interface.as_deref().context("an interface without a name")?;
        // Frames that the card would join are as long as they were captured.
        script += &format!(
            "ip link add {name} netns {site} mtu 65535 type veth peer name wire-{name} netns {site} mtu 65535\n\
             ip netns exec {site} sysctl -qw net.ipv6.conf.{name}.disable_ipv6=1 \
             net.ipv6.conf.wire-{name}.disable_ipv6=1\n\
             ip -n {site} link set {name} up && ip -n {site} link set wire-{name} up\n"
        );
    }
    script += &format!(
        "ip link add mgmt-{site} type veth peer name mgmt netns {site}\n\
         ip addr add 198.18.{number}.1/24 dev mgmt-{site} && ip link set mgmt-{site} up\n\
         ip -n {site} addr add 198.18.{number}.2/24 dev mgmt && ip -n {site} link set mgmt up\n\
         ip -n {site} route add {CENTRE} via 198.18.{number}.1\n"
    );
    output(Path::new("/bin/sh"), &["-ec", &script]).map(|_| ())
}

/// Sends what each edge is to see, at both at once; gives how many frames each was sent.
pub(super) fn send(stage: &Stage, sites: &[SiteTraffic]) -> Result<Vec<u64>> {
    say(&format!("the frames of the day are sent to both edges, {PACE} a second"));
    let mut senders = Vec::new();
    for traffic in sites {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &traffic.site]).arg(stage.program("onenet-replay"));
        command.args(["--pace", PACE]);
        for source in &traffic.sources {
            let name = source.interface.as_deref().unwrap_or_default();
            for file in &source.files {
                command.arg(format!("wire-{name}={}", file.display()));
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        senders.push(command.spawn().context("cannot start onenet-replay")?);
    }
    let mut sent = Vec::new();
    for sender in senders {
        let told = sender.wait_with_output()?;
        if !told.status.success() {
            bail!("onenet-replay failed ({})", told.status);
        }
        sent.push(String::from_utf8_lossy(&told.stdout).trim().parse()?);
    }
    Ok(sent)
}
