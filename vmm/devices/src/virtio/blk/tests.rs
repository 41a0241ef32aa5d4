use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use block::{Disk, DiskError, Format, OpenOptions, create_empty, open};
use tempfile::TempDir;

use super::{Blk, BlkOptions, DiskAction, DiskEvent, ErrorPolicy};
use crate::lifecycle::Device;
use crate::virtio::driver::{BUFFERS_GPA, Driver, DriverQueue, EVENT_IDX, readable, writable};

const HEADER: u64 = BUFFERS_GPA;
const STATUS: u64 = BUFFERS_GPA + 0x100;
const DATA: u64 = BUFFERS_GPA + 0x1000;
const DISK_BYTES: u64 = 8 << 20;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const F_FLUSH: u64 = 1 << 9;

fn image(format: Format) -> (TempDir, Arc<dyn Disk>) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("disk");
    create_empty(&path, DISK_BYTES, format).unwrap();
    let options = OpenOptions {
        format: Some(format),
        ..OpenOptions::default()
    };
    let disk = open(&path, &options).unwrap();
    (folder, disk)
}

/// A disk in memory that counts and fails on demand.
struct FakeDisk {
    bytes: Mutex<Vec<u8>>,
    read_only: bool,
    flushes: AtomicU32,
    fails: AtomicBool,
}

impl FakeDisk {
    fn new(read_only: bool) -> Arc<Self> {
        Arc::new(Self {
            bytes: Mutex::new(vec![0; 1 << 20]),
            read_only,
            flushes: AtomicU32::new(0),
            fails: AtomicBool::new(false),
        })
    }

    fn answer(&self, offset: u64) -> Result<(), DiskError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(DiskError::NoSpace {
                operation: "write",
                offset,
                path: "disk.img".into(),
            });
        }
        Ok(())
    }

    fn range(offset: u64, len: usize) -> std::ops::Range<usize> {
        let start = usize::try_from(offset).unwrap();
        start..start + len
    }
}

impl Disk for FakeDisk {
    fn len_bytes(&self) -> u64 {
        self.bytes.lock().unwrap().len().try_into().unwrap()
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.answer(offset)?;
        buf.copy_from_slice(&self.bytes.lock().unwrap()[Self::range(offset, buf.len())]);
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        self.answer(offset)?;
        self.bytes.lock().unwrap()[Self::range(offset, buf.len())].copy_from_slice(buf);
        Ok(())
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.answer(0)
    }

    fn discard(&self, offset: u64, _len_bytes: u64) -> Result<(), DiskError> {
        self.answer(offset)
    }

    fn write_zeroes(&self, offset: u64, len_bytes: u64, _: bool) -> Result<(), DiskError> {
        let len = usize::try_from(len_bytes).unwrap();
        self.write_at(offset, &vec![0; len])
    }
}

fn blk(disk: &Arc<dyn Disk>) -> Arc<Blk> {
    let options = BlkOptions {
        serial: "serial-0123456789abcdef".to_owned(),
        ..BlkOptions::new("blk")
    };
    Arc::new(Blk::new(disk, options))
}

fn put_header(driver: &Driver, kind: u32, sector: u64) {
    let mut header = Vec::new();
    header.extend(kind.to_le_bytes());
    header.extend([0; 4]);
    header.extend(sector.to_le_bytes());
    driver.put(HEADER, &header);
    driver.put(STATUS, &[0xff]);
}

fn status(driver: &Driver) -> u8 {
    driver.bytes(STATUS, 1)[0]
}

fn request(
    driver: &Driver,
    queue: &mut DriverQueue,
    kind: u32,
    sector: u64,
    data: Option<(u32, bool)>,
) -> (u8, u32) {
    put_header(driver, kind, sector);
    let mut chain = vec![readable(HEADER, 16)];
    chain.extend(data.map(|(len, is_in)| {
        if is_in {
            writable(DATA, len)
        } else {
            readable(DATA, len)
        }
    }));
    chain.push(writable(STATUS, 1));
    let written = queue.ask(driver, &chain);
    (status(driver), written)
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from((at * 7 + seed + at / 512) % 251).unwrap())
        .collect()
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

