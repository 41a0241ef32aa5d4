//! `spec.domain.devices`: disks, interfaces and what else is plugged in.

use serde_json::Value;

use crate::object::{Presence, object};

object! {
    /// What is plugged into the machine.
    pub struct Devices {
        /// Whether transitional virtio devices are wanted, for old guests.
        pub use_virtio_transitional: Option<bool>,
        /// Whether plugging while the machine runs is off.
        pub disable_hotplug: Option<bool>,
        /// Disks.
        pub disks: Vec<Disk>,
        /// Watchdog (untyped).
        pub watchdog: Option<Value>,
        /// Network interfaces.
        pub interfaces: Vec<Interface>,
        /// Input devices.
        pub inputs: Vec<Input>,
        /// Whether a default interface is added; `true` when unset.
        pub autoattach_pod_interface: Option<bool>,
        /// Whether a display is added; `true` when unset.
        pub autoattach_graphics_device: Option<bool>,
        /// Whether the serial console is added; `true` when unset.
        pub autoattach_serial_console: Option<bool>,
        /// Whether the serial console is logged.
        pub log_serial_console: Option<bool>,
        /// Whether a memory balloon is added; `true` when unset.
        pub autoattach_mem_balloon: Option<bool>,
        /// Whether an input device is added.
        pub autoattach_input_device: Option<bool>,
        /// Whether a vsock device is added.
        #[serde(rename = "autoattachVSOCK")]
        pub autoattach_vsock: Option<bool>,
        /// An entropy device.
        pub rng: Option<Presence>,
        /// Whether disks have a queue per processor.
        pub block_multi_queue: Option<bool>,
        /// Whether interfaces have a queue per processor.
        pub network_interface_multiqueue: Option<bool>,
        /// Graphics processors of the host.
        #[serde(rename = "gpus")]
        pub gpus: Vec<Gpu>,
        /// Host metrics for the guest (untyped).
        pub downward_metrics: Option<Value>,
        /// Devices that report a guest's panic.
        pub panic_devices: Vec<PanicDevice>,
        /// Shared file systems.
        pub filesystems: Vec<Filesystem>,
        /// Devices of the host.
        pub host_devices: Vec<HostDevice>,
        /// USB redirection from a client (untyped).
        pub client_passthrough: Option<Value>,
        /// Sound (untyped).
        pub sound: Option<Value>,
        /// Trusted platform module (untyped).
        pub tpm: Option<Value>,
        /// Display adapter (untyped).
        pub video: Option<Value>,
    }

    /// A disk; at most one of `disk`, `lun` and `cdrom` is set.
    pub struct Disk {
        /// Name of the disk and of its volume.
        pub name: String,
        /// Place in the firmware's boot order, from 1.
        pub boot_order: Option<u32>,
        /// Serial number that the guest reads.
        pub serial: String,
        /// Whether the disk has an I/O thread of its own.
        #[serde(rename = "dedicatedIOThread")]
        pub dedicated_io_thread: Option<bool>,
        /// Host page cache use: `none`, `writethrough` or `writeback`.
        pub cache: String,
        /// Host I/O interface: `native`, `threads` or `default`.
        pub io: String,
        /// Name in the metadata of cloud-init.
        pub tag: String,
        /// Sector sizes.
        pub block_size: Option<BlockSize>,
        /// Whether several machines may write at once.
        pub shareable: Option<bool>,
        /// What an I/O error does.
        pub error_policy: Option<String>,
        /// Changed block tracking.
        pub changed_block_tracking: Option<bool>,
        /// A hard disk.
        pub disk: Option<DiskTarget>,
        /// A passed-through SCSI unit.
        pub lun: Option<LunTarget>,
        /// A CD-ROM drive.
        pub cdrom: Option<CdRomTarget>,
    }

    /// A hard disk.
    pub struct DiskTarget {
        /// `virtio`, `sata`, `scsi` or `usb`.
        pub bus: String,
        /// Whether the guest may only read.
        pub readonly: Option<bool>,
        /// PCI address, `0000:00:05.0`.
        pub pci_address: String,
    }

    /// A CD-ROM drive.
    pub struct CdRomTarget {
        /// `sata` or `scsi`.
        pub bus: String,
        /// Whether the guest may only read; `true` when unset.
        pub readonly: Option<bool>,
        /// `open` or `closed` (default).
        pub tray: String,
    }

