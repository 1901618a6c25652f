//! A disk in memory that fails as disks do: on a stated call, by filling up, and by losing power, when what was not
//! synced is lost or torn in any combination.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::disk::{CommitPoint, Filesystem, Lock, ReadFile, WriteFile};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Any change is answered with EIO.
    Io,
    /// Any change is answered with ENOSPC.
    Full,
    /// A write puts down the first half.
    ShortWrite,
    /// An fsync fails, and what it was for is lost.
    Sync,
    /// As before, and the segment cannot be put aside either.
    Rename,
    Unlink,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] =
        [Self::Io, Self::Full, Self::ShortWrite, Self::Sync, Self::Rename, Self::Unlink];

    fn concerns(self, call: Call) -> bool {
        match self {
            Self::Io | Self::Full => true,
            Self::ShortWrite => call == Call::Write,
            Self::Sync => call == Call::Sync,
            Self::Rename => matches!(call, Call::Sync | Call::Rename),
            Self::Unlink => call == Call::Unlink,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Create,
    Write,
    Sync,
    Truncate,
    Rename,
    Unlink,
    SyncDirectory,
}

/// Which calls fail: of those that the fault concerns, number `first` (from 1) and the `count - 1` after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) fault: Fault,
    pub(crate) first: u64,
    pub(crate) count: u64,
}

/// A change of a file that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Change>,
    allocated: u64,
}

/// A change of a directory that is not durable yet.
#[derive(Clone, Debug)]
enum Entry {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced: Vec<Entry>,
    directories: BTreeSet<PathBuf>,
    /// Bytes that fit; none for no limit.
    capacity: Option<u64>,
    plan: Option<Plan>,
    calls: u64,
    failed: Vec<Fault>,
    /// Kill at the n-th time (from 1) that this point is reached; the seed decides what is lost.
    kill: Option<(CommitPoint, u64, u64)>,
    image: Option<MemoryDisk>,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryDisk(Arc<Mutex<World>>);

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, data) => {
            let start = usize::try_from(*offset).unwrap();
            if bytes.len() < start + data.len() {
                bytes.resize(start + data.len(), 0);
            }
            bytes[start..start + data.len()].copy_from_slice(data);
        }
        Change::Truncate(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
    }
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl World {
    /// Counts a call; fails it where the plan or a kill says so.
    fn pass(&mut self, call: Call) -> Result<(), Fault> {
        if self.image.is_some() {
            return Err(Fault::Io);
        }
        let Some(Plan { fault, first, count }) = self.plan else { return Ok(()) };
        if !fault.concerns(call) {
            return Ok(());
        }
        self.calls += 1;
        if self.calls < first || self.calls - first >= count {
            return Ok(());
        }
        self.failed.push(fault);
        Err(fault)
    }

    fn used(&self) -> u64 {
        let bytes = |&inode: &usize| {
            let inode = &self.inodes[inode];
            inode.allocated.max(inode.current.len() as u64)
        };
        self.names.values().map(bytes).sum()
    }

    fn check_room(&self, inode: usize, length: u64) -> io::Result<()> {
        let inode = &self.inodes[inode];
        let more = length.saturating_sub(inode.allocated.max(inode.current.len() as u64));
        match self.capacity {
            Some(capacity) if more > 0 && self.used() + more > capacity => {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            _ => Ok(()),
        }
    }

    /// What a disk may hold after the power went.
    fn after_power_cut(&self, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut names = self.durable_names.clone();
        for entry in &self.unsynced {
            if random.bool() {
                enter(&mut names, entry);
            }
        }
        let inodes = self.inodes.iter().map(|inode| {
            let mut bytes = inode.durable.clone();
            for change in &inode.unsynced {
                match (change, random.u8(0..4)) {
                    (_, 0) => {}
                    (Change::Write(offset, data), 1) => {
                        let torn = data[..random.usize(0..=data.len())].to_vec();
                        apply(&mut bytes, &Change::Write(*offset, torn));
                    }
                    (change, _) => apply(&mut bytes, change),
                }
            }
            Inode { durable: bytes.clone(), current: bytes, unsynced: Vec::new(), allocated: inode.allocated }
        });
        Self {
            inodes: inodes.collect(),
            durable_names: names.clone(),
            names,
            directories: self.directories.clone(),
            capacity: self.capacity,
            ..Self::default()
        }
    }
}

fn enter(names: &mut BTreeMap<PathBuf, usize>, entry: &Entry) {
    match entry {
        Entry::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        Entry::Unlink(path) => {
            names.remove(path);
        }
        Entry::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

fn error_of(fault: Fault) -> io::Error {
    match fault {
        Fault::Full | Fault::ShortWrite => io::Error::from(io::ErrorKind::StorageFull),
        _ => io::Error::other("input/output error"),
    }
}

impl MemoryDisk {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Has calls fail from now on.
    pub(crate) fn plan(&self, plan: Option<Plan>) {
        let mut world = self.world();
        world.plan = plan;
        world.calls = 0;
        world.failed.clear();
    }

    /// What failed under the plan.
    pub(crate) fn failed(&self) -> Vec<Fault> {
        self.world().failed.clone()
    }

    /// Kills at the `times`-th time that this point is reached.
    pub(crate) fn kill_at(&self, point: CommitPoint, times: u64, seed: u64) {
        self.world().kill = Some((point, times, seed));
    }

    /// What the disk holds after the kill, where it has come to it.
    pub(crate) fn killed(&self) -> Option<Self> {
        self.world().image.clone()
    }

    /// What the disk may hold if the power goes now.
    pub(crate) fn power_cut(&self, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(self.world().after_power_cut(seed))))
    }

    /// Sets the size of the disk.
    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.world().capacity = bytes;
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.world().used()
    }

    /// The files whose name ends so, in order.
    pub(crate) fn files(&self, suffix: &str) -> Vec<PathBuf> {
        let world = self.world();
        world.names.keys().filter(|path| path.to_str().unwrap().ends_with(suffix)).cloned().collect()
    }

    /// Changes the content of a file behind everybody's back.
    pub(crate) fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.world();
        let inode = world.names[path];
        change(&mut world.inodes[inode].current);
        world.inodes[inode].durable = world.inodes[inode].current.clone();
        world.inodes[inode].unsynced.clear();
    }

    /// A disk with the same content.
    pub(crate) fn copy(&self) -> Self {
        let world = self.world();
        Self(Arc::new(Mutex::new(World {
            inodes: world.inodes.clone(),
            names: world.names.clone(),
            durable_names: world.names.clone(),
            directories: world.directories.clone(),
            capacity: world.capacity,
            ..World::default()
        })))
    }

    fn file(&self, inode: usize) -> File {
        File { disk: self.clone(), inode }
    }
}

