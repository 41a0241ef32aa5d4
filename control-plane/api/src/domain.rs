//! `spec.domain`: the machine itself.

use std::collections::BTreeMap;

use crate::clock::Clock;
use crate::devices::Devices;
use crate::hyperv::HyperV;
use crate::launch_security::LaunchSecurity;
use crate::object::{Presence, object};
use crate::quantity::Quantity;

object! {
    /// The machine.
    pub struct DomainSpec {
        /// What the pod asks of the node; sizes the machine where `cpu` and `memory` say nothing.
        pub resources: Resources,
        /// Processors.
        pub cpu: Option<Cpu>,
        /// Guest memory.
        pub memory: Option<Memory>,
        /// Machine type.
        pub machine: Option<Machine>,
        /// Firmware, kernel and identity.
        pub firmware: Option<Firmware>,
        /// Clock and timers.
        pub clock: Option<Clock>,
        /// Optional features.
        pub features: Option<Features>,
        /// Devices.
        pub devices: Devices,
        /// How disks share I/O threads.
        pub io_threads_policy: Option<String>,
        /// Threads that disks share where the policy asks for a pool.
        pub io_threads: Option<DiskIoThreads>,
        /// Chassis strings.
        pub chassis: Option<Chassis>,
        /// Confidential computing.
        pub launch_security: Option<LaunchSecurity>,
        /// What a reboot does.
        pub reboot_policy: Option<String>,
    }

    /// What the pod asks of the node.
    pub struct Resources {
        /// Amounts that are set aside.
        pub requests: BTreeMap<String, Quantity>,
        /// Amounts that are not exceeded.
        pub limits: BTreeMap<String, Quantity>,
        /// Whether guest memory takes all the pod's memory, leaving none for the overhead.
        pub overcommit_guest_overhead: Option<bool>,
    }

    /// Processors; `sockets * cores * threads` of them.
    pub struct Cpu {
        /// Cores per socket.
        pub cores: Option<u32>,
        /// Sockets.
        pub sockets: Option<u32>,
        /// Sockets that can be plugged while the machine runs.
        pub max_sockets: Option<u32>,
        /// Threads per core.
        pub threads: Option<u32>,
        /// CPU model, `host-model` or `host-passthrough`.
        pub model: String,
        /// Features switched on or off.
        pub features: Vec<CpuFeature>,
        /// Whether each processor has a host CPU of its own.
        pub dedicated_cpu_placement: Option<bool>,
        /// NUMA topology.
        pub numa: Option<Numa>,
        /// Whether emulation has a host CPU of its own.
        pub isolate_emulator_thread: Option<bool>,
        /// Real-time scheduling.
        pub realtime: Option<Realtime>,
    }

    /// NUMA topology.
    pub struct Numa {
        /// Whether the guest's topology follows the host processors that it got.
        pub guest_mapping_passthrough: Option<Presence>,
    }

    /// Real-time scheduling.
    pub struct Realtime {
        /// Which processors, `0-3,^1`; all of them when empty.
        pub mask: String,
    }

    /// Threads that disks share.
    pub struct DiskIoThreads {
        /// How many there are with the policy `supplementalPool`.
        pub supplemental_pool_thread_count: Option<u32>,
    }

    /// A CPU feature.
    pub struct CpuFeature {
        /// Name of the feature.
        pub name: String,
        /// `force`, `require` (default), `optional`, `disable` or `forbid`.
        pub policy: String,
    }

    /// Guest memory.
    pub struct Memory {
        /// Backing by huge pages.
        pub hugepages: Option<Hugepages>,
        /// Size that the guest sees.
        pub guest: Option<Quantity>,
        /// Size that can be plugged while the machine runs.
        pub max_guest: Option<Quantity>,
        /// Memory set aside beside the guest's.
        pub reserved_overhead: Option<ReservedOverhead>,
    }

    /// Memory of the pod beside the guest's that the machine asks for.
    pub struct ReservedOverhead {
        /// Bytes on top of the computed overhead.
        pub added_overhead: Option<Quantity>,
        /// Whether memory must be locked: `Required` or `NotRequired`.
        pub mem_lock: Option<String>,
    }

