//! A driver for tests: finds the device by its capabilities and works its rings in guest memory.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};

use super::spec::{NO_VECTOR, capability, common, feature, status};
use super::{VirtioDevice, VirtioPci, VirtioPciOptions};
use crate::interrupt::{IrqLine, IrqSink, MsiMessage, MsiSink};
use crate::memory::GuestMemory;
use crate::pci::PciFunction;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
const MEMORY_BYTES: usize = 4 << 20;
const GSI: u32 = 17;
const REGION_GPA: u32 = 0xfe00_0000;
/// Where buffers begin; rings lie below.
pub(super) const BUFFERS_GPA: u64 = 0x10_0000;
const QUEUE_BYTES: u64 = 0x4000;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// Collects messages and line levels.
#[derive(Default)]
pub(super) struct Interrupts {
    seen: Mutex<(Vec<u32>, Vec<bool>)>,
    change: Condvar,
}

impl MsiSink for Interrupts {
    fn send_msi(&self, msi: MsiMessage) {
        self.seen.lock().unwrap().0.push(msi.data);
        self.change.notify_all();
    }
}

impl IrqSink for Interrupts {
    fn set_irq(&self, gsi: u32, level: bool) {
        assert_eq!(gsi, GSI);
        self.seen.lock().unwrap().1.push(level);
        self.change.notify_all();
    }
}

impl Interrupts {
    pub(super) fn messages(&self) -> Vec<u32> {
        self.seen.lock().unwrap().0.clone()
    }

    /// Waits for these messages since the start, in this order. A message follows the used index,
    /// so seeing the one says nothing of the other.
    pub(super) fn expect_messages(&self, expected: &[u32]) {
        self.wait_until(|| self.messages() == expected);
    }

    /// Waits for these levels of the line since the start: another thread than the one that asked
    /// for a level may be the one that drives it.
    pub(super) fn expect_levels(&self, expected: &[bool]) {
        self.wait_until(|| self.levels() == expected);
    }

    pub(super) fn levels(&self) -> Vec<bool> {
        self.seen.lock().unwrap().1.clone()
    }

    /// Waits until `done`, which is asked again after each interrupt.
    pub(super) fn wait_until(&self, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "the device does not answer");
            // What changed between the question and the lock is seen a little later.
            let seen = self.seen.lock().unwrap();
            let wait = Duration::from_millis(2);
            drop(self.change.wait_timeout(seen, wait).unwrap());
        }
    }
}

/// A structure of the transport: its offset in the region.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    bar: u8,
    offset: u32,
    length: u32,
}

/// A device with its driver.
pub(super) struct Driver {
    pub(super) pci: Arc<VirtioPci>,
    pub(super) memory: GuestMemory,
    pub(super) interrupts: Arc<Interrupts>,
    places: [Place; 6],
    notify_multiplier: u32,
    pub(super) msix_reg: u16,
    pub(super) pci_cfg_reg: u16,
}

