//! Virtio devices behind the PCI transport (virtio 1.3 §2, §4.1), modern interface only.
//!
//! A device has three parts. [`VirtioPci`] is the transport: configuration space, registers and the
//! device status. A [`VirtioDevice`] says what the device is and holds its configuration space.
//! [`QueueWorker`]s serve the virtqueues, each on a thread of its own that lives while the driver
//! has the device running:
//!
//! ```text
//!            DRIVER_OK, bus master, not paused
//!   idle  ---------------------------------------->  running (thread NAME-q0)
//!         <----------------------------------------
//!            reset, queue reset, pause, FAILED
//! ```
//!
//! A worker that stops hands itself and its rings back by ending its thread, after the request in
//! hand: there is never a request in flight while a device is paused, and nothing to drain or save
//! besides the ring positions.
//!
//! Rings and descriptor chains are hostile. A chain that loops, leaves guest memory or breaks its
//! specification sets `DEVICE_NEEDS_RESET` (§2.1) and the device does nothing until it is reset.

pub mod blk;
mod chain;
pub mod console;
mod disk;
mod event;
mod fuzz;
mod pci;
mod registers;
mod ring;
pub mod rng;
pub mod scsi;
mod signal;
mod spec;
mod thread;
mod worker;

#[cfg(test)]
mod driver;

pub use blk::{Blk, BlkOptions};
pub use chain::{Chain, Segments};
pub use console::{Console, ConsoleError, ConsoleHandle, OnPort, PortOptions};
pub use disk::{
    DiskAction, DiskChangeError, DiskCounters, DiskCounts, DiskEvent, DiskHandle, ErrorPolicy,
    OnDiskError,
};
pub use fuzz::fuzz_drive;
pub(crate) use fuzz::scsi_host;
pub use pci::{NOTIFY_BAR, VirtioPci, VirtioPciError, VirtioPciOptions};
pub use ring::{Ring, RingError, Rings, Served};
pub use rng::Rng;
pub use scsi::{Scsi, ScsiDiskOptions, ScsiError, ScsiKind, ScsiOptions};
pub use signal::ConfigChange;
pub use thread::IoThread;
pub use worker::{QueueWorker, Turn, WorkerPlan};

/// The kind of a virtio device (virtio 1.3 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceType(pub u16);

impl DeviceType {
    /// Block device (§5.2).
    pub const BLOCK: Self = Self(2);
    /// Console (§5.3).
    pub const CONSOLE: Self = Self(3);
    /// Entropy source (§5.4).
    pub const ENTROPY: Self = Self(4);
    /// SCSI host (§5.6).
    pub const SCSI: Self = Self(8);
}

/// The device half: what a device is, without rings and registers.
///
/// Called with the transport's lock held: the methods must not block or call the transport.
pub trait VirtioDevice: Send + Sync {
    /// Returns the kind of device.
    fn device_type(&self) -> DeviceType;

    /// Returns the PCI class code, as class, subclass and programming interface.
    fn class(&self) -> [u8; 3];

    /// Returns the feature bits that the device offers, without those of the transport (§6).
    fn features(&self) -> u64;

    /// Returns the largest size of each virtqueue, a power of two.
    fn queue_sizes(&self) -> Vec<u16>;

    /// Hands over the workers. The transport calls this once; together they have every queue once.
    fn take_workers(&self) -> Vec<WorkerPlan>;

    /// Reads the device configuration space (§2.5); bytes past its end read as zero.
    fn config_read(&self, offset: u64, data: &mut [u8]);

    /// Writes the device configuration space (§2.5).
    fn config_write(&self, _offset: u64, _data: &[u8]) {}

    /// Takes the handle by which the device reports changes of its configuration space.
    fn set_config_change(&self, _change: ConfigChange) {}

    /// Returns what the device holds outside its workers to its state after power-on.
    fn reset(&self) {}
}

/// Copies the part of `config` that lies at `offset`, with zeroes past the end.
pub(crate) fn read_config(config: &[u8], offset: u64, data: &mut [u8]) {
    for (at, byte) in (offset..).zip(data) {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        *byte = config.get(at).copied().unwrap_or(0);
    }
}
