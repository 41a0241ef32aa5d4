//! `spec.configuration`: how machines are run.

use std::collections::BTreeMap;

use super::{
    ChangedBlockTrackingSelectors, ConfidentialCompute, DiskVerification,
    InstancetypeConfiguration, LiveUpdateConfiguration, MediatedDevicesConfiguration,
    PermittedHostDevices, SeccompConfiguration, SupportContainerResources, Switch,
};
use crate::domain::Resources;
use crate::migration::MigrationConfiguration;
use crate::object::{Presence, object};
use crate::quantity::Quantity;
use crate::selector::LabelSelector;

/// Share of a claim's size that may be missing, percent, when the configuration says nothing.
pub const DEFAULT_LESS_PVC_SPACE_PERCENT: u64 = 10;
/// Bytes of a claim that disk images leave free when the configuration says nothing.
pub const DEFAULT_RESERVE_PVC_BYTES: u64 = 131_072;
/// Seconds between memory statistics of guests when the configuration says nothing.
pub const DEFAULT_MEM_BALLOON_STATS_PERIOD: u32 = 10;
/// Manufacturer and family that guests read when the configuration says nothing.
pub const DEFAULT_SMBIOS_MAKER: &str = "KubeVirt";
/// Product that guests read when the configuration says nothing.
pub const DEFAULT_SMBIOS_PRODUCT: &str = "None";
/// Verbosity of every component when the configuration says nothing.
pub const DEFAULT_LOG_VERBOSITY: u64 = 2;

object! {
    /// How machines are run.
    pub struct Configuration {
        /// CPU model of machines that name none.
        pub cpu_model: String,
        /// CPU request of pods whose machines name none.
        pub cpu_request: Option<Quantity>,
        /// Switches for what isn't finished, and for trying things out.
        pub developer_configuration: DeveloperConfiguration,
        /// Machine types that may be used (use `architecture_configuration`).
        pub emulated_machines: Vec<String>,
        /// When images of machines' pods are fetched.
        pub image_pull_policy: String,
        /// Settings of migrations.
        pub migrations: Option<MigrationConfiguration>,
        /// Machine type of machines that name none (use `architecture_configuration`).
        pub machine_type: String,
        /// Networks.
        pub network: Option<NetworkConfiguration>,
        /// Where UEFI images are (use `architecture_configuration`).
        pub ovmf_path: String,
        /// SELinux type of launchers.
        pub selinux_launcher_type: String,
        /// Runtime class of launchers.
        pub default_runtime_class: String,
        /// What guests read of their maker.
        pub smbios: Option<SmbiosConfiguration>,
        /// Settings by CPU architecture.
        pub architecture_configuration: Option<ArchitectureConfigurations>,
        /// What an eviction does to machines that don't say.
        pub eviction_strategy: Option<String>,
        /// Factor on the memory of pods beside the guests', as text.
        pub additional_guest_memory_overhead_ratio: Option<String>,
        /// Resources of helper containers.
        pub support_container_resources: Vec<SupportContainerResources>,
        /// Versions of guest agents that are fit, as patterns (no longer used upstream).
        pub supported_guest_agent_versions: Vec<String>,
        /// Seconds between memory statistics of guests.
        pub mem_balloon_stats_period: Option<u32>,
        /// Devices of nodes that machines may have; all that nodes offer when unset.
        pub permitted_host_devices: Option<PermittedHostDevices>,
        /// Mediated devices to make.
        pub mediated_devices_configuration: Option<MediatedDevicesConfiguration>,
        /// Least CPU model of nodes (no longer used upstream).
        #[serde(rename = "minCPUModel")]
        pub min_cpu_model: String,
        /// CPU models that nodes don't offer.
        #[serde(rename = "obsoleteCPUModels")]
        pub obsolete_cpu_models: BTreeMap<String, bool>,
        /// Most machines on a node.
        pub virtual_machine_instances_per_node: Option<i64>,
        /// The API server's clients.
        pub api_configuration: Option<ComponentConfiguration>,
        /// The webhooks' clients.
        pub webhook_configuration: Option<ComponentConfiguration>,
        /// The controllers' clients.
        pub controller_configuration: Option<ComponentConfiguration>,
        /// The node agents' clients.
        pub handler_configuration: Option<ComponentConfiguration>,
        /// Which TLS is good enough.
        pub tls_configuration: Option<TlsConfiguration>,
        /// System call filters of launchers.
        pub seccomp_configuration: Option<SeccompConfiguration>,
        /// Storage class of claims for TPM and firmware variables.
        pub vm_state_storage_class: String,
        /// What machines don't get.
        pub virtual_machine_options: Option<VirtualMachineOptions>,
        /// Sharing of equal pages on nodes.
        pub ksm_configuration: Option<KsmConfiguration>,
        /// Namespaces whose launchers get a CPU limit.
        #[serde(rename = "autoCPULimitNamespaceLabelSelector")]
        pub auto_cpu_limit_namespace_label_selector: Option<LabelSelector>,
        /// Bounds of what is plugged while machines run.
        pub live_update_configuration: Option<LiveUpdateConfiguration>,
        /// How changes of virtual machines get to their instances.
        pub vm_rollout_strategy: Option<String>,
        /// Whether common instance types are installed.
        pub common_instancetypes_deployment: Option<Switch>,
        /// Whether templates are installed.
        pub virt_template_deployment: Option<Switch>,
        /// How instance types are referred to.
        pub instancetype: Option<InstancetypeConfiguration>,
        /// Hypervisors, the first of which is used.
        pub hypervisors: Vec<HypervisorConfiguration>,
        /// Machines whose changed blocks are tracked.
        pub changed_block_tracking_label_selectors: Option<ChangedBlockTrackingSelectors>,
        /// Persistent reservations of SCSI units.
        pub persistent_reservation_configuration: Option<Switch>,
        /// Confidential computing.
        pub confidential_compute: Option<ConfidentialCompute>,
        /// How cluster roles are added to those of users.
        pub role_aggregation_strategy: Option<String>,
    }