struct File {
    disk: MemoryDisk,
    inode: usize,
}

impl ReadFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = self.disk.world();
        let bytes = &world.inodes[self.inode].current;
        let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl WriteFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let passed = world.pass(Call::Write);
        let part = match passed {
            Ok(()) => bytes,
            Err(Fault::Io) => &bytes[..0],
            Err(_) => &bytes[..bytes.len() / 2],
        };
        world.check_room(self.inode, offset + part.len() as u64)?;
        if !part.is_empty() {
            let change = Change::Write(offset, part.to_vec());
            let inode = &mut world.inodes[self.inode];
            apply(&mut inode.current, &change);
            inode.unsynced.push(change);
        }
        passed.map_err(error_of)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut world = self.disk.world();
        let passed = world.pass(Call::Sync);
        let inode = &mut world.inodes[self.inode];
        inode.unsynced.clear();
        if let Err(fault) = passed {
            // What is read still looks as if it were there; only the disk does not have it.
            return Err(error_of(fault));
        }
        inode.durable = inode.current.clone();
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.pass(Call::Truncate).map_err(error_of)?;
        let inode = &mut world.inodes[self.inode];
        apply(&mut inode.current, &Change::Truncate(length));
        inode.allocated = inode.allocated.min(length);
        inode.unsynced.push(Change::Truncate(length));
        Ok(())
    }

    fn allocate(&mut self, length: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.pass(Call::Write).map_err(error_of)?;
        world.check_room(self.inode, length)?;
        world.inodes[self.inode].allocated = length;
        Ok(())
    }
}

impl Filesystem for MemoryDisk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.world().directories.insert(path.to_owned());
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        if !world.directories.contains(path) {
            return Err(not_found());
        }
        let names = world.names.keys().filter(|name| name.parent() == Some(path));
        Ok(names.map(|name| name.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        let world = self.world();
        let inode = *world.names.get(path).ok_or_else(not_found)?;
        let inode = &world.inodes[inode];
        Ok(inode.allocated.max(inode.current.len() as u64))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let inode = *self.world().names.get(path).ok_or_else(not_found)?;
        Ok(Box::new(self.file(inode)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let mut world = self.world();
        world.pass(Call::Create).map_err(error_of)?;
        if world.names.contains_key(path) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let inode = world.inodes.len();
        world.inodes.push(Inode::default());
        world.names.insert(path.to_owned(), inode);
        world.unsynced.push(Entry::Link(path.to_owned(), inode));
        drop(world);
        Ok(Box::new(self.file(inode)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let known = self.world().names.get(path).copied();
        match known {
            Some(inode) => Ok(Box::new(self.file(inode))),
            None => self.create(path),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.pass(Call::Rename).map_err(error_of)?;
        let entry = Entry::Rename(from.to_owned(), to.to_owned());
        enter(&mut world.names, &entry);
        world.unsynced.push(entry);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.pass(Call::Unlink).map_err(error_of)?;
        world.names.remove(path).ok_or_else(not_found)?;
        world.unsynced.push(Entry::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.pass(Call::SyncDirectory).map_err(error_of)?;
        world.durable_names = world.names.clone();
        world.unsynced.clear();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        drop(self.open(path)?);
        Ok(Some(Box::new(())))
    }

    fn reached(&self, point: CommitPoint) {
        let mut world = self.world();
        if let Some((at, times, seed)) = world.kill
            && at == point
            && world.image.is_none()
        {
            world.kill = Some((at, times - 1, seed));
            if times == 1 {
                world.image = Some(Self(Arc::new(Mutex::new(world.after_power_cut(seed)))));
            }
        }
    }
}