impl Driver {
    /// Puts a device into fresh memory and finds its structures.
    pub(super) fn new(device: Arc<dyn VirtioDevice>) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap();
        Self::with_memory(device, memory)
    }

    pub(super) fn with_memory(device: Arc<dyn VirtioDevice>, memory: GuestMemory) -> Self {
        let interrupts = Arc::new(Interrupts::default());
        let options = VirtioPciOptions {
            name: "dut".to_owned(),
            memory: memory.clone(),
            msi: Arc::clone(&interrupts) as Arc<dyn MsiSink>,
            line: IrqLine::new(Arc::clone(&interrupts) as Arc<dyn IrqSink>, GSI),
        };
        let pci = VirtioPci::new(device, options).unwrap();
        let mut driver = Self {
            pci,
            memory,
            interrupts,
            places: [Place::default(); 6],
            notify_multiplier: 0,
            msix_reg: 0,
            pci_cfg_reg: 0,
        };
        driver.find_structures();
        driver.enable_function();
        driver
    }

    fn find_structures(&mut self) {
        let mut at = self.config8(0x34).into();
        while at != 0 {
            let kind = usize::from(self.config8(at + 3));
            match self.config8(at) {
                0x11 => self.msix_reg = at,
                capability::ID => {
                    assert!(self.config8(at + 2) >= 16, "capability length");
                    let (bar, offset) = (self.config8(at + 4), self.config32(at + 8));
                    let length = self.config32(at + 12);
                    self.places[kind] = Place {
                        bar,
                        offset,
                        length,
                    };
                    if kind == usize::from(capability::NOTIFY) {
                        self.notify_multiplier = self.config32(at + 16);
                    }
                    if kind == usize::from(capability::PCI_CFG) {
                        self.pci_cfg_reg = at;
                    }
                }
                other => panic!("capability {other:#x}"),
            }
            at = self.config8(at + 1).into();
        }
    }

    /// Places the region and lets the function decode and master the bus.
    pub(super) fn enable_function(&self) {
        self.pci.config_write(0x10, &REGION_GPA.to_le_bytes());
        self.pci.config_write(0x04, &0x0006u16.to_le_bytes());
    }

    pub(super) fn config8(&self, reg: u16) -> u8 {
        let mut data = [0];
        self.pci.config_read(reg, &mut data);
        data[0]
    }

    pub(super) fn config16(&self, reg: u16) -> u16 {
        let mut data = [0; 2];
        self.pci.config_read(reg, &mut data);
        u16::from_le_bytes(data)
    }

    pub(super) fn config32(&self, reg: u16) -> u32 {
        let mut data = [0; 4];
        self.pci.config_read(reg, &mut data);
        u32::from_le_bytes(data)
    }

    fn at(&self, kind: u8, offset: u64) -> (usize, u64) {
        let place = self.places[usize::from(kind)];
        assert!(offset < u64::from(place.length), "offset in structure");
        (place.bar.into(), u64::from(place.offset) + offset)
    }

    pub(super) fn read<const N: usize>(&self, kind: u8, offset: u64) -> [u8; N] {
        let mut data = [0xee; N];
        let (bar, offset) = self.at(kind, offset);
        self.pci.bar_read(bar, offset, &mut data);
        data
    }

    pub(super) fn write(&self, kind: u8, offset: u64, data: &[u8]) {
        let (bar, offset) = self.at(kind, offset);
        self.pci.bar_write(bar, offset, data);
    }

    pub(super) fn common8(&self, offset: u64) -> u8 {
        u8::from_le_bytes(self.read(capability::COMMON, offset))
    }

    pub(super) fn common16(&self, offset: u64) -> u16 {
        u16::from_le_bytes(self.read(capability::COMMON, offset))
    }

    pub(super) fn common32(&self, offset: u64) -> u32 {
        u32::from_le_bytes(self.read(capability::COMMON, offset))
    }

    pub(super) fn set8(&self, offset: u64, value: u8) {
        self.write(capability::COMMON, offset, &[value]);
    }

    pub(super) fn set16(&self, offset: u64, value: u16) {
        self.write(capability::COMMON, offset, &value.to_le_bytes());
    }

    pub(super) fn set32(&self, offset: u64, value: u32) {
        self.write(capability::COMMON, offset, &value.to_le_bytes());
    }

    pub(super) fn status(&self) -> u8 {
        self.common8(common::DEVICE_STATUS)
    }

    pub(super) fn set_status(&self, status: u8) {
        self.set8(common::DEVICE_STATUS, status);
    }

    pub(super) fn isr(&self) -> u8 {
        u8::from_le_bytes(self.read(capability::ISR, 0))
    }

    pub(super) fn device_config<const N: usize>(&self, offset: u64) -> [u8; N] {
        self.read(capability::DEVICE, offset)
    }

    pub(super) fn offered(&self) -> u64 {
        self.set32(common::DEVICE_FEATURE_SELECT, 0);
        let low = self.common32(common::DEVICE_FEATURE);
        self.set32(common::DEVICE_FEATURE_SELECT, 1);
        u64::from(self.common32(common::DEVICE_FEATURE)) << 32 | u64::from(low)
    }

    pub(super) fn accept(&self, features: u64) {
        for (half, value) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.set32(common::DRIVER_FEATURE_SELECT, half);
            self.set32(common::DRIVER_FEATURE, u32::try_from(value).unwrap());
        }
    }

    /// Resets the device and agrees on features: everything offered but what `without` names.
    pub(super) fn negotiate(&self, without: u64) {
        self.set_status(0);
        assert_eq!(self.status(), 0);
        self.set_status(status::ACKNOWLEDGE);
        self.set_status(status::ACKNOWLEDGE | status::DRIVER);
        self.accept(self.offered() & !without);
        self.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        assert_ne!(self.status() & status::FEATURES_OK, 0, "features refused");
    }

    pub(super) fn driver_ok(&self) {
        self.set_status(self.status() | status::DRIVER_OK);
    }

    /// Switches MSI-X on with a vector of the same number as message data.
    pub(super) fn enable_msix(&self) {
        let vectors = self.config16(self.msix_reg + 2) & 0x7ff;
        let table = u64::from(self.config32(self.msix_reg + 4) & !7);
        for vector in 0..=vectors {
            let at = table + u64::from(vector) * 16;
            let data = u32::from(vector);
            self.pci.bar_write(0, at, &0xfee0_0000u32.to_le_bytes());
            self.pci.bar_write(0, at + 8, &data.to_le_bytes());
            self.pci.bar_write(0, at + 12, &0u32.to_le_bytes());
        }
        self.pci
            .config_write(self.msix_reg + 2, &0x8000u16.to_le_bytes());
    }

    /// Sets queue `index` up with `size` entries and vector `index + 1`.
    pub(super) fn queue(&self, index: u16, size: u16) -> DriverQueue {
        let base = 0x1000 + u64::from(index) * QUEUE_BYTES;
        let queue = DriverQueue::new(self, index, size, base);
        self.set16(common::QUEUE_SELECT, index);
        self.set16(common::QUEUE_SIZE, size);
        self.set16(common::QUEUE_MSIX_VECTOR, index + 1);
        self.set_addresses(queue.desc_gpa, queue.avail_gpa, queue.used_gpa);
        self.set16(common::QUEUE_ENABLE, 1);
        queue
    }

    pub(super) fn set_addresses(&self, desc_gpa: u64, avail_gpa: u64, used_gpa: u64) {
        let registers = [
            (common::QUEUE_DESC, desc_gpa),
            (common::QUEUE_DRIVER, avail_gpa),
            (common::QUEUE_DEVICE, used_gpa),
        ];
        for (register, gpa) in registers {
            self.set32(register, u32::try_from(gpa & 0xffff_ffff).unwrap());
            self.set32(register + 4, u32::try_from(gpa >> 32).unwrap());
        }
    }

    /// Brings the device up with MSI-X and `sizes.len()` queues.
    pub(super) fn start(&self, without: u64, sizes: &[u16]) -> Vec<DriverQueue> {
        self.negotiate(without);
        self.enable_msix();
        self.set16(common::CONFIG_MSIX_VECTOR, 0);
        let queues = (0..)
            .zip(sizes)
            .map(|(index, size)| self.queue(index, *size));
        let queues = queues.collect();
        self.driver_ok();
        queues
    }

    pub(super) fn notify(&self, index: u16) {
        self.set16(common::QUEUE_SELECT, index);
        let off = u32::from(self.common16(common::QUEUE_NOTIFY_OFF));
        let at = u64::from(off * self.notify_multiplier);
        self.write(capability::NOTIFY, at, &index.to_le_bytes());
    }

    pub(super) fn wait_for_needs_reset(&self) {
        self.interrupts
            .wait_until(|| self.status() & status::NEEDS_RESET != 0);
    }

    pub(super) fn bytes(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory
            .read_slice(&mut data, GuestAddress(gpa))
            .unwrap();
        data
    }

    pub(super) fn put(&self, gpa: u64, data: &[u8]) {
        self.memory.write_slice(data, GuestAddress(gpa)).unwrap();
    }
}

