//! What a launcher says of its machine: the JSON in `GetDomain` and in domain events.
//!
//! KubeVirt's handler decodes a Go structure without tags, so the keys are Go's field names. Encoding
//! uses exactly those. Parsing tolerates keys that are not known here, takes what is missing as empty,
//! and `null` for a list as an empty list, which is how Go writes one that was never made.
//!
//! The reader trusts the writer with nothing: a launcher shares its pod with the guest's code. The length
//! of a text is bounded by the message it came in ([`crate::MESSAGE_LEN_MAX_BYTES`]), the nesting by
//! `serde_json`, a list by 4096 entries. Every string is as long as the writer liked and holds what it
//! liked: check it before it goes into a status.

use serde::{Deserialize, Deserializer, Serialize};

use crate::list;

mod devices;
mod metadata;
mod state;

pub use devices::{
    Address, Alias, Channel, ChannelSource, ChannelTarget, Devices, Disk, DiskSource, DiskTarget,
    HostDevice, HostDeviceSource, Interface, InterfaceDriver, InterfaceModel, InterfaceSource,
    InterfaceTarget, LinkState, Mac, Present,
};
pub use metadata::{
    AccessCredential, GracePeriod, KubeVirtMetadata, MemoryDump, Metadata, Migration,
};
pub use state::{LifeCycle, StateChangeReason};

#[cfg(test)]
mod tests;

/// The `kind` of a domain.
pub const KIND: &str = "Domain";

/// The `apiVersion` of a domain. It is a constant without meaning on both sides.
pub const API_VERSION: &str = "1.2.2";

/// A machine as its launcher sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Domain {
    /// Holds [`KIND`].
    pub kind: String,
    /// Holds [`API_VERSION`].
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// Whose machine this is.
    #[serde(rename = "ObjectMeta")]
    pub meta: ObjectMeta,
    /// What the machine is made of.
    #[serde(rename = "Spec")]
    pub spec: DomainSpec,
    /// How the machine is.
    #[serde(rename = "Status")]
    pub status: DomainStatus,
}

impl Domain {
    /// Makes the domain of the named machine, in no state yet. The domain's own name is
    /// `<namespace>_<name>`, as in libvirt under KubeVirt.
    #[must_use]
    pub fn new(namespace: &str, name: &str, uid: &str) -> Self {
        let mut domain = Self {
            kind: KIND.to_owned(),
            api_version: API_VERSION.to_owned(),
            ..Self::default()
        };
        domain.meta.name = name.to_owned();
        domain.meta.namespace = namespace.to_owned();
        domain.meta.uid = uid.to_owned();
        domain.spec.name = format!("{namespace}_{name}");
        domain.spec.metadata.kubevirt.uid = uid.to_owned();
        domain
    }

    /// Parses a domain; an empty text is a launcher's way to say that it has none.
    ///
    /// # Errors
    /// Fails when the text is no JSON, ends early, or has a value of another kind than its key asks for.
    pub fn from_json(json: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        if json.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(json).map(Some)
    }

    /// Whether the guest's agent holds its end of the agent channel open.
    #[must_use]
    pub fn agent_connected(&self) -> bool {
        let channels = self.spec.devices.channels.iter();
        channels
            .filter_map(|channel| channel.target.as_ref())
            .any(|target| {
                target.name == ChannelTarget::GUEST_AGENT
                    && target.state == ChannelTarget::CONNECTED
            })
    }
}

/// Whose machine a domain is: the part of Kubernetes' object metadata that is filled in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectMeta {
    /// Name of the VirtualMachineInstance.
    pub name: String,
    /// Namespace of the VirtualMachineInstance.
    pub namespace: String,
    /// UID of the VirtualMachineInstance.
    pub uid: String,
    /// When the domain ended, as RFC 3339; set in the event that announces a final state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
}

/// How a machine is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DomainStatus {
    /// The state of the machine.
    pub status: LifeCycle,
    /// Why it is in that state.
    pub reason: StateChangeReason,
    /// The guest's network interfaces, as its agent tells.
    #[serde(deserialize_with = "list::bounded")]
    pub interfaces: Vec<InterfaceStatus>,
    /// The guest's operating system, as its agent tells.
    #[serde(rename = "OSInfo")]
    pub os_info: GuestOsInfo,
    /// Whether the guest's file systems are frozen.
    #[serde(rename = "FSFreezeStatus")]
    pub fs_freeze_status: FsFreeze,
    /// What the guest said when it last panicked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_panic_info: Option<GuestPanicInfo>,
    /// How often the guest has panicked.
    pub panic_count: i64,
}

