//! The SCSI host device (virtio 1.3 §5.6) with disks and CD-ROM drives behind it.
//!
//! Each disk is logical unit 0 of a target of its own. Commands are done one after the other on
//! the thread of the queue that they came in by: when a task management request is answered there
//! is no task left that it could meet. A pass-through of the host's own SCSI devices does not
//! exist; what is asked to be one is a disk.

mod bus;
mod control;
mod disc;
mod inquiry;
mod mode;
mod request;
mod sense;
mod spec;
mod transfer;
mod unit;
mod worker;

use std::fmt;
use std::sync::Arc;

use block::Disk;

use self::bus::Bus;
use self::control::ControlWorker;
use self::spec::{F_CHANGE, F_HOTPLUG, MAX_TARGETS, event};
use self::unit::{Identity, Notice, Unit};
use self::worker::ScsiWorker;
use super::disk::{DiskHandle, Drive, ErrorPolicy, OnDiskError};
use super::thread::IoThread;
use super::{DeviceType, VirtioDevice, WorkerPlan, read_config};
use crate::lock::Lock;

/// Queues before the request queues: control and event.
const FIRST_REQUEST_QUEUE: u16 = 2;
const CONTROL_QUEUE_SIZE: u16 = 64;
/// Enough for 64 requests of 2 segments with header and answer, or 256 with indirect tables.
const DEFAULT_QUEUE_SIZE: u16 = 256;
/// Most request queues: one for each of the machine's vCPUs.
const MAX_QUEUES: u16 = 64;

/// What a guest takes a SCSI disk for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScsiKind {
    /// A disk (SBC).
    #[default]
    Disk,
    /// A CD-ROM drive (MMC): read-only, 2048-byte blocks, a medium that can be taken out.
    Cdrom,
}

/// Learns the name of a drive whose medium the guest ejected, on the worker's thread.
///
/// It must not block or call the device.
pub type OnEject = Arc<dyn Fn(&str) + Send + Sync>;

/// How a SCSI disk is set up.
#[derive(Clone)]
pub struct ScsiDiskOptions {
    /// The disk's name in events.
    pub name: String,
    /// What the guest takes it for.
    pub kind: ScsiKind,
    /// The unit serial number, of which a guest sees the first 36 bytes.
    pub serial: String,
    /// The size of a logical block in bytes, a power of two from 512 up; the disk's by default. A
    /// CD-ROM has 2048.
    pub logical_block_bytes: Option<u32>,
    /// The size of a physical block in bytes, the logical size times a power of two and the
    /// logical size by default.
    pub physical_block_bytes: Option<u32>,
    /// Whether the guest may unmap, and its zeroes may give room back to the host.
    pub discard: bool,
    /// What becomes of a request that the host refused.
    pub policy: ErrorPolicy,
    /// Learns of refused requests.
    pub on_error: OnDiskError,
    /// Learns of ejected media.
    pub on_eject: OnEject,
}