    /// Huge pages.
    pub struct Hugepages {
        /// Size of a page, `2Mi` or `1Gi`.
        pub page_size: Option<Quantity>,
    }

    /// Machine type.
    pub struct Machine {
        /// Name; `q35` when empty.
        #[serde(rename = "type")]
        pub machine_type: String,
    }

    /// Firmware, kernel and identity.
    pub struct Firmware {
        /// System UUID.
        pub uuid: String,
        /// Which firmware starts the machine.
        pub bootloader: Option<Bootloader>,
        /// System serial number.
        pub serial: String,
        /// A kernel that is started without firmware.
        pub kernel_boot: Option<KernelBoot>,
        /// ACPI tables from secrets.
        pub acpi: Option<AcpiTables>,
    }

    /// ACPI tables, by the volumes of the secrets that hold them.
    pub struct AcpiTables {
        /// Volume with the SLIC table.
        pub slic_name_ref: String,
        /// Volume with the MSDM table.
        pub msdm_name_ref: String,
    }

    /// Which firmware starts the machine.
    pub struct Bootloader {
        /// The traditional firmware.
        pub bios: Option<Bios>,
        /// UEFI.
        pub efi: Option<Efi>,
    }

    /// The traditional firmware.
    pub struct Bios {
        /// Whether the firmware talks on the serial port.
        pub use_serial: Option<bool>,
    }

    /// UEFI.
    pub struct Efi {
        /// Whether unsigned code is refused; `true` when unset.
        pub secure_boot: Option<bool>,
        /// Whether variables are kept.
        pub persistent: Option<bool>,
    }

    /// A kernel that is started without firmware.
    pub struct KernelBoot {
        /// Kernel command line.
        pub kernel_args: String,
        /// Where kernel and initial RAM disk are.
        pub container: Option<KernelBootContainer>,
    }

    /// A container image that holds a kernel.
    pub struct KernelBootContainer {
        /// Name of the container image.
        pub image: String,
        /// Secret for the registry.
        pub image_pull_secret: String,
        /// When the image is fetched.
        pub image_pull_policy: String,
        /// Path of the kernel in the image.
        pub kernel_path: String,
        /// Path of the initial RAM disk in the image.
        pub initrd_path: String,
    }

    /// Optional features.
    pub struct Features {
        /// ACPI; on unless switched off.
        pub acpi: Option<FeatureState>,
        /// Local APIC.
        pub apic: Option<ApicFeature>,
        /// All Hyper-V enlightenments of the host.
        pub hyperv_passthrough: Option<HyperVPassthrough>,
        /// Hyper-V enlightenments.
        pub hyperv: Option<HyperV>,
        /// System management mode.
        pub smm: Option<FeatureState>,
        /// How KVM shows itself.
        pub kvm: Option<KvmFeature>,
        /// Paravirtual spin locks.
        pub pvspinlock: Option<FeatureState>,
    }

    /// All Hyper-V enlightenments of the host.
    pub struct HyperVPassthrough {
        /// Whether they are on.
        pub enabled: Option<bool>,
    }

    /// A feature that is on unless switched off.
    pub struct FeatureState {
        /// Whether the feature is on; `true` when unset.
        pub enabled: Option<bool>,
    }

    /// Local APIC.
    pub struct ApicFeature {
        /// Whether it is present; `true` when unset.
        pub enabled: Option<bool>,
        /// Whether guests may signal end of interrupt without an exit.
        pub end_of_interrupt: Option<bool>,
    }

    /// How KVM shows itself.
    pub struct KvmFeature {
        /// Whether the guest must not see it.
        pub hidden: Option<bool>,
    }

    /// Chassis strings (SMBIOS type 3).
    pub struct Chassis {
        /// Manufacturer.
        pub manufacturer: String,
        /// Version.
        pub version: String,
        /// Serial number.
        pub serial: String,
        /// Asset tag.
        pub asset: String,
        /// Stock keeping unit.
        pub sku: String,
    }
}

impl Resources {
    /// Returns the limit of a resource, else its request.
    pub fn limit_or_request(&self, resource: &str) -> Option<&Quantity> {
        self.limits
            .get(resource)
            .or_else(|| self.requests.get(resource))
    }
}