/// One buffer of a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer {
    pub(super) gpa: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
}

pub(super) fn readable(gpa: u64, len: u32) -> Buffer {
    Buffer { gpa, len, flags: 0 }
}

pub(super) fn writable(gpa: u64, len: u32) -> Buffer {
    Buffer {
        gpa,
        len,
        flags: WRITE,
    }
}

/// The driver's side of a ring.
pub(super) struct DriverQueue {
    pub(super) index: u16,
    size: u16,
    pub(super) desc_gpa: u64,
    pub(super) avail_gpa: u64,
    pub(super) used_gpa: u64,
    next_desc: u16,
    pub(super) avail_idx: u16,
    last_used: u16,
}

impl DriverQueue {
    fn new(driver: &Driver, index: u16, size: u16, base: u64) -> Self {
        let desc_gpa = base;
        let avail_gpa = desc_gpa + 16 * u64::from(size);
        let used_gpa = (avail_gpa + 6 + 2 * u64::from(size)).next_multiple_of(4);
        let end = used_gpa + 6 + 8 * u64::from(size);
        assert!(end <= base + QUEUE_BYTES, "the ring fits its place");
        driver.put(base, &vec![0; usize::try_from(end - base).unwrap()]);
        Self {
            index,
            size,
            desc_gpa,
            avail_gpa,
            used_gpa,
            next_desc: 0,
            avail_idx: 0,
            last_used: 0,
        }
    }