fn writes_come_back(format: Format) {
    let (_folder, disk) = image(format);
    let driver = Driver::new(blk(&disk));
    let mut queues = driver.start(0, &[64]);
    let queue = &mut queues[0];
    let data = pattern(300 << 10, 3);
    let len = u32::try_from(data.len()).unwrap();
    driver.put(DATA, &data);
    assert_eq!(request(&driver, queue, OUT, 5, Some((len, false))), (0, 1));
    assert_eq!(request(&driver, queue, FLUSH, 0, None), (0, 1));
    driver.put(DATA, &vec![0; data.len()]);
    assert_eq!(
        request(&driver, queue, IN, 5, Some((len, true))),
        (0, len + 1)
    );
    assert!(driver.bytes(DATA, data.len()) == data, "data differs");
    let mut on_disk = vec![0; data.len()];
    disk.read_at(5 * 512, &mut on_disk).unwrap();
    assert!(on_disk == data, "disk differs");
}

#[test]
fn writes_come_back_from_a_raw_image() {
    writes_come_back(Format::Raw);
}

#[test]
fn writes_come_back_from_a_qcow2_image() {
    writes_come_back(Format::Qcow2);
}

#[test]
fn discard_and_write_zeroes_reach_a_qcow2_image() {
    let (_folder, disk) = image(Format::Qcow2);
    let driver = Driver::new(blk(&disk));
    let mut queues = driver.start(0, &[64]);
    let queue = &mut queues[0];
    driver.put(DATA, &pattern(0x4_0000, 1));
    assert_eq!(
        request(&driver, queue, OUT, 0, Some((0x4_0000, false))).0,
        0
    );
    for first in [range(0, 128, 1), range(256, 8, 0)] {
        driver.put(DATA, &first);
        let answer = request(&driver, queue, WRITE_ZEROES, 0, Some((16, false)));
        assert_eq!(answer, (0, 1));
    }
    driver.put(DATA, &range(384, 128, 0));
    assert_eq!(request(&driver, queue, DISCARD, 0, Some((16, false))).0, 0);
    let expected = pattern(0x4_0000, 1);
    let mut got = vec![0xff; 0x4_0000];
    disk.read_at(0, &mut got).unwrap();
    assert!(got[..128 * 512].iter().all(|byte| *byte == 0));
    assert!(got[128 * 512..256 * 512] == expected[128 * 512..256 * 512]);
    assert!(got[256 * 512..264 * 512].iter().all(|byte| *byte == 0));
    assert!(got[264 * 512..384 * 512] == expected[264 * 512..384 * 512]);
}

#[test]
fn configuration_space_describes_the_disk() {
    let disk: Arc<dyn Disk> = FakeDisk::new(false);
    let options = BlkOptions {
        queues: 3,
        queue_size: 128,
        ..BlkOptions::new("blk")
    };
    let driver = Driver::new(Arc::new(Blk::new(&disk, options)));
    assert_eq!(
        driver.device_config::<8>(0),
        2048u64.to_le_bytes(),
        "capacity"
    );
    assert_eq!(
        driver.device_config::<4>(12),
        126u32.to_le_bytes(),
        "seg_max"
    );
    assert_eq!(
        driver.device_config::<4>(20),
        512u32.to_le_bytes(),
        "blk_size"
    );
    assert_eq!(
        driver.device_config::<2>(34),
        3u16.to_le_bytes(),
        "num_queues"
    );
    assert_eq!(driver.device_config::<4>(60), [0; 4], "past the end");
    let features = 1 << 2 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 12 | 1 << 13 | 1 << 14;
    let transport = 1 << 28 | 1 << 29 | 1 << 32 | 1 << 40;
    assert_eq!(driver.offered(), features | transport);
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    let disk: Arc<dyn Disk> = FakeDisk::new(true);
    let driver = Driver::new(blk(&disk));
    assert_eq!(driver.offered() & (1 << 5 | 1 << 13 | 1 << 14), 1 << 5);
    let mut queues = driver.start(0, &[8]);
    let queue = &mut queues[0];
    assert_eq!(request(&driver, queue, OUT, 0, Some((512, false))), (1, 1));
    driver.put(DATA, &range(0, 1, 0));
    assert_eq!(
        request(&driver, queue, DISCARD, 0, Some((16, false))),
        (1, 1)
    );
    assert_eq!(request(&driver, queue, IN, 0, Some((512, true))), (0, 513));
    assert_eq!(request(&driver, queue, FLUSH, 0, None), (0, 1));
}

