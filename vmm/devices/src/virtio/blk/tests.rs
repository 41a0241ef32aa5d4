use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use block::{Disk, Format, OpenOptions, create_empty, open};
use tempfile::TempDir;

use super::{Blk, BlkOptions, DiskAction, DiskEvent, ErrorPolicy};
use crate::lifecycle::Device;
use crate::virtio::disk::fake::FakeDisk;
use crate::virtio::driver::{BUFFERS_GPA, Driver, DriverQueue, EVENT_IDX, readable, writable};
use crate::virtio::thread::IoThread;

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

#[test]
fn a_disk_that_grew_is_told_by_a_configuration_change() {
    let fake = FakeDisk::new(false);
    let disk: Arc<dyn Disk> = Arc::clone(&fake) as Arc<dyn Disk>;
    let blk = blk(&disk);
    let handle = blk.handle();
    let driver = Driver::new(blk);
    let mut queues = driver.start(0, &[8]);
    let queue = &mut queues[0];
    assert_eq!(
        request(&driver, queue, IN, 2048, Some((512, true))),
        (1, 1),
        "past the end"
    );
    assert_eq!(handle.resize().unwrap(), 1 << 20);
    driver.interrupts.expect_messages(&[1]);
    fake.grows_to.store(2 << 20, Ordering::SeqCst);
    assert_eq!(handle.resize().unwrap(), 2 << 20);
    driver.interrupts.expect_messages(&[1, 0]);
    assert_eq!(driver.device_config::<8>(0), 4096u64.to_le_bytes());
    assert_eq!(
        request(&driver, queue, IN, 2048, Some((512, true))),
        (0, 513)
    );
}

#[test]
fn requests_are_whole_logical_blocks() {
    let disk: Arc<dyn Disk> = FakeDisk::new(false);
    let options = BlkOptions {
        logical_block_bytes: Some(4096),
        physical_block_bytes: Some(16384),
        ..BlkOptions::new("blk")
    };
    let driver = Driver::new(Arc::new(Blk::new(&disk, options)));
    assert_eq!(driver.device_config::<4>(20), 4096u32.to_le_bytes());
    assert_eq!(driver.device_config::<1>(24), [2], "physical_block_exp");
    assert_eq!(driver.device_config::<4>(44), 8u32.to_le_bytes());
    let mut queues = driver.start(0, &[8]);
    let mut ask = |kind, sector, len| {
        request(
            &driver,
            &mut queues[0],
            kind,
            sector,
            Some((len, kind == IN)),
        )
    };
    assert_eq!(ask(IN, 8, 4096), (0, 4097));
    assert_eq!(ask(IN, 4, 4096), (1, 1), "starts inside a block");
    assert_eq!(ask(OUT, 8, 512), (1, 1), "ends inside a block");
    driver.put(DATA, &range(8, 4, 0));
    assert_eq!(ask(DISCARD, 0, 16), (1, 1), "a part of a block");
}

#[test]
fn without_discard_zeroes_keep_their_room() {
    let fake = FakeDisk::new(false);
    let disk: Arc<dyn Disk> = Arc::clone(&fake) as Arc<dyn Disk>;
    let options = BlkOptions {
        discard: false,
        ..BlkOptions::new("blk")
    };
    let driver = Driver::new(Arc::new(Blk::new(&disk, options)));
    assert_eq!(driver.offered() & (1 << 13 | 1 << 14), 1 << 14);
    assert_eq!(driver.device_config::<1>(56), [0], "write_zeroes_may_unmap");
    let mut queues = driver.start(0, &[8]);
    let queue = &mut queues[0];
    driver.put(DATA, &range(0, 8, 0));
    assert_eq!(
        request(&driver, queue, DISCARD, 0, Some((16, false))),
        (2, 1)
    );
    driver.put(DATA, &range(0, 8, 1));
    assert_eq!(
        request(&driver, queue, WRITE_ZEROES, 0, Some((16, false))),
        (0, 1)
    );
    assert_eq!(fake.unmaps.load(Ordering::SeqCst), 0);
}