    /// Writes descriptor `at` of the table at `table_gpa`.
    pub(super) fn put_descriptor(
        driver: &Driver,
        table_gpa: u64,
        at: u16,
        buffer: Buffer,
        next: u16,
    ) {
        let mut bytes = Vec::new();
        bytes.extend(buffer.gpa.to_le_bytes());
        bytes.extend(buffer.len.to_le_bytes());
        bytes.extend(buffer.flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        driver.put(table_gpa + 16 * u64::from(at), &bytes);
    }

    /// Writes a chain from descriptor `next_desc` on; returns its head.
    pub(super) fn put_chain(&mut self, driver: &Driver, buffers: &[Buffer]) -> u16 {
        let head = self.next_desc;
        for (at, buffer) in buffers.iter().enumerate() {
            let own = self.next_desc;
            self.next_desc = (own + 1) % self.size;
            let more = if at + 1 < buffers.len() { NEXT } else { 0 };
            let buffer = Buffer {
                flags: buffer.flags | more,
                ..*buffer
            };
            Self::put_descriptor(driver, self.desc_gpa, own, buffer, self.next_desc);
        }
        head
    }

    /// Makes a chain available without notifying.
    pub(super) fn offer(&mut self, driver: &Driver, head: u16) {
        let slot = self.avail_gpa + 4 + 2 * u64::from(self.avail_idx % self.size);
        driver.put(slot, &head.to_le_bytes());
        self.avail_idx = self.avail_idx.wrapping_add(1);
        driver.put(self.avail_gpa + 2, &self.avail_idx.to_le_bytes());
        // used_event: an interrupt for each used buffer, whatever was agreed on.
        let event = self.avail_gpa + 4 + 2 * u64::from(self.size);
        driver.put(event, &self.last_used.to_le_bytes());
    }

    pub(super) fn submit(&mut self, driver: &Driver, buffers: &[Buffer]) -> u16 {
        let head = self.put_chain(driver, buffers);
        self.offer(driver, head);
        driver.notify(self.index);
        head
    }

    pub(super) fn used_idx(&self, driver: &Driver) -> u16 {
        let bytes = driver.bytes(self.used_gpa + 2, 2);
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    /// Takes the next used element if there is one: head and written length.
    pub(super) fn take_used(&mut self, driver: &Driver) -> Option<(u16, u32)> {
        if self.used_idx(driver) == self.last_used {
            return None;
        }
        let at = self.used_gpa + 4 + 8 * u64::from(self.last_used % self.size);
        let element = driver.bytes(at, 8);
        self.last_used = self.last_used.wrapping_add(1);
        let word = |at: usize| u32::from_le_bytes(element[at..at + 4].try_into().unwrap());
        Some((u16::try_from(word(0)).unwrap(), word(4)))
    }

    /// Waits for the next used element.
    pub(super) fn wait_used(&mut self, driver: &Driver) -> (u16, u32) {
        driver
            .interrupts
            .wait_until(|| self.used_idx(driver) != self.last_used);
        self.take_used(driver).unwrap()
    }

    /// Submits a chain and waits for it; returns the written length.
    pub(super) fn ask(&mut self, driver: &Driver, buffers: &[Buffer]) -> u32 {
        let head = self.submit(driver, buffers);
        let (used, written) = self.wait_used(driver);
        assert_eq!(used, head, "used element names the chain");
        written
    }
}

/// The vector that stands for none, as a driver reads it back.
pub(super) const NONE: u16 = NO_VECTOR;
/// Features that tests leave out one by one.
pub(super) const EVENT_IDX: u64 = feature::RING_EVENT_IDX;