    /// A passed-through SCSI unit.
    pub struct LunTarget {
        /// `scsi`.
        pub bus: String,
        /// Whether the guest may only read.
        pub readonly: Option<bool>,
        /// Whether persistent reservations pass through.
        pub reservation: Option<bool>,
    }

    /// Sector sizes of a disk.
    pub struct BlockSize {
        /// Sizes given by number.
        pub custom: Option<CustomBlockSize>,
        /// Whether the volume's sizes are taken over.
        pub match_volume: Option<MatchVolume>,
    }

    /// Sector sizes given by number.
    pub struct CustomBlockSize {
        /// Logical sector, bytes.
        pub logical: Option<u32>,
        /// Physical sector, bytes.
        pub physical: Option<u32>,
        /// Granularity of discards, bytes.
        pub discard_granularity: Option<u32>,
    }

    /// Whether the volume's sector sizes are taken over.
    pub struct MatchVolume {
        /// `true` when unset.
        pub enabled: Option<bool>,
    }

    /// A network interface; at most one binding is set.
    pub struct Interface {
        /// Name of the interface and of its network.
        pub name: String,
        /// `virtio` (default) or an emulated card.
        pub model: String,
        /// A binding plugin (untyped).
        pub binding: Option<Value>,
        /// Ports open to the pod network.
        pub ports: Vec<Port>,
        /// Port ranges open to the pod network (untyped).
        pub port_ranges: Vec<Value>,
        /// MAC address.
        pub mac_address: String,
        /// Place in the firmware's boot order, from 1.
        pub boot_order: Option<u32>,
        /// PCI address.
        pub pci_address: String,
        /// What DHCP hands out (untyped).
        pub dhcp_options: Option<Value>,
        /// Name in the metadata of cloud-init.
        pub tag: String,
        /// Number in the guest's interface name.
        pub acpi_index: Option<u32>,
        /// `up`, `down` or `absent`.
        pub state: String,
        /// Bridge to the network.
        pub bridge: Option<Presence>,
        /// User-mode network of old releases.
        pub slirp: Option<Presence>,
        /// Address translation behind the pod.
        pub masquerade: Option<Presence>,
        /// A virtual function of the host.
        pub sriov: Option<Presence>,
        /// macvtap of old releases.
        pub macvtap: Option<Presence>,
        /// passt of old releases.
        pub passt: Option<Presence>,
        /// passt.
        pub passt_binding: Option<Presence>,
    }

    /// A port open to the pod network.
    pub struct Port {
        /// Name.
        pub name: String,
        /// `TCP` (default) or `UDP`.
        pub protocol: String,
        /// Number.
        pub port: Option<i32>,
    }

    /// An input device.
    pub struct Input {
        /// Name.
        pub name: String,
        /// `tablet`.
        #[serde(rename = "type")]
        pub input_type: String,
        /// `usb` or `virtio`.
        pub bus: String,
    }

    /// A graphics processor of the host.
    pub struct Gpu {
        /// Name.
        pub name: String,
        /// Resource name of the device plugin.
        pub device_name: String,
        /// Display options (untyped).
        #[serde(rename = "virtualGPUOptions")]
        pub virtual_gpu_options: Option<Value>,
        /// Name in the metadata of cloud-init.
        pub tag: String,
        /// Claim of dynamic resource allocation.
        pub claim_name: String,
        /// Request in the claim.
        pub request_name: String,
    }

    /// A device of the host.
    pub struct HostDevice {
        /// Name.
        pub name: String,
        /// Resource name of the device plugin.
        pub device_name: String,
        /// Name in the metadata of cloud-init.
        pub tag: String,
        /// Claim of dynamic resource allocation.
        pub claim_name: String,
        /// Request in the claim.
        pub request_name: String,
    }

    /// A device that reports a guest's panic.
    pub struct PanicDevice {
        /// `isa`, `hyperv` or `pvpanic`.
        pub model: Option<String>,
    }

    /// A shared file system.
    pub struct Filesystem {
        /// Name of the file system, of its tag and of its volume.
        pub name: String,
        /// virtio-fs.
        pub virtiofs: Option<Presence>,
    }
}
