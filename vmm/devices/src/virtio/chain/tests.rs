use std::sync::{Arc, Mutex};

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestRegionMmap};

use super::{Segment, Segments};
use crate::memory::{GuestMemory, WriteLog, WriteSink};
use crate::virtio::Rng;
use crate::virtio::driver::{BUFFERS_GPA, Driver, writable};

const PROT_READ_WRITE: i32 = 0x3;
const MAP_PRIVATE_ANONYMOUS: i32 = 0x22;

type Parts<'a> = &'a [(u64, usize)];

fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap()
}

fn segments(parts: Parts<'_>) -> Segments {
    let parts = parts
        .iter()
        .map(|&(gpa, len_bytes)| Segment { gpa, len_bytes });
    parts.fold(Segments::default(), Segments::with)
}

#[test]
fn scattered_bytes_are_one_range() {
    let memory = memory();
    let range = segments(&[(0x100, 3), (0x900, 0), (0x200, 4), (0x80, 2)]);
    assert_eq!(range.len_bytes(), 9);
    range.write(&memory, 1, b"bcdefgh").unwrap();
    range.write(&memory, 0, b"a").unwrap();
    range.write(&memory, 8, b"i").unwrap();
    let mut all = [0; 9];
    range.read(&memory, 0, &mut all).unwrap();
    assert_eq!(&all, b"abcdefghi");
    let mut middle = [0; 3];
    range.read(&memory, 2, &mut middle).unwrap();
    assert_eq!(&middle, b"cde");
}

#[test]
fn accesses_past_the_end_are_refused() {
    let memory = memory();
    let range = segments(&[(0x100, 3), (0x200, 4)]);
    assert!(range.read(&memory, 0, &mut [0; 8]).is_err());
    assert!(range.write(&memory, 7, &[0]).is_err());
    assert!(range.write(&memory, usize::MAX, &[0]).is_err());
    assert!(range.write(&memory, 7, &[]).is_ok());
}

#[test]
fn ranges_are_cut_anywhere() {
    let parts = [(0x100, 3), (0x200, 4)];
    let cases: [(usize, Parts<'_>, Parts<'_>); 5] = [
        (0, &[], &parts),
        (2, &[(0x100, 2)], &[(0x102, 1), (0x200, 4)]),
        (3, &[(0x100, 3)], &[(0x200, 4)]),
        (6, &[(0x100, 3), (0x200, 3)], &[(0x203, 1)]),
        (99, &parts, &[]),
    ];
    for (at, front, back) in cases {
        let mut range = segments(&parts);
        let tail = range.split_off(at);
        assert_eq!(
            (range, tail),
            (segments(front), segments(back)),
            "cut at {at}"
        );
    }
}

#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<(u64, usize)>>);

impl WriteSink for Recorder {
    fn written(&self, gpa: u64, len_bytes: usize) {
        self.0.lock().unwrap().push((gpa, len_bytes));
    }
}

#[test]
fn every_write_into_guest_memory_is_logged() {
    let sink = Arc::new(Recorder::default());
    let log = WriteLog::new(0, Arc::clone(&sink) as Arc<dyn WriteSink>);
    let mapping = MmapRegionBuilder::new_with_bitmap(4 << 20, log)
        .with_mmap_prot(PROT_READ_WRITE)
        .with_mmap_flags(MAP_PRIVATE_ANONYMOUS)
        .build()
        .unwrap();
    let region = GuestRegionMmap::new(mapping, GuestAddress(0)).unwrap();
    let memory = GuestMemory::from_regions(vec![region]).unwrap();
    let driver = Driver::with_memory(Arc::new(Rng), memory);
    let mut queues = driver.start(0, &[8]);
    let head = queues[0].put_chain(&driver, &[writable(BUFFERS_GPA, 40)]);
    queues[0].offer(&driver, head);
    sink.0.lock().unwrap().clear();
    driver.notify(0);
    queues[0].wait_used(&driver);
    let written = sink.0.lock().unwrap().clone();
    assert!(written.contains(&(BUFFERS_GPA, 40)), "data: {written:x?}");
    let element = queues[0].used_gpa + 4;
    assert!(
        written.contains(&(element, 8)),
        "used element: {written:x?}"
    );
    let index = queues[0].used_gpa + 2;
    assert!(written.contains(&(index, 2)), "used index: {written:x?}");
}
