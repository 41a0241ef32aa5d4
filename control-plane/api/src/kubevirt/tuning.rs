//! Smaller parts of `spec.configuration`.

use std::collections::BTreeMap;

use crate::domain::Resources;
use crate::object::object;
use crate::quantity::Quantity;
use crate::selector::LabelSelector;

object! {
    /// Something that is on or off.
    pub struct Switch {
        /// Whether it is on.
        pub enabled: Option<bool>,
    }

    /// Resources of a kind of helper containers.
    pub struct SupportContainerResources {
        /// `container-disk`, `hotplug-disk`, `virtiofs`, `sidecar`, `guest-console-log` and the like.
        #[serde(rename = "type")]
        pub container_type: String,
        /// Their resources.
        pub resources: Resources,
    }

    /// Mediated devices to make.
    pub struct MediatedDevicesConfiguration {
        /// Types to make on every node (use `mediatedDeviceTypes`).
        pub mediated_devices_types: Vec<String>,
        /// Types to make on every node.
        pub mediated_device_types: Vec<String>,
        /// Types to make on some nodes.
        pub node_mediated_device_types: Vec<NodeMediatedDevices>,
        /// Whether they are made by us at all.
        pub enabled: Option<bool>,
    }

    /// Mediated devices to make on some nodes.
    pub struct NodeMediatedDevices {
        /// Labels of the nodes.
        pub node_selector: BTreeMap<String, String>,
        /// Types to make (use `mediatedDeviceTypes`).
        pub mediated_devices_types: Vec<String>,
        /// Types to make.
        pub mediated_device_types: Vec<String>,
    }

    /// System call filters of launchers.
    pub struct SeccompConfiguration {
        /// The filter.
        pub virtual_machine_instance_profile: Option<LauncherSeccompProfile>,
    }

    /// The system call filter of launchers.
    pub struct LauncherSeccompProfile {
        /// The filter.
        pub custom_profile: Option<CustomSeccompProfile>,
    }

    /// A system call filter; one of the fields is set.
    pub struct CustomSeccompProfile {
        /// File on the node.
        pub localhost_profile: Option<String>,
        /// The container runtime's own.
        pub runtime_default_profile: Option<bool>,
    }

    /// Bounds of what is plugged while machines run.
    pub struct LiveUpdateConfiguration {
        /// How many times what a machine starts with; 4 when unset.
        pub max_hotplug_ratio: Option<u32>,
        /// Most sockets.
        pub max_cpu_sockets: Option<u32>,
        /// Most guest memory.
        pub max_guest: Option<Quantity>,
    }

    /// How instance types are referred to.
    pub struct InstancetypeConfiguration {
        /// `reference` (default), `expand` or `expandAll`.
        pub reference_policy: Option<String>,
    }

    /// Machines whose changed blocks are tracked.
    pub struct ChangedBlockTrackingSelectors {
        /// By their namespace.
        pub namespace_label_selector: Option<LabelSelector>,
        /// By their own labels.
        pub virtual_machine_label_selector: Option<LabelSelector>,
    }

    /// Confidential computing.
    pub struct ConfidentialCompute {
        /// Intel's trust domains.
        pub tdx: Option<TdxConfiguration>,
    }

    /// Intel's trust domains.
    pub struct TdxConfiguration {
        /// Their attestation.
        pub attestation: Option<TdxAttestation>,
    }

    /// Attestation of trust domains.
    pub struct TdxAttestation {
        /// Whether machines without it are refused.
        pub enforced: Option<bool>,
        /// Socket of the quote generation service.
        pub qgs_socket_path: Option<String>,
    }

    /// Bounds of looking into disk images.
    pub struct DiskVerification {
        /// Most memory.
        pub memory_limit: Option<Quantity>,
    }
}
