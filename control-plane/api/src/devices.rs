//! `spec.domain.devices`: disks, interfaces and what else is plugged in.

use crate::domain::FeatureState;
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
        /// Watchdog.
        pub watchdog: Option<Watchdog>,
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
        /// Host metrics for the guest, over a serial port.
        pub downward_metrics: Option<Presence>,
        /// Devices that report a guest's panic.
        pub panic_devices: Vec<PanicDevice>,
        /// Shared file systems.
        pub filesystems: Vec<Filesystem>,
        /// Devices of the host.
        pub host_devices: Vec<HostDevice>,
        /// USB redirection from a client.
        pub client_passthrough: Option<Presence>,
        /// Sound.
        pub sound: Option<Sound>,
        /// Trusted platform module.
        pub tpm: Option<Tpm>,
        /// Display adapter.
        pub video: Option<Video>,
    }

    /// A watchdog; one of its devices is set.
    pub struct Watchdog {
        /// Name.
        pub name: String,
        /// Intel's 6300ESB.
        pub i6300esb: Option<WatchdogDevice>,
        /// IBM Z's.
        pub diag288: Option<WatchdogDevice>,
    }

    /// What a watchdog does.
    pub struct WatchdogDevice {
        /// `reset` (default), `poweroff` or `shutdown`.
        pub action: String,
    }

    /// Sound.
    pub struct Sound {
        /// Name.
        pub name: String,
        /// `ich9` (default) or `ac97`.
        pub model: String,
    }

    /// A trusted platform module.
    pub struct Tpm {
        /// Whether it is there; `true` when unset.
        pub enabled: Option<bool>,
        /// Whether its state outlives the instance.
        pub persistent: Option<bool>,
    }

    /// A display adapter.
    pub struct Video {
        /// `virtio`, `vga`, `bochs` or another model.
        #[serde(rename = "type")]
        pub video_type: String,
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
        /// A binding plugin.
        pub binding: Option<PluginBinding>,
        /// Ports open to the pod network.
        pub ports: Vec<Port>,
        /// Port ranges open to the pod network.
        pub port_ranges: Vec<PortRange>,
        /// MAC address.
        pub mac_address: String,
        /// Place in the firmware's boot order, from 1.
        pub boot_order: Option<u32>,
        /// PCI address.
        pub pci_address: String,
        /// What DHCP hands out.
        pub dhcp_options: Option<DhcpOptions>,
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

    /// A binding that comes from outside.
    pub struct PluginBinding {
        /// Its name in the cluster's configuration.
        pub name: String,
    }

    /// What DHCP hands out.
    pub struct DhcpOptions {
        /// Boot file (option 67).
        pub boot_file_name: String,
        /// TFTP server (option 66).
        pub tftp_server_name: String,
        /// Time servers, IPv4 (option 42).
        pub ntp_servers: Vec<String>,
        /// Options for private use.
        pub private_options: Vec<DhcpPrivateOption>,
    }

    /// A DHCP option for private use.
    pub struct DhcpPrivateOption {
        /// Its number, from 224 to 254.
        pub option: Option<i32>,
        /// Its value.
        pub value: String,
    }

    /// Ports open to the pod network.
    pub struct PortRange {
        /// `TCP` or `UDP`.
        pub protocol: String,
        /// The first.
        pub start: Option<i32>,
        /// The last.
        pub end: Option<i32>,
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
        /// Options of its display.
        #[serde(rename = "virtualGPUOptions")]
        pub virtual_gpu_options: Option<GpuOptions>,
        /// Name in the metadata of cloud-init.
        pub tag: String,
        /// Claim of dynamic resource allocation.
        pub claim_name: String,
        /// Request in the claim.
        pub request_name: String,
    }

    /// Options of a graphics processor.
    pub struct GpuOptions {
        /// Its display.
        pub display: Option<GpuDisplay>,
    }

    /// The display of a graphics processor.
    pub struct GpuDisplay {
        /// Whether it is on; `true` when unset.
        pub enabled: Option<bool>,
        /// A frame buffer for the time before the guest's driver.
        #[serde(rename = "ramFB")]
        pub ram_fb: Option<FeatureState>,
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
