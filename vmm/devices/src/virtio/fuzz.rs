//! Drives a virtio device with arbitrary bytes: for the fuzz target and the tests.

use std::sync::Arc;

use block::{Disk, DiskError};
use vm_memory::{Bytes, GuestAddress};

use super::spec::{common, status};
use super::{
    Blk, BlkOptions, Console, NOTIFY_BAR, Rng, Scsi, ScsiDiskOptions, ScsiKind, ScsiOptions,
    VirtioDevice, VirtioPci, VirtioPciOptions,
};
use crate::interrupt::{IrqLine, IrqSink, MsiMessage, MsiSink};
use crate::lifecycle::Device;
use crate::lock::Lock;
use crate::memory::GuestMemory;
use crate::pci::PciFunction;
use crate::uart::ConsoleOut;

const MEMORY_BYTES: usize = 0x1_0000;
const DISK_BYTES: usize = 0x8000;
const QUEUE_SIZE: u16 = 8;
/// Rings lie in the first 4 KiB, 0x200 bytes for each queue, where writes are aimed at.
const RING_BYTES: u64 = 0x200;

/// Takes interrupts and output, and forgets them.
struct Sink;

impl MsiSink for Sink {
    fn send_msi(&self, _msi: MsiMessage) {}
}

impl IrqSink for Sink {
    fn set_irq(&self, _gsi: u32, _level: bool) {}
}

impl ConsoleOut for Sink {
    fn write(&mut self, _bytes: &[u8]) {}
}

/// Makes a SCSI host with a disk, a CD-ROM drive and an empty one.
///
/// # Panics
/// If the host has no event counters.
pub(crate) fn scsi_host() -> Arc<dyn VirtioDevice> {
    let options = ScsiOptions {
        queues: 2,
        queue_size: QUEUE_SIZE,
        thread: None,
    };
    let scsi = Scsi::new(&options).expect("the host has an event counter");
    let units = [
        (ScsiKind::Disk, true),
        (ScsiKind::Cdrom, true),
        (ScsiKind::Cdrom, false),
    ];
    for (target, (kind, has_medium)) in (0..).zip(units) {
        let medium = has_medium.then(ram_disk);
        let plugged = scsi.plug(target, medium, &ScsiDiskOptions::new("fuzz", kind));
        plugged.expect("the target is free");
    }
    Arc::new(scsi)
}

fn ram_disk() -> Arc<dyn Disk> {
    Arc::new(RamDisk(Lock::new(vec![0; DISK_BYTES])))
}

/// A disk in memory.
struct RamDisk(Lock<Vec<u8>>);

impl RamDisk {
    fn with<T>(
        &self,
        offset: u64,
        len_bytes: u64,
        access: impl FnOnce(&mut [u8]) -> T,
    ) -> Result<T, DiskError> {
        let outside = DiskError::OutOfRange {
            offset,
            len_bytes,
            disk_bytes: self.len_bytes(),
        };
        let range = usize::try_from(offset).ok().and_then(|start| {
            let end = start.checked_add(usize::try_from(len_bytes).ok()?)?;
            Some(start..end)
        });
        let mut bytes = self.0.get();
        match range.and_then(|range| bytes.get_mut(range)) {
            Some(slice) => Ok(access(slice)),
            None => Err(outside),
        }
    }
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

impl Disk for RamDisk {
    fn len_bytes(&self) -> u64 {
        to_u64(DISK_BYTES)
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.with(offset, to_u64(buf.len()), |bytes| {
            buf.copy_from_slice(bytes);
        })
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        self.with(offset, to_u64(buf.len()), |bytes| {
            bytes.copy_from_slice(buf);
        })
    }

