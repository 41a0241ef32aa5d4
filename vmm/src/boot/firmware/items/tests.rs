use super::*;
use crate::config::{DiskBus, DiskKind, DiskSource, ErrorPolicy, IoMode};

fn disk(name: &str, bus: DiskBus, boot_order: Option<u32>) -> DiskConfig {
    DiskConfig {
        name: name.to_owned(),
        bus,
        kind: DiskKind::Disk,
        source: DiskSource::Empty,
        read_only: false,
        serial: None,
        queues: 1,
        logical_block_bytes: 512,
        physical_block_bytes: 512,
        cache: block::CacheMode::Writeback,
        io: IoMode::Threads,
        discard: true,
        error_policy: ErrorPolicy::Report,
        io_thread: None,
        boot_order,
    }
}

#[test]
fn numbered_disks_are_tried_before_the_others() {
    let disks = [
        disk("a", DiskBus::VirtioBlk, None),
        disk("b", DiskBus::VirtioScsi, Some(2)),
        disk("c", DiskBus::VirtioBlk, Some(1)),
        disk("d", DiskBus::VirtioScsi, None),
    ];
    let expected = "/pci@i0cf8/scsi@4/disk@0,0\n\
        /pci@i0cf8/scsi@1b/channel@0/disk@0,0\n\
        /pci@i0cf8/scsi@3/disk@0,0\n\
        /pci@i0cf8/scsi@1b/channel@0/disk@1,0\0";
    assert_eq!(String::from_utf8(boot_order(&disks)).unwrap(), expected);
}

#[test]
fn without_disks_nothing_is_tried() {
    assert_eq!(boot_order(&[]), [0]);
}