#[test]
fn requests_that_cannot_be_are_answered() {
    let disk: Arc<dyn Disk> = FakeDisk::new(false);
    let driver = Driver::new(blk(&disk));
    let mut queues = driver.start(0, &[8]);
    let queue = &mut queues[0];
    let mut ask = |kind, sector, data| request(&driver, queue, kind, sector, data);
    assert_eq!(ask(IN, 2048, Some((512, true))), (1, 1), "past the end");
    assert_eq!(ask(IN, 2047, Some((1024, true))), (1, 1), "over the end");
    assert_eq!(
        ask(IN, u64::MAX / 512, Some((512, true))),
        (1, 1),
        "overflow"
    );
    assert_eq!(ask(OUT, 0, Some((511, false))), (1, 1), "part of a sector");
    assert_eq!(ask(77, 0, None), (2, 1), "unknown type");
    assert_eq!(ask(GET_ID, 0, Some((8, true))), (1, 1), "short ID");
    driver.put(DATA, &range(0, 1, 1));
    assert_eq!(
        ask(DISCARD, 0, Some((16, false))),
        (2, 1),
        "unmap in a discard"
    );
    driver.put(DATA, &range(0, 1, 2));
    assert_eq!(
        ask(WRITE_ZEROES, 0, Some((16, false))),
        (2, 1),
        "reserved flag"
    );
    driver.put(DATA, &range(2040, 9, 0));
    assert_eq!(
        ask(WRITE_ZEROES, 0, Some((16, false))),
        (1, 1),
        "range over the end"
    );
    assert_eq!(
        ask(DISCARD, 0, Some((15, false))),
        (1, 1),
        "part of a range"
    );
    assert_eq!(ask(DISCARD, 0, None), (1, 1), "no range");
}

#[test]
fn the_serial_number_is_cut_to_its_field() {
    let disk: Arc<dyn Disk> = FakeDisk::new(false);
    let driver = Driver::new(blk(&disk));
    let mut queues = driver.start(0, &[8]);
    assert_eq!(
        request(&driver, &mut queues[0], GET_ID, 0, Some((20, true))),
        (0, 21)
    );
    assert_eq!(driver.bytes(DATA, 20), b"serial-0123456789abc");
}

#[test]
fn a_driver_that_cannot_flush_gets_every_write_flushed() {
    let fake = FakeDisk::new(false);
    let disk: Arc<dyn Disk> = Arc::clone(&fake) as Arc<dyn Disk>;
    let driver = Driver::new(blk(&disk));
    let mut queues = driver.start(F_FLUSH, &[8]);
    request(&driver, &mut queues[0], OUT, 0, Some((512, false)));
    assert_eq!(fake.flushes.load(Ordering::SeqCst), 1);
    let mut queues = driver.start(0, &[8]);
    request(&driver, &mut queues[0], OUT, 0, Some((512, false)));
    assert_eq!(fake.flushes.load(Ordering::SeqCst), 1);
}

#[test]
fn scattered_buffers_of_any_shape_are_one_range() {
    let disk: Arc<dyn Disk> = FakeDisk::new(false);
    disk.write_at(0, &pattern(1024, 9)).unwrap();
    let driver = Driver::new(blk(&disk));
    let mut queues = driver.start(EVENT_IDX, &[16]);
    put_header(&driver, IN, 0);
    let chain = [
        readable(HEADER, 7),
        readable(HEADER + 7, 0),
        readable(HEADER + 7, 9),
        writable(DATA, 1000),
        writable(DATA + 2000, 23),
        writable(DATA + 3000, 2),
    ];
    // The last byte is the status, wherever the buffers end.
    assert_eq!(queues[0].ask(&driver, &chain), 1025);
    let expected = pattern(1024, 9);
    assert_eq!(driver.bytes(DATA, 1000), expected[..1000]);
    assert_eq!(driver.bytes(DATA + 2000, 23), expected[1000..1023]);
    assert_eq!(driver.bytes(DATA + 3000, 2), [expected[1023], 0]);
}