    fn flush(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> Result<(), DiskError> {
        self.with(offset, len_bytes, |_| ())
    }

    fn write_zeroes(&self, offset: u64, len_bytes: u64, _may_unmap: bool) -> Result<(), DiskError> {
        self.with(offset, len_bytes, |bytes| bytes.fill(0))
    }
}

/// Takes bytes off the front of the input; zeroes follow its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let len = N.min(self.0.len());
        bytes[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        bytes
    }
}

struct Bench {
    memory: GuestMemory,
    function: Arc<VirtioPci>,
    queues: u16,
}

impl Bench {
    fn new(choice: u8) -> Self {
        let device: Arc<dyn VirtioDevice> = match choice % 4 {
            0 => {
                let options = BlkOptions {
                    queues: 2,
                    queue_size: QUEUE_SIZE,
                    ..BlkOptions::new("blk")
                };
                Arc::new(Blk::new(&ram_disk(), options))
            }
            1 => {
                let console = Console::new(Some(Box::new(Sink)), &[]);
                Arc::new(console.expect("the host has an event counter"))
            }
            2 => Arc::new(Rng),
            _ => scsi_host(),
        };
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]);
        let memory = memory.expect("the host has 64 KiB");
        let queues = u16::try_from(device.queue_sizes().len()).unwrap_or(u16::MAX);
        let options = VirtioPciOptions {
            name: "fuzz".to_owned(),
            memory: memory.clone(),
            msi: Arc::new(Sink),
            line: IrqLine::new(Arc::new(Sink), 5),
        };
        let function = VirtioPci::new(device, options).expect("the host has event counters");
        let bench = Self {
            memory,
            function,
            queues,
        };
        bench.put_commands();
        bench
    }

    /// Fills half the memory with what begins a SCSI command, one of each operation code, so that
    /// many a buffer holds one.
    fn put_commands(&self) {
        for (operation, at) in (0..=u8::MAX).zip((0x8000..).step_by(128)) {
            let mut request = [0; 64];
            request[..3].copy_from_slice(&[1, operation & 3, 0x40]);
            request[19] = operation;
            request[24..28].fill(1);
            self.put(at, &request);
        }
    }

    fn set(&self, register: u64, data: &[u8]) {
        // The common configuration structure is the first of the region.
        self.function.bar_write(NOTIFY_BAR, register, data);
    }

    /// Does what a good driver does, so that what follows reaches the rings.
    fn start(&self, features: [u8; 4]) {
        self.function
            .config_write(0x10, &0xfe00_0000u32.to_le_bytes());
        self.function.config_write(0x04, &[0x06, 0]);
        self.set(common::DEVICE_STATUS, &[0]);
        for (half, wanted) in [(0u32, u32::from_le_bytes(features)), (1, 1)] {
            self.set(common::DEVICE_FEATURE_SELECT, &half.to_le_bytes());
            let mut offered = [0; 4];
            self.function
                .bar_read(NOTIFY_BAR, common::DEVICE_FEATURE, &mut offered);
            let accepted = u32::from_le_bytes(offered) & wanted;
            self.set(common::DRIVER_FEATURE_SELECT, &half.to_le_bytes());
            self.set(common::DRIVER_FEATURE, &accepted.to_le_bytes());
        }
        self.set(common::DEVICE_STATUS, &[status::FEATURES_OK]);
        for queue in 0..self.queues {
            let ring_gpa = u64::from(queue) * RING_BYTES;
            self.set(common::QUEUE_SELECT, &queue.to_le_bytes());
            self.set(common::QUEUE_SIZE, &QUEUE_SIZE.to_le_bytes());
            self.set(common::QUEUE_DESC, &ring_gpa.to_le_bytes());
            self.set(common::QUEUE_DRIVER, &(ring_gpa + 0x80).to_le_bytes());
            self.set(common::QUEUE_DEVICE, &(ring_gpa + 0x100).to_le_bytes());
            self.set(common::QUEUE_ENABLE, &[1, 0]);
        }
        self.set(common::DEVICE_STATUS, &[status::DRIVER_OK]);
    }

    fn step(&self, input: &mut Input<'_>) {
        let [operation] = input.take();
        let len = [1, 2, 4, 8][usize::from(operation >> 4 & 3)];
        match operation & 15 {
            0..=4 => self.put(
                u16::from_le_bytes(input.take()) & 0xfff,
                &input.take::<8>()[..len],
            ),
            5 => self.put(u16::from_le_bytes(input.take()), &input.take::<8>()[..len]),
            6 => self.put_descriptor(input),
            7 => self.offer(input),
            8 => self.set(
                u64::from(input.take::<1>()[0] & 0x3f),
                &input.take::<8>()[..len],
            ),
            9 => {
                let offset = u64::from(u16::from_le_bytes(input.take()));
                self.function
                    .bar_write(NOTIFY_BAR, offset, &input.take::<8>()[..len]);
            }
            10 => {
                let offset = u64::from(u16::from_le_bytes(input.take()));
                self.function
                    .bar_read(NOTIFY_BAR, offset, &mut [0; 8][..len]);
            }
            11 => self.function.config_write(
                input.take::<1>()[0].into(),
                &input.take::<4>()[..len.min(4)],
            ),
            12 => self
                .function
                .config_read(input.take::<1>()[0].into(), &mut [0; 4][..len.min(4)]),
            13 => self.save_and_restore(),
            14 => self.start(input.take()),
            _ => self.function.reset(),
        }
    }

    fn put(&self, gpa: u16, data: &[u8]) {
        // What does not fit behind the end of memory is a write that nobody made.
        drop(self.memory.write_slice(data, GuestAddress(gpa.into())));
    }

    /// Writes a descriptor that is nearly good: somewhere in memory, not too long.
    fn put_descriptor(&self, input: &mut Input<'_>) {
        let [place, flags, next, gpa_low, gpa_high, len_low, len_high] = input.take();
        let queue = u16::from(place >> 4) % self.queues;
        let mut descriptor = [0; 16];
        descriptor[0..2].copy_from_slice(&[gpa_low, gpa_high]);
        descriptor[8..10].copy_from_slice(&[len_low, len_high]);
        descriptor[12] = flags;
        descriptor[14] = next;
        self.put(queue * 0x200 + u16::from(place & 7) * 16, &descriptor);
    }

    /// Makes some chains available and notifies.
    fn offer(&self, input: &mut Input<'_>) {
        let [queue, count, heads @ ..] = input.take::<6>();
        let queue = u16::from(queue) % self.queues;
        for (slot, head) in (0..).zip(heads) {
            self.put(queue * 0x200 + 0x84 + 2 * slot, &[head & 7, 0]);
        }
        self.put(queue * 0x200 + 0x82, &[count, 0]);
        let offset = 0x3000 + 4 * u64::from(queue);
        self.function.bar_write(NOTIFY_BAR, offset, &[0, 0]);
    }

    fn save_and_restore(&self) {
        self.function.pause();
        let saved = self.function.save().expect("a paused device can be saved");
        let restored = self.function.restore(&saved);
        restored.expect("a device takes its own state");
        self.function.resume();
    }
}

/// Drives a device that the first byte chooses through the accesses that the others encode: ring
/// and register writes, notifications, saving and resetting.
///
/// # Panics
/// If a device does not take its own saved state, which is what the fuzz target looks for, or the
/// host is out of memory or event counters.
pub fn fuzz_drive(data: &[u8]) {
    let mut input = Input(data);
    let [choice] = input.take();
    let bench = Bench::new(choice);
    bench.start(input.take());
    while !input.0.is_empty() {
        bench.step(&mut input);
    }
    bench.save_and_restore();
}

#[cfg(test)]
mod tests;
