//! Programs to measure the meter beside, and the wrapper that makes many flows of one frame. For benchmarks only.

use std::os::fd::AsFd;

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, ProgramArray},
    programs::{ProgramFd, SchedClassifier},
};

use crate::{error::EbpfError, hooks::Hook, load, meter::Meter, sys};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../program/bench.bpf.o");

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A program that does nothing: the cost of a test run itself.
    Empty,
    /// Headers of IPv4 and TCP, and one update of a hash map that the CPUs share, by atomics.
    Shared,
    /// The same with a map that has a value per CPU.
    PerCpu,
    /// The same with a lock in each entry.
    Locked,
    /// A meter with a lock in each entry, one map for both versions of IP, and a record's fields: netobserv's design.
    LockedRecord,
}

impl Subject {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Empty, Self::Shared, Self::PerCpu, Self::Locked, Self::LockedRecord];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Shared => "bare update, shared map with atomics",
            Self::PerCpu => "bare update, map per CPU",
            Self::Locked => "bare update, lock per entry",
            Self::LockedRecord => "spin-lock meter, keys of both IP versions",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Empty => "bench_empty",
            Self::Shared => "bench_shared",
            Self::PerCpu => "bench_per_cpu",
            Self::Locked => "bench_locked",
            Self::LockedRecord => "bench_locked_record",
        }
    }
}

/// The loaded programs.
pub struct Bench {
    ebpf: Ebpf,
    target: ProgramArray<MapData>,
}

impl Bench {
    /// Loads them; `flows` source addresses, rounded up to a power of two.
    pub fn load(flows: u32) -> Result<Self, EbpfError> {
        let mask = flows.clamp(1, 1 << 23).next_power_of_two().saturating_sub(1);
        let loaded = EbpfLoader::new().override_global("FLOWS_MASK", &mask, true).load(OBJECT);
        let mut ebpf = loaded.map_err(|error| load::program_error(&error))?;
        for name in ["bench_rotate"].into_iter().chain(Subject::ALL.map(Subject::program)) {
            program(&mut ebpf, name)?.load().map_err(|error| load::program_error(&error))?;
        }
        let target = load::map(&mut ebpf, "TARGET")?.try_into().map_err(|_| EbpfError::Object("TARGET"))?;
        Ok(Self { ebpf, target })
    }

    /// ns of one run of a subject on one frame.
    pub fn one(&mut self, subject: Subject, frame: &[u8], repeat: u32) -> Result<u32, EbpfError> {
        run(program(&mut self.ebpf, subject.program())?, frame, repeat)
    }

    /// ns of one run of a subject on a frame whose source address changes at random, with the change.
    pub fn many(&mut self, subject: Subject, frame: &[u8], repeat: u32) -> Result<u32, EbpfError> {
        let fd = clone(program(&mut self.ebpf, subject.program())?)?;
        self.rotate(&fd, frame, repeat)
    }

    /// The same with a meter's program.
    pub fn many_of(
        &mut self,
        meter: &mut Meter,
        hook: Hook,
        frame: &[u8],
        repeat: u32,
    ) -> Result<u32, EbpfError> {
        let fd = clone(program(meter.object(), hook.program())?)?;
        self.rotate(&fd, frame, repeat)
    }

    fn rotate(&mut self, to: &ProgramFd, frame: &[u8], repeat: u32) -> Result<u32, EbpfError> {
        let set = self.target.set(0, to, 0);
        set.map_err(|error| kernel(std::io::Error::other(error)))?;
        run(program(&mut self.ebpf, "bench_rotate")?, frame, repeat)
    }
}

fn kernel(error: std::io::Error) -> EbpfError {
    EbpfError::Kernel { what: "a benchmark's run", error }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, EbpfError> {
    let found = ebpf.program_mut(name).and_then(|program| program.try_into().ok());
    found.ok_or(EbpfError::Object(name))
}

fn clone(program: &SchedClassifier) -> Result<ProgramFd, EbpfError> {
    let fd = program.fd().map_err(|error| load::program_error(&error))?;
    fd.try_clone().map_err(kernel)
}

fn run(program: &SchedClassifier, frame: &[u8], repeat: u32) -> Result<u32, EbpfError> {
    let fd = program.fd().map_err(|error| load::program_error(&error))?;
    sys::test_run(fd.as_fd(), frame, None, repeat).map(|(_, duration)| duration).map_err(kernel)
}