fn failing(policy: ErrorPolicy) -> (Arc<FakeDisk>, Driver, Arc<Mutex<Vec<DiskEvent>>>) {
    let fake = FakeDisk::new(false);
    let disk: Arc<dyn Disk> = Arc::clone(&fake) as Arc<dyn Disk>;
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&events);
    let options = BlkOptions {
        policy,
        on_error: Arc::new(move |event| log.lock().unwrap().push(event)),
        ..BlkOptions::new("vda")
    };
    fake.fails.store(true, Ordering::SeqCst);
    (
        fake,
        Driver::new(Arc::new(Blk::new(&disk, options))),
        events,
    )
}

#[test]
fn a_host_error_is_reported_to_guest_and_host() {
    let (_fake, driver, events) = failing(ErrorPolicy::Report);
    let mut queues = driver.start(0, &[8]);
    assert_eq!(
        request(&driver, &mut queues[0], OUT, 4, Some((512, false))),
        (1, 1)
    );
    let events = events.lock().unwrap();
    let [event] = events.as_slice() else {
        panic!("one event: {events:?}");
    };
    assert_eq!(
        (event.device.as_str(), event.action),
        ("vda", DiskAction::Write)
    );
    assert_eq!(
        (event.offset, event.no_space, event.stopped),
        (2048, true, false)
    );
}

#[test]
fn an_ignored_host_error_is_success_for_the_guest() {
    let (_fake, driver, events) = failing(ErrorPolicy::Ignore);
    let mut queues = driver.start(0, &[8]);
    assert_eq!(
        request(&driver, &mut queues[0], OUT, 4, Some((512, false))),
        (0, 1)
    );
    assert_eq!(events.lock().unwrap().len(), 1);
}

#[test]
fn a_held_request_is_done_after_resume() {
    for policy in [ErrorPolicy::Stop, ErrorPolicy::StopOnEnospc] {
        let (fake, driver, events) = failing(policy);
        let mut queues = driver.start(0, &[8]);
        driver.put(DATA, &pattern(512, 2));
        put_header(&driver, OUT, 4);
        let chain = [
            readable(HEADER, 16),
            readable(DATA, 512),
            writable(STATUS, 1),
        ];
        queues[0].submit(&driver, &chain);
        driver
            .interrupts
            .wait_until(|| !events.lock().unwrap().is_empty());
        assert!(events.lock().unwrap()[0].stopped);
        driver.notify(0);
        driver.pci.pause();
        assert_eq!(queues[0].take_used(&driver), None, "still held");
        assert_eq!(events.lock().unwrap().len(), 1, "not tried again by itself");
        fake.fails.store(false, Ordering::SeqCst);
        driver.pci.resume();
        queues[0].wait_used(&driver);
        assert_eq!(status(&driver), 0);
        assert_eq!(fake.bytes.lock().unwrap()[2048..2560], pattern(512, 2));
    }
}

#[test]
fn each_queue_is_served() {
    let disk: Arc<dyn Disk> = FakeDisk::new(false);
    let options = BlkOptions {
        queues: 4,
        ..BlkOptions::new("blk")
    };
    let driver = Driver::new(Arc::new(Blk::new(&disk, options)));
    let mut queues = driver.start(0, &[8, 8, 8, 8]);
    for (queue, messages) in queues.iter_mut().zip(1..) {
        assert_eq!(request(&driver, queue, IN, 1, Some((512, true))), (0, 513));
        driver.interrupts.expect_messages(&[1, 2, 3, 4][..messages]);
    }
}

#[test]
fn chains_without_header_or_status_need_a_reset() {
    let disk: Arc<dyn Disk> = FakeDisk::new(false);
    let driver = Driver::new(blk(&disk));
    for chain in [
        vec![readable(HEADER, 16)],
        vec![readable(HEADER, 15), writable(STATUS, 1)],
    ] {
        let mut queues = driver.start(0, &[8]);
        put_header(&driver, IN, 0);
        queues[0].submit(&driver, &chain);
        driver.wait_for_needs_reset();
        assert_eq!(queues[0].take_used(&driver), None);
    }
    let mut queues = driver.start(0, &[8]);
    assert_eq!(request(&driver, &mut queues[0], FLUSH, 0, None), (0, 1));
}
