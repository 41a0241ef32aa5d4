//! Changes of folders (`inotify(7)`).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::super::checkpoint;
use super::{Change, Kind};

/// Most folders below one: a machine has at most a few dozen USB buses.
const BELOW_MAX: usize = 256;
/// Most tries to watch the nearest ancestor of a folder while folders appear.
const TRIES_MAX: usize = 8;
/// Most reads in one go, so that a flood of changes leaves time for other things.
const READS_MAX: usize = 64;

/// Watches folders.
#[derive(Debug)]
pub(super) struct Folders {
    inotify: AsyncFd<Descriptor>,
    targets: Vec<(PathBuf, Kind)>,
    watched: BTreeMap<WatchDescriptor, Watch>,
    is_blind: bool,
}

#[derive(Debug)]
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Why a folder is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Watch {
    /// What its changes mean.
    kinds: BTreeSet<Kind>,
    /// Names that are to appear in it.
    awaited: BTreeSet<OsString>,
}

/// What is told of a folder: entries that come and go, and its own end.
fn mask() -> AddWatchFlags {
    AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR
}

impl Folders {
    /// Begins with no folder.
    #[expect(
        deprecated,
        reason = "the new constructor is unsafe for descriptors that may be closed by others; this one is owned"
    )]
    pub(super) fn open() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        Ok(Self {
            inotify: AsyncFd::with_interest(Descriptor(inotify), Interest::READABLE)?,
            targets: Vec::new(),
            watched: BTreeMap::new(),
            is_blind: false,
        })
    }

    /// Whether some folder could not be watched.
    pub(super) fn is_blind(&self) -> bool {
        self.is_blind
    }

    /// Watches these folders and no others. Says what may have changed before, and which cannot be watched. Takes a few
    /// system calls for each folder, none of which waits for a device.
    pub(super) fn watch(&mut self, targets: Vec<(PathBuf, Kind)>) -> (Change, Option<String>) {
        self.targets = targets;
        self.arm()
    }

    fn arm(&mut self) -> (Change, Option<String>) {
        let mut wanted: BTreeMap<WatchDescriptor, Watch> = BTreeMap::new();
        let mut fault = None;
        for (path, kind) in self.paths() {
            match self.nearest(&path) {
                Ok((watch, None)) => {
                    wanted.entry(watch).or_default().kinds.insert(kind);
                }
                Ok((watch, Some(name))) => {
                    wanted.entry(watch).or_default().awaited.insert(name);
                }
                Err(error) => {
                    let cure = cure(error);
                    fault = Some(format!("{}: {error}; {cure}", path.display()));
                }
            }
        }
        self.forget_all_but(&wanted);
        let unseen = unseen(&self.watched, &wanted);
        self.watched = wanted;
        self.is_blind = fault.is_some();
        (unseen, fault)
    }

    /// The folders to be watched, with those below where that is asked for.
    fn paths(&self) -> Vec<(PathBuf, Kind)> {
        let mut paths = self.targets.clone();
        for (path, kind) in &self.targets {
            if *kind == Kind::DevicesBelow {
                let below = fs::read_dir(path).into_iter().flatten().flatten();
                let below = below.filter(|one| one.file_type().is_ok_and(|kind| kind.is_dir()));
                let below = below.take(BELOW_MAX);
                paths.extend(below.map(|one| (one.path(), Kind::Devices)));
            }
        }
        paths
    }

    /// Watches a folder, or its nearest ancestor that exists; then also says which entry of that is to appear.
    fn nearest(&self, path: &Path) -> Result<(WatchDescriptor, Option<OsString>), Errno> {
        let inotify = &self.inotify.get_ref().0;
        let mut last = Errno::ENOENT;
        for _ in 0..TRIES_MAX {
            let mut awaited: Option<&OsStr> = None;
            for at in path.ancestors() {
                match inotify.add_watch(at, mask()) {
                    Ok(watch) => {
                        // It may have appeared before its parent was watched.
                        if awaited.is_none_or(|name| !at.join(name).is_dir()) {
                            return Ok((watch, awaited.map(OsStr::to_owned)));
                        }
                        break;
                    }
                    Err(Errno::ENOENT | Errno::ENOTDIR) => awaited = at.file_name(),
                    Err(error) => return Err(error),
                }
            }
            last = Errno::EAGAIN;
        }
        Err(last)
    }

    fn forget_all_but(&self, wanted: &BTreeMap<WatchDescriptor, Watch>) {
        let inotify = &self.inotify.get_ref().0;
        let watched = self.watched.keys();
        for watch in watched.filter(|watch| !wanted.contains_key(*watch)) {
            // The kernel has forgotten the watch of a folder that is gone.
            inotify.rm_watch(*watch).ok();
        }
    }

    /// Waits for changes.
    pub(super) async fn next(&mut self) -> io::Result<Change> {
        let mut change = Change::default();
        let mut is_moved = false;
        let mut ready = self.inotify.readable().await?;
        for _ in 0..READS_MAX {
            match ready.get_inner().0.read_events() {
                Ok(events) => {
                    for event in events {
                        let (meaning, is_folder) = meaning(&self.watched, &event);
                        change = change.and(meaning);
                        is_moved |= is_folder;
                    }
                }
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    break;
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        drop(ready);
        if is_moved {
            let (unseen, fault) = self.arm();
            change = change.and(unseen);
            if let Some(fault) = fault {
                tracing::warn!(reason = fault, "a folder cannot be watched");
            }
        }
        Ok(change)
    }
}

/// What to do where a folder cannot be watched.
fn cure(error: Errno) -> &'static str {
    match error {
        Errno::ENOSPC => "fs.inotify.max_user_watches is used up; looks every second instead",
        Errno::EACCES => "the node agent must be allowed to read it; looks every second instead",
        _ => "looks every second instead",
    }
}

