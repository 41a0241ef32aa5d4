//! The block device (virtio 1.3 §5.2).

mod request;
mod worker;

use std::fmt;
use std::sync::Arc;

use block::Disk;

use self::worker::BlkWorker;
pub use super::disk::{DiskAction, DiskEvent, ErrorPolicy, OnDiskError};
use super::disk::{DiskHandle, Drive, TellGuest};
use super::thread::IoThread;
use super::{ConfigChange, DeviceType, VirtioDevice, WorkerPlan, read_config};
use crate::lock::Lock;

const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
const F_TOPOLOGY: u64 = 1 << 10;
const F_MQ: u64 = 1 << 12;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

/// Enough for 64 requests of 2 segments with header and status, or 256 with indirect tables.
const DEFAULT_QUEUE_SIZE: u16 = 256;
/// Bounds the work of one discard or write zeroes segment: 1 GiB.
const MAX_RANGE_SECTORS: u32 = 1 << 21;
/// Bounds the segments of one discard request.
const MAX_DISCARD_SEGMENTS: u32 = 32;
/// Bounds the segments of one write zeroes request: where the host cannot unmap, it writes them.
const MAX_WRITE_ZEROES_SEGMENTS: u32 = 1;
/// Most queues: one for each of the machine's vCPUs.
const MAX_QUEUES: u16 = 64;

/// How a block device is set up.
#[derive(Clone)]
pub struct BlkOptions {
    /// The device's name in events.
    pub name: String,
    /// The serial number, of which a guest sees the first 20 bytes.
    pub serial: String,
    /// The number of queues, 1 to 64; a number outside is moved inside.
    pub queues: u16,
    /// The largest size of a queue, a power of two from 4 up.
    pub queue_size: u16,
    /// The size of a logical block in bytes, a power of two from 512 up; the disk's by default.
    pub logical_block_bytes: Option<u32>,
    /// The size of a physical block in bytes, the logical size times a power of two and the
    /// logical size by default.
    pub physical_block_bytes: Option<u32>,
    /// Whether the guest may discard, and its zeroes may give room back to the host.
    pub discard: bool,
    /// The thread that serves the queues together with other devices; one for each queue by default.
    pub thread: Option<Arc<IoThread>>,
    /// What becomes of a request that the host refused.
    pub policy: ErrorPolicy,
    /// Learns of refused requests.
    pub on_error: OnDiskError,
}

impl BlkOptions {
    /// Makes options with one queue, no serial number, and errors that only the guest learns of.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            serial: String::new(),
            queues: 1,
            queue_size: DEFAULT_QUEUE_SIZE,
            logical_block_bytes: None,
            physical_block_bytes: None,
            discard: true,
            thread: None,
            policy: ErrorPolicy::Report,
            on_error: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for BlkOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlkOptions")
            .field("name", &self.name)
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

/// What the guest is told about the disk besides its size.
#[derive(Clone, Copy, Debug)]
struct Shape {
    logical_block_bytes: u32,
    /// Logical blocks in a physical one, as a power of two.
    physical_exponent: u8,
    queues: u16,
    queue_size: u16,
    discards: bool,
}

impl Shape {
    fn new(disk: &dyn Disk, options: &BlkOptions) -> Self {
        let is_good = |bytes: &u32| bytes.is_power_of_two() && *bytes >= 512;
        let asked = options.logical_block_bytes.filter(is_good);
        let logical = asked.unwrap_or(disk.logical_block_bytes().max(512));
        let physical = options.physical_block_bytes.filter(is_good);
        let ratio = physical.map_or(1, |physical| physical / logical).max(1);
        Self {
            logical_block_bytes: logical,
            physical_exponent: u8::try_from(ratio.ilog2()).unwrap_or(0),
            queues: options.queues.clamp(1, MAX_QUEUES),
            queue_size: options.queue_size.clamp(4, 1024),
            discards: options.discard && !disk.is_read_only(),
        }
    }

