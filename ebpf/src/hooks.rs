//! The hooks of an interface: attaching to them, and proof that each runs.

use std::os::fd::{AsFd, BorrowedFd};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        tc::{self, NlOptions, TcAttachOptions},
    },
};

use crate::{error::EbpfError, load, options::HookChoice, probe::Version, sys};

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Traffic control, received packets.
    Ingress,
    /// Traffic control, sent packets.
    Egress,
    /// XDP, received packets.
    Xdp,
}

impl Hook {
    /// Name of its program.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Ingress => "onenet_ingress",
            Self::Egress => "onenet_egress",
            Self::Xdp => "onenet_xdp",
        }
    }

    const fn traffic(self) -> TcAttachType {
        match self {
            Self::Egress => TcAttachType::Egress,
            Self::Ingress | Self::Xdp => TcAttachType::Ingress,
        }
    }
}

/// How a program hangs on its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// On none.
    Loose,
    Tcx,
    Clsact,
    XdpDriver,
    XdpGeneric,
}

/// A hook and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookState {
    /// Which.
    pub hook: Hook,
    /// Its name: `tcx ingress`, `clsact egress`, `xdp (driver)`, …
    pub name: &'static str,
    /// Whether the kernel lists the program on the hook now; none where it cannot be asked (clsact, XDP).
    pub attached: Option<bool>,
    /// Packets that its program has seen.
    pub packets: u64,
}

pub(crate) const fn name(hook: Hook, way: Way) -> &'static str {
    match (hook, way) {
        (Hook::Ingress, Way::Tcx) => "tcx ingress",
        (Hook::Egress, Way::Tcx) => "tcx egress",
        (Hook::Ingress, Way::Clsact) => "clsact ingress",
        (Hook::Egress, Way::Clsact) => "clsact egress",
        (_, Way::XdpDriver) => "xdp (driver)",
        (_, Way::XdpGeneric) => "xdp (generic)",
        (Hook::Ingress, _) => "ingress, not attached",
        (Hook::Egress, _) => "egress, not attached",
        (Hook::Xdp, Way::Loose | Way::Tcx | Way::Clsact) => "xdp, not attached",
    }
}

/// The hooks of a choice.
pub(crate) const fn of(choice: HookChoice) -> &'static [Hook] {
    match choice {
        HookChoice::Xdp => &[Hook::Xdp],
        HookChoice::Auto | HookChoice::Tcx | HookChoice::Clsact => &[Hook::Ingress, Hook::Egress],
    }
}

/// Has the kernel check and load the program of a hook.
pub(crate) fn load(ebpf: &mut Ebpf, hook: Hook) -> Result<(), EbpfError> {
    let loaded = match program_mut(ebpf, hook)? {
        Program::SchedClassifier(program) => program.load(),
        Program::Xdp(program) => program.load(),
        _ => return Err(EbpfError::Object(hook.program())),
    };
    loaded.map_err(|error| load::program_error(&error))
}

fn program_mut(ebpf: &mut Ebpf, hook: Hook) -> Result<&mut Program, EbpfError> {
    ebpf.program_mut(hook.program()).ok_or(EbpfError::Object(hook.program()))
}

/// The loaded program of a hook.
pub(crate) fn fd(ebpf: &Ebpf, hook: Hook) -> Result<BorrowedFd<'_>, EbpfError> {
    let fd = match ebpf.program(hook.program()) {
        Some(Program::SchedClassifier(program)) => program.fd(),
        Some(Program::Xdp(program)) => program.fd(),
        _ => return Err(EbpfError::Object(hook.program())),
    };
    fd.map(AsFd::as_fd).map_err(|error| load::program_error(&error))
}

/// Whether the program of this meter is on the hook of an interface; none where the kernel cannot be asked.
pub(crate) fn is_attached(ebpf: &Ebpf, interface: &str, hook: Hook) -> Option<bool> {
    let own = ebpf.program(hook.program())?.info().ok()?.id();
    let there = sys::tcx_programs(interface, hook == Hook::Ingress).ok()?;
    Some(there.contains(&own))
}

/// Whether a program of this name is on the hook of an interface; none where the kernel has no TCX, or does not tell
/// names because the process lacks CAP_SYS_ADMIN.
pub(crate) fn is_listed(interface: &str, hook: Hook) -> Option<bool> {
    let (_, programs) = SchedClassifier::query_tcx(interface, hook.traffic()).ok()?;
    Some(programs.iter().any(|program| program.name_as_str() == Some(hook.program())))
}

/// Attaches to all hooks of a choice.
pub(crate) fn attach(
    ebpf: &mut Ebpf,
    interface: &str,
    choice: HookChoice,
    version: Version,
) -> Result<Vec<(Hook, Way)>, EbpfError> {
    let hooks = of(choice);
    if hooks.iter().any(|&hook| hook != Hook::Xdp && is_listed(interface, hook) == Some(true)) {
        return Err(EbpfError::AlreadyAttached { interface: interface.into() });
    }
    let has_tcx = version >= Version(6, 6);
    if choice == HookChoice::Tcx && !has_tcx {
        let version = format!("{}.{}", version.0, version.1);
        return Err(EbpfError::OldKernel {
            version,
            lacks: "TCX",
            least: "6.6 (hook = \"clsact\" needs less)",
        });
    }
    let is_tcx = has_tcx && choice != HookChoice::Clsact;
    hooks
        .iter()
        .map(|&hook| {
            let way = match program_mut(ebpf, hook)? {
                Program::SchedClassifier(program) if is_tcx => tcx(program, interface, hook),
                Program::SchedClassifier(program) => clsact(program, interface, hook),
                Program::Xdp(program) => xdp(program, interface),
                _ => return Err(EbpfError::Object(hook.program())),
            };
            way.map(|way| (hook, way)).map_err(|error| refused(hook, interface, &error))
        })
        .collect()
}

fn refused(hook: Hook, interface: &str, error: &ProgramError) -> EbpfError {
    let name = match hook {
        Hook::Ingress => "ingress",
        Hook::Egress => "egress",
        Hook::Xdp => "XDP",
    };
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    EbpfError::Attach { hook: name, interface: interface.into(), error: text }
}

fn tcx(program: &mut SchedClassifier, interface: &str, hook: Hook) -> Result<Way, ProgramError> {
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    program.attach_with_options(interface, hook.traffic(), order).map(|_| Way::Tcx)
}

/// Filters of the netlink kind stay when their process is killed: those of our name are taken off first.
fn clsact(program: &mut SchedClassifier, interface: &str, hook: Hook) -> Result<Way, ProgramError> {
    // It may be there already, as somebody else's; whether it is shows when attaching.
    let _ = tc::qdisc_add_clsact(interface);
    let _ = tc::qdisc_detach_program(interface, hook.traffic(), hook.program());
    let options = TcAttachOptions::Netlink(NlOptions::default());
    program.attach_with_options(interface, hook.traffic(), options).map(|_| Way::Clsact)
}

fn xdp(program: &mut Xdp, interface: &str) -> Result<Way, ProgramError> {
    match program.attach(interface, XdpMode::Driver) {
        Ok(_) => Ok(Way::XdpDriver),
        Err(_) => program.attach(interface, XdpMode::Skb).map(|_| Way::XdpGeneric),
    }
}