/// A network interface inside the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct InterfaceStatus {
    /// Hardware address.
    pub mac: String,
    /// The first address, without a prefix length.
    pub ip: String,
    /// Every address, without prefix lengths.
    #[serde(rename = "IPs", deserialize_with = "list::bounded")]
    pub ips: Vec<String>,
    /// The guest's name of the interface ("eth0").
    pub interface_name: String,
}

/// The guest's operating system, in the words of its `os-release`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GuestOsInfo {
    /// Name of the system ("Fedora Linux").
    pub name: String,
    /// Release of the kernel.
    pub kernel_release: String,
    /// Version for humans.
    pub version: String,
    /// Name and version for humans.
    pub pretty_name: String,
    /// Version for programs.
    pub version_id: String,
    /// Build of the kernel.
    pub kernel_version: String,
    /// Architecture ("x86_64").
    pub machine: String,
    /// Name for programs ("fedora").
    pub id: String,
}

/// Whether the guest's file systems are frozen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct FsFreeze {
    /// [`FsFreeze::FROZEN`], [`FsFreeze::THAWED`], or empty when the agent has not told.
    pub status: String,
}

impl FsFreeze {
    /// The file systems are frozen.
    pub const FROZEN: &str = "frozen";
    /// The file systems are in use.
    pub const THAWED: &str = "thawed";
}

/// What a guest said when it panicked. The keys are those of QEMU's event; Go reads either case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestPanicInfo {
    /// Who tells: "pvpanic", "hyper-v", or "unknown".
    #[serde(rename = "type", alias = "Type")]
    pub type_: String,
    /// The stop code of a Windows guest.
    #[serde(alias = "Arg1")]
    pub arg1: u64,
    /// First parameter of the stop code.
    #[serde(alias = "Arg2")]
    pub arg2: u64,
    /// Second parameter of the stop code.
    #[serde(alias = "Arg3")]
    pub arg3: u64,
    /// Third parameter of the stop code.
    #[serde(alias = "Arg4")]
    pub arg4: u64,
    /// Fourth parameter of the stop code.
    #[serde(alias = "Arg5")]
    pub arg5: u64,
}

/// What a machine is made of: of libvirt's domain only that which a handler reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DomainSpec {
    /// [`DomainSpec::KVM`] or [`DomainSpec::SOFTWARE`].
    #[serde(rename = "Type")]
    pub type_: String,
    /// The domain's name, `<namespace>_<name>`.
    pub name: String,
    /// The machine's UUID, as its firmware shows it.
    #[serde(rename = "UUID")]
    pub uuid: String,
    /// Memory at the start.
    pub memory: Memory,
    /// Memory at present.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_memory: Option<Memory>,
    /// Kind of machine.
    #[serde(rename = "OS")]
    pub os: Os,
    /// Features of the platform.
    #[serde(deserialize_with = "null_is_empty")]
    pub features: Features,
    /// Devices.
    pub devices: Devices,
    /// What KubeVirt remembers with the domain.
    pub metadata: Metadata,
}

impl DomainSpec {
    /// Hardware runs the guest.
    pub const KVM: &str = "kvm";
    /// Software runs the guest; the handler reports it in a condition.
    pub const SOFTWARE: &str = "qemu";
}

/// An amount of memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Memory {
    /// How many of the unit.
    pub value: u64,
    /// The unit as libvirt writes it ("b", "KiB").
    pub unit: String,
}

/// How a machine starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Os {
    /// Kind of machine.
    #[serde(rename = "Type")]
    pub type_: OsType,
}

/// Kind of machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct OsType {
    /// "hvm": the guest needs no changes to run.
    #[serde(rename = "OS")]
    pub os: String,
    /// Architecture ("x86_64").
    pub arch: String,
    /// Machine type ("q35"), which the handler copies to the status.
    pub machine: String,
}

/// Features of the platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Features {
    /// Whether the machine has ACPI; without, a handler kills where it would ask to power off.
    #[serde(rename = "ACPI", skip_serializing_if = "Option::is_none")]
    pub acpi: Option<Present>,
}

/// Takes `null` as the empty value, which is what Go writes for a pointer without value.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