    /// Lays out `struct virtio_blk_config` (§5.2.4).
    fn config_space(&self, len_bytes: u64) -> [u8; 60] {
        let mut config = [0; 60];
        let block_sectors = self.logical_block_bytes / 512;
        let blocks = len_bytes / u64::from(self.logical_block_bytes);
        let mut put = |at: usize, value: &[u8]| config[at..at + value.len()].copy_from_slice(value);
        put(0, &(blocks * u64::from(block_sectors)).to_le_bytes());
        // Header and status take a descriptor each.
        put(12, &u32::from(self.queue_size - 2).to_le_bytes());
        put(20, &self.logical_block_bytes.to_le_bytes());
        put(24, &[self.physical_exponent]);
        // The least good transfer is one block.
        put(26, &1u16.to_le_bytes());
        put(34, &self.queues.to_le_bytes());
        put(36, &MAX_RANGE_SECTORS.to_le_bytes());
        put(40, &MAX_DISCARD_SEGMENTS.to_le_bytes());
        put(44, &block_sectors.to_le_bytes());
        put(48, &MAX_RANGE_SECTORS.to_le_bytes());
        put(52, &MAX_WRITE_ZEROES_SEGMENTS.to_le_bytes());
        put(56, &[self.discards.into()]);
        config
    }
}

/// Tells the driver by the interrupt for configuration changes.
#[derive(Default)]
struct ConfigNotice(Lock<Option<ConfigChange>>);

impl TellGuest for ConfigNotice {
    fn resized(&self) {
        let change = self.0.get().clone();
        if let Some(change) = change {
            change.report();
        }
    }

    fn is_removable(&self) -> bool {
        false
    }

    fn medium_changed(&self) {}
}

/// A block device over a disk.
pub struct Blk {
    features: u64,
    shape: Shape,
    drive: Arc<Drive>,
    notice: Arc<ConfigNotice>,
    plans: Lock<Vec<WorkerPlan>>,
}

impl Blk {
    /// Makes a block device of `disk`.
    pub fn new(disk: &Arc<dyn Disk>, options: BlkOptions) -> Self {
        let shape = Shape::new(disk.as_ref(), &options);
        let BlkOptions {
            name,
            serial,
            thread,
            policy,
            on_error,
            ..
        } = options;
        let medium = Some(Arc::clone(disk));
        let drive = Arc::new(Drive::new(name, policy, on_error, medium));
        let plan = |queue: u16| WorkerPlan {
            suffix: format!("q{queue}"),
            queues: vec![queue],
            worker: Box::new(BlkWorker::new(
                Arc::clone(disk),
                Arc::clone(&drive),
                &serial,
                &shape,
            )),
            thread: thread.clone(),
        };
        Self {
            features: features(disk.as_ref(), &shape),
            shape,
            plans: Lock::new((0..shape.queues).map(plan).collect()),
            drive,
            notice: Arc::default(),
        }
    }

    /// Returns the host's side of the disk.
    pub fn handle(&self) -> DiskHandle {
        let notice = Arc::clone(&self.notice);
        DiskHandle::new(Arc::clone(&self.drive), notice)
    }
}

fn features(disk: &dyn Disk, shape: &Shape) -> u64 {
    let offer = |feature: u64, is_offered: bool| if is_offered { feature } else { 0 };
    F_SEG_MAX
        | F_BLK_SIZE
        | F_TOPOLOGY
        | F_FLUSH
        | offer(F_RO, disk.is_read_only())
        | offer(F_WRITE_ZEROES, !disk.is_read_only())
        | offer(F_DISCARD, shape.discards)
        | offer(F_MQ, shape.queues > 1)
}

impl VirtioDevice for Blk {
    fn device_type(&self) -> DeviceType {
        DeviceType::BLOCK
    }

    fn class(&self) -> [u8; 3] {
        [0x01, 0x00, 0x00]
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![self.shape.queue_size; usize::from(self.shape.queues)]
    }

    fn take_workers(&self) -> Vec<WorkerPlan> {
        std::mem::take(&mut *self.plans.get())
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let len_bytes = self.drive.medium().map_or(0, |disk| disk.len_bytes());
        read_config(&self.shape.config_space(len_bytes), offset, data);
    }

    fn set_config_change(&self, change: ConfigChange) {
        *self.notice.0.get() = Some(change);
    }
}

#[cfg(test)]
mod tests;