    /// Switches for what isn't finished, and for trying things out.
    pub struct DeveloperConfiguration {
        /// Features that are on.
        pub feature_gates: Vec<String>,
        /// Features that are off although they are finished enough to be on.
        pub disabled_feature_gates: Vec<String>,
        /// Share of a claim's size that may be missing, percent.
        pub pvc_tolerate_less_space_up_to_percent: Option<i64>,
        /// Bytes of a claim that disk images leave free.
        #[serde(rename = "minimumReservePVCBytes")]
        pub minimum_reserve_pvc_bytes: Option<u64>,
        /// Guest memory as a percentage of the pod's.
        pub memory_overcommit: Option<i64>,
        /// Labels that nodes of launchers must have.
        pub node_selectors: BTreeMap<String, String>,
        /// Whether processors may be emulated in software.
        pub use_emulation: Option<bool>,
        /// Virtual processors for each host processor.
        pub cpu_allocation_ratio: Option<i64>,
        /// Least time stamp counter frequency of the cluster, hertz.
        #[serde(rename = "minimumClusterTSCFrequency")]
        pub minimum_cluster_tsc_frequency: Option<i64>,
        /// Bounds of looking into disk images.
        pub disk_verification: Option<DiskVerification>,
        /// How much is logged.
        pub log_verbosity: Option<LogVerbosity>,
        /// Whether components can be profiled.
        pub cluster_profiler: Option<bool>,
    }

    /// How much is logged, from 0 to 9.
    pub struct LogVerbosity {
        /// virt-api.
        #[serde(rename = "virtAPI")]
        pub virt_api: Option<u64>,
        /// virt-controller.
        pub virt_controller: Option<u64>,
        /// virt-handler.
        pub virt_handler: Option<u64>,
        /// virt-launcher.
        pub virt_launcher: Option<u64>,
        /// virt-operator.
        pub virt_operator: Option<u64>,
        /// virt-synchronization-controller.
        pub virt_synchronization_controller: Option<u64>,
        /// virt-handler, by node.
        pub node_verbosity: BTreeMap<String, u64>,
    }

    /// Networks.
    pub struct NetworkConfiguration {
        /// Binding of interfaces that are added by default.
        pub default_network_interface: String,
        /// Whether slirp may be used (old releases).
        pub permit_slirp_interface: Option<bool>,
        /// Whether bridges to the pod network may be used; `true` when unset.
        pub permit_bridge_interface_on_pod_network: Option<bool>,
        /// Binding plugins by name.
        pub binding: BTreeMap<String, BindingPlugin>,
    }

    /// A way to bind interfaces that comes from outside.
    pub struct BindingPlugin {
        /// Image of its sidecar.
        pub sidecar_image: String,
        /// Its network attachment definition, `[namespace/]name`.
        pub network_attachment_definition: String,
        /// How its interfaces get into the machine, `tap` or `managedTap`.
        pub domain_attachment_type: String,
        /// How its interfaces migrate.
        pub migration: Option<BindingMigration>,
        /// What of the pod it reads, `device-info`.
        #[serde(rename = "downwardAPI")]
        pub downward_api: String,
        /// What it adds to the launcher's resources.
        pub compute_resource_overhead: Option<Resources>,
    }

    /// How interfaces migrate.
    pub struct BindingMigration {
        /// `link-refresh`.
        pub method: String,
    }

    /// What guests read of their maker (SMBIOS type 1).
    pub struct SmbiosConfiguration {
        /// Manufacturer.
        pub manufacturer: String,
        /// Product.
        pub product: String,
        /// Version.
        pub version: String,
        /// Stock keeping unit.
        pub sku: String,
        /// Family.
        pub family: String,
    }

