//! What a machine is made of. Plain data: whoever builds a machine (the `vmm` command, virt-launcher)
//! fills it in, [`MachineConfig::validate`] checks it, and nothing below re-checks.

mod validate;

use std::path::PathBuf;

use block::{CacheMode, Format};

pub use validate::ConfigError;

/// One machine.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineConfig {
    /// Name in logs and thread names.
    pub name: String,
    /// Processors.
    pub cpus: CpuConfig,
    /// Guest RAM.
    pub memory: MemoryConfig,
    /// What runs first.
    pub boot: BootSource,
    /// Block devices, in PCI slot order.
    pub disks: Vec<DiskConfig>,
    /// virtio-console ports beside the serial port, by name (virtio 1.3 §5.3).
    pub console_ports: Vec<ConsolePortConfig>,
    /// Whether a virtio entropy device is present (virtio 1.3 §5.4).
    pub rng: bool,
    /// Whether a pvpanic device is present.
    pub pvpanic: bool,
    /// Identity that the guest reads from SMBIOS.
    pub smbios: SmbiosConfig,
    /// Which CPU back end runs the machine.
    pub accel: Accel,
    /// Whether the machine waits, paused, for [`crate::machine::MachineHandle::resume`] before its guest's first
    /// instruction.
    pub start_paused: bool,
}

/// The processors of a machine. `sockets * cores * threads` vCPUs, 1 to 64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuConfig {
    /// Sockets.
    pub sockets: u32,
    /// Cores per socket.
    pub cores: u32,
    /// Threads per core.
    pub threads: u32,
    /// Named CPU model; `None` is the back end's default.
    pub model: Option<String>,
    /// Feature names to switch on (`true`) or off (`false`) on top of the model.
    pub features: Vec<(String, bool)>,
}

/// Guest RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Size in bytes, a multiple of 1 MiB.
    pub len_bytes: u64,
    /// Huge page size in bytes when RAM comes from hugetlbfs.
    pub hugepage_bytes: Option<u64>,
    /// Touch every page before the guest runs.
    pub prefault: bool,
    /// Back RAM by a memfd that another process can map (vhost-user, VFIO); private anonymous otherwise.
    pub shared: bool,
}

/// What a machine starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootSource {
    /// A Linux bzImage or an ELF kernel with a PVH note, loaded by us.
    Kernel {
        /// Kernel file.
        kernel: PathBuf,
        /// Initial RAM disk.
        initrd: Option<PathBuf>,
        /// Kernel command line.
        cmdline: String,
    },
    /// A firmware image mapped below 4 GiB and started at the reset vector. SeaBIOS boots from the disks, and talks on
    /// the serial port.
    Firmware {
        /// Image file, a multiple of 4 KiB, at most 16 MiB.
        image: PathBuf,
    },
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// Name in logs and events.
    pub name: String,
    /// What connects it with the guest.
    pub bus: DiskBus,
    /// What the guest takes it for.
    pub kind: DiskKind,
    /// Where its data live.
    pub source: DiskSource,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// Serial number: the `VIRTIO_BLK_T_GET_ID` answer, at most 20 bytes, or the unit serial number page of SCSI.
    pub serial: Option<String>,
    /// Number of request queues, at least 1; the queues of a SCSI controller are as many as its disk with the most.
    pub queues: u16,
    /// Logical block size in bytes (512 or 4096).
    pub logical_block_bytes: u32,
    /// Physical block size in bytes.
    pub physical_block_bytes: u32,
    /// Host page cache use.
    pub cache: CacheMode,
    /// How requests reach the host.
    pub io: IoMode,
    /// Whether the guest may give room back to the host.
    pub discard: bool,
    /// What becomes of a request that the host refused.
    pub error_policy: ErrorPolicy,
    /// Disks with the same number share one worker thread; `None` has threads of its own.
    pub io_thread: Option<u16>,
    /// Place in the firmware's boot order, lowest first; `None` comes after every numbered disk, in slot
    /// order. Without effect under [`BootSource::Kernel`].
    pub boot_order: Option<u32>,
}

/// What connects a disk with the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskBus {
    /// A virtio block device of its own (virtio 1.3 §5.2).
    #[default]
    VirtioBlk,
    /// A target of the machine's one virtio SCSI controller (virtio 1.3 §5.6).
    VirtioScsi,
}

/// What the guest takes a disk for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskKind {
    /// A disk.
    #[default]
    Disk,
    /// A CD-ROM drive, whose medium can be changed; on [`DiskBus::VirtioScsi`] only.
    Cdrom,
    /// A disk that the guest may send any SCSI command to; on [`DiskBus::VirtioScsi`] only.
    Lun,
}

/// What becomes of a disk request that the host refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorPolicy {
    /// The guest gets an I/O error.
    #[default]
    Report,
    /// The machine is paused, and the request is tried again when it is resumed.
    Stop,
    /// The guest is told that all is well.
    Ignore,
    /// As [`ErrorPolicy::Stop`] when the host has no space left, else [`ErrorPolicy::Report`].
    StopOnEnospc,
}

/// How requests reach the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoMode {
    /// Threads that make one call after the other.
    #[default]
    Threads,
    /// As [`IoMode::Threads`] today: the name is kept for configurations that ask for the host's native interface.
    Native,
}

/// Where a disk's data live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskSource {
    /// An image used as it is.
    Image {
        /// Image file or block device.
        path: PathBuf,
        /// Its format; probed safely when `None`.
        format: Option<Format>,
        /// Whether a backing file named in the image may be opened.
        follow_backing: bool,
    },
    /// An image that stays unchanged, with the guest's writes in a file of their own.
    Overlay {
        /// The unchanged image.
        base: PathBuf,
        /// Its format; probed safely when `None`.
        base_format: Option<Format>,
        /// Where the writes go, and what was written before is; created when absent.
        overlay: PathBuf,
    },
    /// A CD-ROM drive without a medium.
    Empty,
}

/// One port of the virtio console, reachable as a Unix socket on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsolePortConfig {
    /// Port name in the guest (`/dev/virtio-ports/NAME`).
    pub name: String,
    /// Socket on which the host side listens.
    pub socket: PathBuf,
}

/// SMBIOS strings; empty strings are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SmbiosConfig {
    /// System manufacturer (type 1).
    pub manufacturer: String,
    /// System product name (type 1).
    pub product: String,
    /// System version (type 1).
    pub version: String,
    /// System serial number (type 1).
    pub serial: String,
    /// System UUID (type 1) as 16 bytes in RFC 4122 order.
    pub uuid: Option<[u8; 16]>,
    /// System SKU (type 1).
    pub sku: String,
    /// System family (type 1).
    pub family: String,
    /// Chassis strings (type 3): manufacturer, version, serial, asset tag, SKU.
    pub chassis: [String; 5],
    /// OEM strings (type 11).
    pub oem: Vec<String>,
}

/// Which CPU back end runs a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accel {
    /// KVM where the probe finds it usable, the software CPU elsewhere.
    #[default]
    Auto,
    /// KVM, whatever the probe says; an error where there is none.
    Kvm,
    /// The software CPU.
    Soft,
}
