use vm_memory::{Bytes, GuestAddress};

use super::{DATA, DMA, FwCfg, FwCfgError, FwCfgItems, SELECTOR, key};
use crate::bus::PortIo;
use crate::memory::GuestMemory;

const MEMORY_BYTES: usize = 0x40_0000;
const REQUEST: u64 = 0x1000;

fn device() -> (FwCfg, GuestMemory) {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap();
    let mut items = FwCfgItems::new();
    items.set(key::CPUS, 2u16.to_le_bytes());
    items.add_file("etc/e820", [1, 2, 3, 4]).unwrap();
    items.add_file("bootorder", *b"/pci").unwrap();
    (FwCfg::new(items, memory.clone()), memory)
}

fn read(device: &FwCfg, key: u16, len: usize) -> Vec<u8> {
    device.port_write(SELECTOR, &key.to_le_bytes());
    (0..len)
        .map(|_| {
            let mut byte = [0];
            device.port_read(DATA, &mut byte);
            byte[0]
        })
        .collect()
}

/// Runs a transfer; returns the control word that the device leaves.
fn dma(device: &FwCfg, memory: &GuestMemory, control: u32, len: u32, gpa: u64) -> u32 {
    let mut request = [0; 16];
    request[..4].copy_from_slice(&control.to_be_bytes());
    request[4..8].copy_from_slice(&len.to_be_bytes());
    request[8..].copy_from_slice(&gpa.to_be_bytes());
    memory.write_slice(&request, GuestAddress(REQUEST)).unwrap();
    device.port_write(DMA, &0u32.to_be_bytes());
    device.port_write(DMA + 4, &u32::try_from(REQUEST).unwrap().to_be_bytes());
    let mut control = [0; 4];
    memory
        .read_slice(&mut control, GuestAddress(REQUEST))
        .unwrap();
    u32::from_be_bytes(control)
}

#[test]
fn items_are_read_byte_by_byte_and_end_in_zeroes() {
    let (device, _) = device();
    assert_eq!(read(&device, key::SIGNATURE, 5), b"QEMU\0");
    assert_eq!(read(&device, key::ID, 4), [3, 0, 0, 0]);
    assert_eq!(read(&device, key::CPUS, 3), [2, 0, 0]);
    assert_eq!(read(&device, 0x7777, 2), [0, 0]);
}

#[test]
fn the_directory_lists_files_by_name() {
    let (device, _) = device();
    let directory = read(&device, key::FILE_DIRECTORY, 4 + 2 * 64);
    assert_eq!(directory[..4], [0, 0, 0, 2]);
    assert_eq!(directory[4..12], [0, 0, 0, 4, 0, 0x20, 0, 0]);
    assert_eq!(&directory[12..22], b"bootorder\0");
    assert_eq!(&directory[76..84], b"etc/e820");
    assert_eq!(read(&device, 0x21, 4), [1, 2, 3, 4]);
}

#[test]
fn the_dma_register_tells_its_presence() {
    let (device, _) = device();
    let mut data = [0; 4];
    device.port_read(DMA, &mut data);
    assert_eq!(&data, b"QEMU");
    device.port_read(DMA + 4, &mut data);
    assert_eq!(&data, b" CFG");
}

#[test]
fn a_transfer_selects_skips_and_reads() {
    let (device, memory) = device();
    assert_eq!(dma(&device, &memory, 0x0021_000c, 1, 0), 0);
    assert_eq!(dma(&device, &memory, 0x2, 5, 0x2000), 0);
    let mut data = [9; 6];
    memory.read_slice(&mut data, GuestAddress(0x2000)).unwrap();
    assert_eq!(data, [2, 3, 4, 0, 0, 0]);
}

#[test]
fn bad_transfers_end_in_an_error() {
    let (device, memory) = device();
    let end = u64::try_from(MEMORY_BYTES).unwrap();
    assert_eq!(dma(&device, &memory, 0x0021_000a, 4, end - 2), 1);
    assert_eq!(dma(&device, &memory, 0x0021_000a, 4, u64::MAX), 1);
    assert_eq!(dma(&device, &memory, 0x0021_000a, u32::MAX, 0), 1);
    assert_eq!(dma(&device, &memory, 0x0021_0018, 4, 0x2000), 1);
    device.port_write(DMA, &u32::MAX.to_be_bytes());
    device.port_write(DMA + 4, &u32::MAX.to_be_bytes());
}

#[test]
fn unusable_files_are_refused() {
    let mut items = FwCfgItems::new();
    items.add_file("a", []).unwrap();
    let name = "a".to_owned();
    assert_eq!(items.add_file("a", []), Err(FwCfgError::Duplicate { name }));
    assert!(matches!(
        items.add_file("", []),
        Err(FwCfgError::Name { .. })
    ));
    assert!(matches!(
        items.add_file(&"x".repeat(56), []),
        Err(FwCfgError::Name { .. })
    ));
    for file in 1..256 {
        items.add_file(&format!("file{file}"), []).unwrap();
    }
    assert!(matches!(
        items.add_file("one-more", []),
        Err(FwCfgError::Full { .. })
    ));
}