    /// Settings by CPU architecture.
    pub struct ArchitectureConfigurations {
        /// x86-64.
        pub amd64: Option<ArchitectureConfiguration>,
        /// 64-bit Arm.
        pub arm64: Option<ArchitectureConfiguration>,
        /// POWER.
        pub ppc64le: Option<ArchitectureConfiguration>,
        /// IBM Z.
        pub s390x: Option<ArchitectureConfiguration>,
        /// Architecture of machines that name none.
        pub default_architecture: String,
    }

    /// Settings of one CPU architecture.
    pub struct ArchitectureConfiguration {
        /// Where UEFI images are.
        pub ovmf_path: String,
        /// Machine types that may be used.
        pub emulated_machines: Vec<String>,
        /// Machine type of machines that name none.
        pub machine_type: String,
    }

    /// Settings of a component that it takes over while it runs.
    pub struct ComponentConfiguration {
        /// Its client of the API server.
        pub rest_client: Option<RestClientConfiguration>,
    }

    /// Settings of a client of the API server.
    pub struct RestClientConfiguration {
        /// How often it may ask.
        pub rate_limiter: Option<RateLimiter>,
    }

    /// How often a client may ask.
    pub struct RateLimiter {
        /// By a token bucket.
        pub token_bucket_rate_limiter: Option<TokenBucketRateLimiter>,
    }

    /// A token bucket.
    pub struct TokenBucketRateLimiter {
        /// Requests per second in the long run; zero means the component's own.
        pub qps: Option<f32>,
        /// Requests at once; zero means the component's own.
        pub burst: Option<i32>,
    }

    /// Which TLS is good enough.
    pub struct TlsConfiguration {
        /// Least version: `VersionTLS12`, `VersionTLS13` and older ones.
        #[serde(rename = "minTLSVersion")]
        pub min_tls_version: String,
        /// Cipher suites by their IANA names.
        pub ciphers: Vec<String>,
    }

    /// What machines don't get.
    pub struct VirtualMachineOptions {
        /// Guests don't report free pages.
        pub disable_free_page_reporting: Option<Presence>,
        /// Serial consoles aren't logged.
        pub disable_serial_console_log: Option<Presence>,
    }

    /// Sharing of equal pages on nodes.
    pub struct KsmConfiguration {
        /// Nodes that share; none when unset, all when empty.
        pub node_label_selector: Option<LabelSelector>,
    }

    /// A hypervisor.
    pub struct HypervisorConfiguration {
        /// Its name, `kvm` or `hyperv-direct`.
        pub name: String,
    }
}

impl Configuration {
    /// Whether processors may be emulated in software.
    pub fn use_emulation(&self) -> bool {
        self.developer_configuration.use_emulation == Some(true)
    }

    /// Returns the share of a claim's size that may be missing, percent; zero counts as unset.
    pub fn less_pvc_space_percent(&self) -> u64 {
        self.developer_configuration
            .pvc_tolerate_less_space_up_to_percent
            .and_then(|percent| u64::try_from(percent).ok())
            .filter(|percent| (1..=100).contains(percent))
            .unwrap_or(DEFAULT_LESS_PVC_SPACE_PERCENT)
    }

    /// Returns the bytes of a claim that disk images leave free; zero counts as unset.
    pub fn reserve_pvc_bytes(&self) -> u64 {
        self.developer_configuration
            .minimum_reserve_pvc_bytes
            .filter(|bytes| *bytes > 0)
            .unwrap_or(DEFAULT_RESERVE_PVC_BYTES)
    }

    /// Returns the seconds between memory statistics of guests; zero switches them off.
    pub fn mem_balloon_stats_period_seconds(&self) -> u32 {
        self.mem_balloon_stats_period
            .unwrap_or(DEFAULT_MEM_BALLOON_STATS_PERIOD)
    }

    /// Returns what guests read of their maker, with defaults for what is unset.
    pub fn smbios_or_default(&self) -> SmbiosConfiguration {
        let mut smbios = self.smbios.clone().unwrap_or_default();
        for (field, default) in [
            (&mut smbios.manufacturer, DEFAULT_SMBIOS_MAKER),
            (&mut smbios.product, DEFAULT_SMBIOS_PRODUCT),
            (&mut smbios.family, DEFAULT_SMBIOS_MAKER),
        ] {
            if field.is_empty() {
                default.clone_into(field);
            }
        }
        smbios
    }

    /// Returns how much the node agent of a node logs.
    pub fn handler_verbosity(&self, node: &str) -> u64 {
        let verbosity = self.developer_configuration.log_verbosity.as_ref();
        verbosity
            .and_then(|v| v.node_verbosity.get(node).copied().or(v.virt_handler))
            .unwrap_or(DEFAULT_LOG_VERBOSITY)
    }

    /// Whether a node with these labels shares equal pages.
    pub fn shares_pages(&self, node_labels: &BTreeMap<String, String>) -> bool {
        self.ksm_configuration
            .as_ref()
            .and_then(|ksm| ksm.node_label_selector.as_ref())
            .is_some_and(|selector| selector.matches(node_labels))
    }
}
