use std::sync::{Arc, Mutex};

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestRegionMmap};

use super::{GuestMemory, WriteLog, WriteSink};

const PROT_READ_WRITE: i32 = 0x3;
const MAP_PRIVATE_ANONYMOUS: i32 = 0x22;

#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<(u64, usize)>>);

impl WriteSink for Recorder {
    fn written(&self, gpa: u64, len_bytes: usize) {
        self.0.lock().unwrap().push((gpa, len_bytes));
    }
}

fn memory(base_gpa: u64, sink: Arc<Recorder>) -> GuestMemory {
    let mapping = MmapRegionBuilder::new_with_bitmap(0x4000, WriteLog::new(base_gpa, sink))
        .with_mmap_prot(PROT_READ_WRITE)
        .with_mmap_flags(MAP_PRIVATE_ANONYMOUS)
        .build()
        .unwrap();
    let region = GuestRegionMmap::new(mapping, GuestAddress(base_gpa)).unwrap();
    GuestMemory::from_regions(vec![region]).unwrap()
}

#[test]
fn writes_are_reported_with_their_guest_physical_address() {
    let sink = Arc::new(Recorder::default());
    let memory = memory(0x10_0000, Arc::clone(&sink));
    memory
        .write_slice(&[1, 2, 3], GuestAddress(0x10_1ffe))
        .unwrap();
    memory.write_obj(7u32, GuestAddress(0x10_0004)).unwrap();
    assert_eq!(*sink.0.lock().unwrap(), [(0x10_1ffe, 3), (0x10_0004, 4)]);
}

#[test]
fn slices_of_slices_keep_the_address_and_reads_report_nothing() {
    let sink = Arc::new(Recorder::default());
    let memory = memory(0x8000, Arc::clone(&sink));
    let slice = memory.get_slice(GuestAddress(0x9000), 0x100).unwrap();
    slice
        .subslice(0x10, 0x20)
        .unwrap()
        .write_slice(&[9; 4], 2)
        .unwrap();
    let _word: u32 = memory.read_obj(GuestAddress(0x9000)).unwrap();
    assert_eq!(*sink.0.lock().unwrap(), [(0x9012, 4)]);
}