#[test]
fn requests_are_counted() {
    let fake = FakeDisk::new(false);
    let disk: Arc<dyn Disk> = Arc::clone(&fake) as Arc<dyn Disk>;
    let blk = blk(&disk);
    let handle = blk.handle();
    let counters = handle.counters();
    let driver = Driver::new(blk);
    let mut queues = driver.start(0, &[8]);
    let queue = &mut queues[0];
    assert_eq!(request(&driver, queue, IN, 0, Some((1024, true))).0, 0);
    assert_eq!(request(&driver, queue, IN, 0, Some((512, true))).0, 0);
    assert_eq!(request(&driver, queue, OUT, 0, Some((512, false))).0, 0);
    assert_eq!(request(&driver, queue, FLUSH, 0, None).0, 0);
    fake.fails.store(true, Ordering::SeqCst);
    assert_eq!(request(&driver, queue, OUT, 0, Some((512, false))).0, 1);
    let counts = counters.read();
    assert_eq!((counts.read_requests, counts.read_bytes), (2, 1536));
    assert_eq!((counts.write_requests, counts.write_bytes), (1, 512));
    assert_eq!((counts.flush_requests, counts.errors), (1, 1));
    assert!(counts.read_ns > 0 && counts.write_ns > 0 && counts.flush_ns > 0);
    assert_eq!(handle.capacity_bytes(), 1 << 20);
}

#[test]
fn disks_of_one_thread_stop_and_start_by_themselves() {
    let thread = IoThread::new("io1").unwrap();
    let device = |name: &str| {
        let fake = FakeDisk::new(false);
        let disk: Arc<dyn Disk> = fake;
        let options = BlkOptions {
            queues: 2,
            thread: Some(Arc::clone(&thread)),
            ..BlkOptions::new(name)
        };
        Driver::new(Arc::new(Blk::new(&disk, options)))
    };
    let (one, two) = (device("one"), device("two"));
    let mut queues = one.start(0, &[16, 16]);
    let mut others = two.start(0, &[16, 16]);
    for round in 0..50 {
        let answer = (0, 513);
        assert_eq!(
            request(&one, &mut queues[round % 2], IN, 1, Some((512, true))),
            answer
        );
        one.pci.pause();
        assert_eq!(
            request(&two, &mut others[1], IN, 1, Some((512, true))),
            answer
        );
        one.pci.resume();
    }
    drop(one);
    assert_eq!(request(&two, &mut others[0], FLUSH, 0, None), (0, 1));
}

#[test]
fn a_busy_disk_lets_another_of_its_thread_work_and_stop() {
    let thread = IoThread::new("io1").unwrap();
    let device = |name: &str| {
        let disk: Arc<dyn Disk> = FakeDisk::new(false);
        let options = BlkOptions {
            thread: Some(Arc::clone(&thread)),
            ..BlkOptions::new(name)
        };
        Driver::new(Arc::new(Blk::new(&disk, options)))
    };
    let (busy, calm) = (device("busy"), device("calm"));
    let mut queues = busy.start(0, &[256]);
    let mut others = calm.start(0, &[8]);
    put_header(&busy, IN, 0);
    let chain = [
        readable(HEADER, 16),
        writable(DATA, 0x8_0000),
        writable(STATUS, 1),
    ];
    for _ in 0..80 {
        let head = queues[0].put_chain(&busy, &chain);
        queues[0].offer(&busy, head);
    }
    busy.notify(0);
    assert_eq!(request(&calm, &mut others[0], FLUSH, 0, None), (0, 1));
    calm.pci.pause();
    busy.pci.pause();
    busy.pci.resume();
    for _ in 0..80 {
        queues[0].wait_used(&busy);
    }
}