/// What may have changed in folders before they were watched.
fn unseen(
    before: &BTreeMap<WatchDescriptor, Watch>,
    now: &BTreeMap<WatchDescriptor, Watch>,
) -> Change {
    let kinds = now.iter().flat_map(|(descriptor, watch)| {
        let known = before.get(descriptor);
        let is_new = move |kind: &&Kind| known.is_none_or(|known| !known.kinds.contains(*kind));
        watch.kinds.iter().filter(is_new)
    });
    kinds.fold(Change::default(), |change, kind| change.and(whole(*kind)))
}

/// What all changes of a folder together mean.
fn whole(kind: Kind) -> Change {
    match kind {
        Kind::Devices | Kind::DevicesBelow => Change {
            devices: true,
            ..Change::default()
        },
        Kind::Plugins => Change {
            sockets: true,
            holders: true,
            ..Change::default()
        },
        Kind::Pods => Change {
            holders: true,
            ..Change::default()
        },
    }
}

/// What an event means, and whether the folders that are to be watched may be others now.
fn meaning(watched: &BTreeMap<WatchDescriptor, Watch>, event: &InotifyEvent) -> (Change, bool) {
    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
        return (Change::ALL, true);
    }
    let Some(watch) = watched.get(&event.wd) else {
        return (Change::default(), false);
    };
    let kinds = watch.kinds.iter();
    let Some(name) = &event.name else {
        let change = kinds.fold(Change::default(), |change, kind| change.and(whole(*kind)));
        return (change, true);
    };
    let change = kinds.fold(Change::default(), |change, kind| {
        change.and(entry(*kind, name))
    });
    let is_below = watch.kinds.contains(&Kind::DevicesBelow);
    let is_new_bus = is_below && event.mask.contains(AddWatchFlags::IN_ISDIR);
    if watch.awaited.contains(name) {
        return (Change::ALL, true);
    }
    (change, is_new_bus)
}

/// What it means that an entry of a folder came or went. The kubelet notes who has a device before it makes the pod's folder,
/// so that a pod counts from then on; and until that folder is gone.
fn entry(kind: Kind, name: &OsStr) -> Change {
    if kind != Kind::Plugins {
        return whole(kind);
    }
    Change {
        sockets: Path::new(name).extension() == Some(OsStr::new("sock")),
        holders: name == checkpoint::FILE_NAME,
        devices: false,
    }
}

#[cfg(test)]
mod tests;
