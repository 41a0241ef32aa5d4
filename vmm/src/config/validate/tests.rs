use std::path::PathBuf;

use block::CacheMode;

use super::*;
use crate::config::{
    Accel, ConsolePortConfig, DiskBus, DiskKind, DiskSource, ErrorPolicy, IoMode, SmbiosConfig,
};

fn machine() -> MachineConfig {
    MachineConfig {
        name: "test".to_owned(),
        cpus: CpuConfig {
            sockets: 1,
            cores: 2,
            threads: 1,
            model: None,
            features: Vec::new(),
        },
        memory: MemoryConfig {
            len_bytes: 256 << 20,
            hugepage_bytes: None,
            prefault: false,
            shared: false,
        },
        boot: BootSource::Kernel {
            kernel: PathBuf::from("vmlinuz"),
            initrd: None,
            cmdline: String::new(),
        },
        disks: Vec::new(),
        console_ports: Vec::new(),
        rng: true,
        pvpanic: true,
        smbios: SmbiosConfig::default(),
        accel: Accel::Auto,
        start_paused: false,
    }
}

fn disk(name: &str) -> DiskConfig {
    DiskConfig {
        name: name.to_owned(),
        bus: DiskBus::VirtioBlk,
        kind: DiskKind::Disk,
        source: DiskSource::Image {
            path: PathBuf::from("disk"),
            format: None,
            follow_backing: false,
        },
        read_only: false,
        serial: None,
        queues: 1,
        logical_block_bytes: 512,
        physical_block_bytes: 512,
        cache: CacheMode::Writeback,
        io: IoMode::Threads,
        discard: true,
        error_policy: ErrorPolicy::Report,
        io_thread: None,
        boot_order: None,
    }
}

/// The field that a changed machine is refused for.
fn refused_field(change: impl FnOnce(&mut MachineConfig)) -> String {
    let mut config = machine();
    change(&mut config);
    config.validate().unwrap_err().field
}

#[test]
fn a_plain_machine_is_accepted() {
    assert_eq!(machine().validate(), Ok(()));
}

#[test]
fn cpu_counts_outside_1_to_64_name_the_field() {
    assert_eq!(refused_field(|m| m.cpus.sockets = 0), "cpus");
    assert_eq!(refused_field(|m| m.cpus.cores = 65), "cpus");
    assert_eq!(refused_field(|m| m.cpus.threads = u32::MAX), "cpus");
}

#[test]
fn memory_sizes_that_cannot_be_name_the_field() {
    for len in [0, 1 << 20, (64 << 20) + 1, 2 << 40] {
        assert_eq!(
            refused_field(|m| m.memory.len_bytes = len),
            "memory.len_bytes"
        );
    }
    assert_eq!(
        refused_field(|m| m.memory.hugepage_bytes = Some(3 << 20)),
        "memory.hugepage_bytes"
    );
}

#[test]
fn disks_are_checked_one_by_one() {
    assert_eq!(
        refused_field(|m| m.disks = vec![disk("a"), disk("a")]),
        "disks[1].name"
    );
    let mut long = disk("a");
    long.serial = Some("x".repeat(21));
    assert_eq!(refused_field(|m| m.disks = vec![long]), "disks[0].serial");
    let mut odd = disk("a");
    odd.logical_block_bytes = 1024;
    assert_eq!(
        refused_field(|m| m.disks = vec![odd]),
        "disks[0].logical_block_bytes"
    );
    let mut none = disk("a");
    none.queues = 0;
    assert_eq!(refused_field(|m| m.disks = vec![none]), "disks[0].queues");
}

#[test]
fn drives_and_luns_are_on_the_scsi_bus_and_only_drives_are_empty() {
    for kind in [DiskKind::Cdrom, DiskKind::Lun] {
        let mut wrong = disk("a");
        wrong.kind = kind;
        assert_eq!(refused_field(|m| m.disks = vec![wrong]), "disks[0].kind");
    }
    let mut empty = disk("a");
    empty.source = DiskSource::Empty;
    empty.bus = DiskBus::VirtioScsi;
    let drive = DiskConfig {
        kind: DiskKind::Cdrom,
        serial: Some("x".repeat(36)),
        ..empty.clone()
    };
    assert_eq!(refused_field(|m| m.disks = vec![empty]), "disks[0].source");
    let mut config = machine();
    config.disks = vec![drive];
    assert_eq!(config.validate(), Ok(()));
}

#[test]
fn console_ports_need_names_of_their_own() {
    let port = ConsolePortConfig {
        name: "org.example".to_owned(),
        socket: PathBuf::from("s"),
    };
    assert_eq!(
        refused_field(|m| m.console_ports = vec![port.clone(), port]),
        "console_ports[1].name"
    );
}
