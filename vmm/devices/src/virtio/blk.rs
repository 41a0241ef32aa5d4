//! The block device (virtio 1.3 §5.2).

mod request;
mod worker;

use std::fmt;
use std::sync::Arc;

use block::Disk;

use self::worker::BlkWorker;
use super::{DeviceType, VirtioDevice, WorkerPlan, read_config};
use crate::lock::Lock;

const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
const F_TOPOLOGY: u64 = 1 << 10;
const F_MQ: u64 = 1 << 12;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

const SECTOR_BYTES: u64 = 512;
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

/// What a disk was asked when the host refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskAction {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Flushing.
    Flush,
    /// Discarding.
    Discard,
    /// Writing zeroes.
    WriteZeroes,
}

/// A request that the host refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskEvent {
    /// The name of the block device.
    pub device: String,
    /// What was asked.
    pub action: DiskAction,
    /// Offset on the disk in bytes.
    pub offset: u64,
    /// The error with its causes.
    pub error: String,
    /// The host has no space left.
    pub no_space: bool,
    /// The request is held and the guest waits: resume the device to try again.
    pub held: bool,
}

/// What becomes of a request that the host refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorPolicy {
    /// The guest gets an I/O error.
    #[default]
    Report,
    /// The request is held until the device is paused and resumed.
    Stop,
    /// As [`ErrorPolicy::Stop`] when the host has no space left, else [`ErrorPolicy::Report`].
    StopOnNoSpace,
    /// The guest is told that all is well.
    Ignore,
}

/// Learns of refused requests, on the worker's thread.
///
/// It must not block or call the device: pausing waits for the worker.
pub type OnDiskError = Arc<dyn Fn(DiskEvent) + Send + Sync>;

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

/// A block device over a disk.
pub struct Blk {
    features: u64,
    config: [u8; 60],
    queue_sizes: Vec<u16>,
    plans: Lock<Vec<WorkerPlan>>,
}

impl Blk {
    /// Makes a block device of `disk`.
    pub fn new(disk: &Arc<dyn Disk>, options: BlkOptions) -> Self {
        let queues = options.queues.clamp(1, MAX_QUEUES);
        let queue_size = options.queue_size.clamp(4, 1024);
        let config = config_space(disk.as_ref(), &options, queues, queue_size);
        let features = features(disk.as_ref(), queues);
        let options = Arc::new(options);
        let plan = |queue: u16| WorkerPlan {
            suffix: format!("q{queue}"),
            queues: vec![queue],
            worker: Box::new(BlkWorker::new(Arc::clone(disk), Arc::clone(&options))),
        };
        Self {
            features,
            config,
            queue_sizes: vec![queue_size; usize::from(queues)],
            plans: Lock::new((0..queues).map(plan).collect()),
        }
    }
}

fn features(disk: &dyn Disk, queues: u16) -> u64 {
    let always = F_SEG_MAX | F_BLK_SIZE | F_TOPOLOGY | F_FLUSH;
    let changes = if disk.is_read_only() {
        F_RO
    } else {
        F_DISCARD | F_WRITE_ZEROES
    };
    let many = if queues > 1 { F_MQ } else { 0 };
    always | changes | many
}

/// Returns the logical block size in bytes and the number of blocks in a physical one, as a power
/// of two.
fn block_sizes(disk: &dyn Disk, options: &BlkOptions) -> (u32, u8) {
    let is_good = |bytes: &u32| bytes.is_power_of_two() && *bytes >= 512;
    let asked = options.logical_block_bytes.filter(is_good);
    let logical = asked.unwrap_or(disk.logical_block_bytes().max(512));
    let physical = options.physical_block_bytes.filter(is_good);
    let ratio = physical.map_or(1, |physical| physical / logical).max(1);
    (logical, u8::try_from(ratio.ilog2()).unwrap_or(0))
}

/// Lays out `struct virtio_blk_config` (§5.2.4).
fn config_space(disk: &dyn Disk, options: &BlkOptions, queues: u16, queue_size: u16) -> [u8; 60] {
    let mut config = [0; 60];
    let (block_bytes, physical_exponent) = block_sizes(disk, options);
    let mut put = |at: usize, value: &[u8]| config[at..at + value.len()].copy_from_slice(value);
    put(0, &(disk.len_bytes() / SECTOR_BYTES).to_le_bytes());
    // Header and status take a descriptor each.
    put(12, &u32::from(queue_size - 2).to_le_bytes());
    put(20, &block_bytes.to_le_bytes());
    put(24, &[physical_exponent]);
    // The least good transfer is one block.
    put(26, &1u16.to_le_bytes());
    put(34, &queues.to_le_bytes());
    put(36, &MAX_RANGE_SECTORS.to_le_bytes());
    put(40, &MAX_DISCARD_SEGMENTS.to_le_bytes());
    put(44, &(block_bytes / 512).to_le_bytes());
    put(48, &MAX_RANGE_SECTORS.to_le_bytes());
    put(52, &MAX_WRITE_ZEROES_SEGMENTS.to_le_bytes());
    put(56, &[1]);
    config
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
        self.queue_sizes.clone()
    }

    fn take_workers(&self) -> Vec<WorkerPlan> {
        std::mem::take(&mut *self.plans.get())
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        read_config(&self.config, offset, data);
    }
}

#[cfg(test)]
mod tests;