impl ScsiDiskOptions {
    /// Makes options without a serial number, and with errors that only the guest learns of.
    pub fn new(name: &str, kind: ScsiKind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            serial: String::new(),
            logical_block_bytes: None,
            physical_block_bytes: None,
            discard: true,
            policy: ErrorPolicy::Report,
            on_error: Arc::new(|_| {}),
            on_eject: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for ScsiDiskOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScsiDiskOptions")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// How a SCSI host is set up.
#[derive(Clone)]
pub struct ScsiOptions {
    /// The number of request queues, 1 to 64; a number outside is moved inside.
    pub queues: u16,
    /// The largest size of a request queue, a power of two from 4 up.
    pub queue_size: u16,
    /// The thread that serves the request queues together with other devices; one for each queue
    /// by default.
    pub thread: Option<Arc<IoThread>>,
}

impl Default for ScsiOptions {
    fn default() -> Self {
        Self {
            queues: 1,
            queue_size: DEFAULT_QUEUE_SIZE,
            thread: None,
        }
    }
}

impl fmt::Debug for ScsiOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScsiOptions")
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

/// Why a SCSI host or disk cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ScsiError {
    /// The host gives no event counters.
    #[error("build the SCSI host: create an event")]
    Event(#[source] std::io::Error),
    /// The target number is too high or taken.
    #[error("plug {name} in: target {target} is taken or above 63")]
    Target {
        /// The disk's name.
        name: String,
        /// The target's number.
        target: u8,
    },
    /// A disk needs a medium.
    #[error("plug {name} in: a disk without medium is none")]
    NoMedium {
        /// The disk's name.
        name: String,
    },
    /// There is nothing to be unplugged.
    #[error("unplug target {target}: nothing is there")]
    Absent {
        /// The target's number.
        target: u8,
    },
}

/// A SCSI host.
pub struct Scsi {
    bus: Arc<Bus>,
    queues: u16,
    queue_size: u16,
    plans: Lock<Vec<WorkerPlan>>,
}

impl Scsi {
    /// Makes a SCSI host without disks.
    ///
    /// # Errors
    /// If the host gives no event counters.
    pub fn new(options: &ScsiOptions) -> Result<Self, ScsiError> {
        let bus = Arc::new(Bus::new().map_err(ScsiError::Event)?);
        let queues = options.queues.clamp(1, MAX_QUEUES);
        let control = WorkerPlan {
            suffix: "control".to_owned(),
            queues: vec![0, 1],
            worker: Box::new(ControlWorker::new(Arc::clone(&bus))),
            thread: None,
        };
        let plan = |queue: u16| WorkerPlan {
            suffix: format!("q{queue}"),
            queues: vec![FIRST_REQUEST_QUEUE + queue],
            worker: Box::new(ScsiWorker::new(Arc::clone(&bus))),
            thread: options.thread.clone(),
        };
        let plans = std::iter::once(control).chain((0..queues).map(plan));
        Ok(Self {
            queues,
            queue_size: options.queue_size.clamp(4, 1024),
            plans: Lock::new(plans.collect()),
            bus,
        })
    }

    /// Connects a disk, also while the guest runs, and tells the guest. `medium` may be missing in
    /// a CD-ROM drive only.
    ///
    /// # Errors
    /// If the target is above 63 or taken, or a disk has no medium.
    pub fn plug(
        &self,
        target: u8,
        medium: Option<Arc<dyn Disk>>,
        options: &ScsiDiskOptions,
    ) -> Result<DiskHandle, ScsiError> {
        let name = || options.name.clone();
        if medium.is_none() && options.kind == ScsiKind::Disk {
            return Err(ScsiError::NoMedium { name: name() });
        }
        let identity = Identity::new(options, medium.as_deref());
        let drive = Arc::new(Drive::new(
            name(),
            options.policy,
            Arc::clone(&options.on_error),
            medium,
        ));
        let on_eject = Arc::clone(&options.on_eject);
        let unit = Arc::new(Unit::new(target, identity, Arc::clone(&drive), on_eject));
        if usize::from(target) >= MAX_TARGETS || !self.bus.add(&unit) {
            return Err(ScsiError::Target {
                name: name(),
                target,
            });
        }
        self.bus
            .report(event::TRANSPORT_RESET, target, event::RESCAN);
        let notice = Notice::new(unit, Arc::clone(&self.bus));
        Ok(DiskHandle::new(drive, Arc::new(notice)))
    }

    /// Takes a disk away and tells the guest. A request in hand is still finished.
    ///
    /// # Errors
    /// If there is no such target.
    pub fn unplug(&self, target: u8) -> Result<(), ScsiError> {
        if !self.bus.remove(target) {
            return Err(ScsiError::Absent { target });
        }
        self.bus
            .report(event::TRANSPORT_RESET, target, event::REMOVED);
        Ok(())
    }

    /// Lays out `struct virtio_scsi_config` (§5.6.4).
    fn config_space(&self) -> [u8; 36] {
        let mut config = [0; 36];
        let (sense_bytes, cdb_bytes) = self.bus.sizes();
        let mut put = |at: usize, value: &[u8]| config[at..at + value.len()].copy_from_slice(value);
        put(0, &u32::from(self.queues).to_le_bytes());
        // Header and answer take a descriptor each.
        put(4, &u32::from(self.queue_size - 2).to_le_bytes());
        put(8, &(spec::MAX_TRANSFER_BYTES / 512).to_le_bytes());
        put(12, &u32::from(self.queue_size / 2).to_le_bytes());
        put(16, &spec::EVENT_BYTES.to_le_bytes());
        put(20, &sense_bytes.to_le_bytes());
        put(24, &cdb_bytes.to_le_bytes());
        // max_channel and max_lun are zero.
        put(30, &spec::MAX_TARGET.to_le_bytes());
        config
    }
}

impl VirtioDevice for Scsi {
    fn device_type(&self) -> DeviceType {
        DeviceType::SCSI
    }

    fn class(&self) -> [u8; 3] {
        [0x01, 0x00, 0x00]
    }

    fn features(&self) -> u64 {
        F_HOTPLUG | F_CHANGE
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let requests = std::iter::repeat_n(self.queue_size, usize::from(self.queues));
        [CONTROL_QUEUE_SIZE; 2]
            .into_iter()
            .chain(requests)
            .collect()
    }

    fn take_workers(&self) -> Vec<WorkerPlan> {
        std::mem::take(&mut *self.plans.get())
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        read_config(&self.config_space(), offset, data);
    }

    fn config_write(&self, offset: u64, data: &[u8]) {
        let mut config = self.config_space();
        for (at, byte) in (offset..).zip(data) {
            let slot = usize::try_from(at).ok().and_then(|at| config.get_mut(at));
            if let Some(slot) = slot {
                *slot = *byte;
            }
        }
        let word = |at: usize| {
            let bytes = config[at..].first_chunk().expect("the sizes are inside");
            u32::from_le_bytes(*bytes)
        };
        self.bus.set_sizes(word(20), word(24));
    }

    fn reset(&self) {
        self.bus.reset();
    }
}

#[cfg(test)]
mod tests;
