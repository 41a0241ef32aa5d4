//! What a machine has used so far.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use devices::virtio::DiskHandle;

use super::vcpu_thread::VcpuWatch;
use crate::config::DiskConfig;
use crate::memory::Ram;

/// What a machine has used since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineStats {
    /// vCPUs, by number.
    pub vcpus: Vec<VcpuStats>,
    /// Disks, in the order of the configuration.
    pub disks: Vec<DiskStats>,
    /// Guest RAM.
    pub memory: MemoryStats,
}

/// What a vCPU has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuStats {
    /// Whether the guest has halted it and it waits for an interrupt.
    pub halted: bool,
    /// Host CPU time of its thread, in nanoseconds.
    pub cpu_time_ns: u64,
}

/// What a disk has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// The disk's name.
    pub name: String,
    /// Read requests that are done.
    pub read_requests: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Time spent on read requests, in nanoseconds.
    pub read_ns: u64,
    /// Write requests that are done.
    pub write_requests: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Time spent on write requests, in nanoseconds.
    pub write_ns: u64,
    /// Flush requests that are done.
    pub flush_requests: u64,
    /// Time spent on flush requests, in nanoseconds.
    pub flush_ns: u64,
    /// Requests that the host refused.
    pub errors: u64,
    /// Size that the guest sees, in bytes.
    pub capacity_bytes: u64,
    /// Room that the image takes on the host, in bytes.
    pub allocated_bytes: u64,
}

/// Guest RAM and how much of it the host holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Size in bytes.
    pub len_bytes: u64,
    /// How much of it is in the host's RAM, in bytes; of more RAM than 128 MiB this is an estimate from samples.
    pub resident_bytes: u64,
}

/// What the figures of a running machine come from.
pub(super) struct Sources {
    pub(super) vcpus: Vec<VcpuWatch>,
    pub(super) disks: Vec<(DiskHandle, DiskConfig)>,
    pub(super) ram: Ram,
}

fn disk_stats(disk: &DiskHandle) -> DiskStats {
    let counts = disk.counters().read();
    DiskStats {
        name: disk.name().to_owned(),
        read_requests: counts.read_requests,
        read_bytes: counts.read_bytes,
        read_ns: counts.read_ns,
        write_requests: counts.write_requests,
        write_bytes: counts.write_bytes,
        write_ns: counts.write_ns,
        flush_requests: counts.flush_requests,
        flush_ns: counts.flush_ns,
        errors: counts.errors,
        capacity_bytes: disk.capacity_bytes(),
        allocated_bytes: disk.allocated_bytes(),
    }
}

impl Sources {
    fn stats(&self) -> MachineStats {
        MachineStats {
            vcpus: self.vcpus.iter().map(VcpuWatch::stats).collect(),
            disks: self
                .disks
                .iter()
                .map(|(disk, _)| disk_stats(disk))
                .collect(),
            memory: MemoryStats {
                len_bytes: self.ram.len_bytes(),
                resident_bytes: self.ram.resident_bytes(),
            },
        }
    }

    fn first_run(&self) -> Option<Instant> {
        self.vcpus.first().and_then(VcpuWatch::first_run)
    }
}

enum State {
    Running(Sources),
    /// The last figures; what they came from is given back.
    Ended(MachineStats, Option<Instant>),
}

/// Gives a machine's figures to whoever asks, without the machine's owner.
pub(super) struct Meter(Mutex<State>);

impl Meter {
    pub(super) fn new(sources: Sources) -> Self {
        Self(Mutex::new(State::Running(sources)))
    }

    pub(super) fn stats(&self) -> MachineStats {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Running(sources) => sources.stats(),
            State::Ended(stats, _) => stats.clone(),
        }
    }

    pub(super) fn first_run(&self) -> Option<Instant> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Running(sources) => sources.first_run(),
            State::Ended(_, first_run) => *first_run,
        }
    }

    /// Finds a disk by its name; the outer `None` says that the machine has ended.
    pub(super) fn disk(&self, name: &str) -> Option<Option<(DiskHandle, DiskConfig)>> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Running(sources) => {
                let mut disks = sources.disks.iter();
                Some(disks.find(|(disk, _)| disk.name() == name).cloned())
            }
            State::Ended(..) => None,
        }
    }

    /// Keeps the last figures and gives back what they came from.
    pub(super) fn end(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Running(sources) = &*state {
            *state = State::Ended(sources.stats(), sources.first_run());
        }
    }
}
