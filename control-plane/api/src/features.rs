//! Feature gates: what may be switched on or off in the cluster's `KubeVirt` object.
//!
//! The names are upstream's. Where ours differ in what is on, the table says why.

use crate::field::{FieldError, FieldPath};
use crate::kubevirt::{Configuration, DeveloperConfiguration};

/// Names of gates that decide something of ours.
pub mod gate {
    /// Container disks are image volumes that the kubelet mounts.
    pub const IMAGE_VOLUME: &str = "ImageVolume";
    /// Ignition configurations in an annotation.
    pub const IGNITION: &str = "ExperimentalIgnitionSupport";
    /// Hook sidecars.
    pub const SIDECAR: &str = "Sidecar";
    /// Devices of nodes.
    pub const HOST_DEVICES: &str = "HostDevices";
    /// Files of nodes as disks.
    pub const HOST_DISK: &str = "HostDisk";
    /// Host metrics for guests.
    pub const DOWNWARD_METRICS: &str = "DownwardMetrics";
    /// Launchers as root.
    pub const ROOT: &str = "Root";
    /// AMD's memory encryption.
    pub const WORKLOAD_ENCRYPTION_SEV: &str = "WorkloadEncryptionSEV";
    /// Intel's trust domains.
    pub const WORKLOAD_ENCRYPTION_TDX: &str = "WorkloadEncryptionTDX";
    /// vsock.
    pub const VSOCK: &str = "VSOCK";
    /// A system call filter of our own for launchers.
    pub const KUBEVIRT_SECCOMP_PROFILE: &str = "KubevirtSeccompProfile";
    /// Node agents change instances of their own node only.
    pub const NODE_RESTRICTION: &str = "NodeRestriction";
    /// Claims and host disks as shared file systems.
    pub const VIRTIOFS_STORAGE_VOLUMES: &str = "EnableVirtioFsStorageVolumes";
    /// Graphics processors by dynamic resource claims.
    pub const GPUS_WITH_DRA: &str = "GPUsWithDRA";
    /// Devices of nodes by dynamic resource claims.
    pub const HOST_DEVICES_WITH_DRA: &str = "HostDevicesWithDRA";
    /// Network devices by dynamic resource claims.
    pub const NETWORK_DEVICES_WITH_DRA: &str = "NetworkDevicesWithDRA";
    /// Migrations between clusters and namespaces.
    pub const DECENTRALIZED_LIVE_MIGRATION: &str = "DecentralizedLiveMigration";
    /// Volumes are plugged by an edit of the virtual machine; CD-ROM drives may be empty.
    pub const DECLARATIVE_HOTPLUG_VOLUMES: &str = "DeclarativeHotplugVolumes";
    /// Volumes that are no disks.
    pub const UTILITY_VOLUMES: &str = "UtilityVolumes";
    /// passt.
    pub const PASST_BINDING: &str = "PasstBinding";
    /// What a reboot does can be chosen.
    pub const REBOOT_POLICY: &str = "RebootPolicy";
    /// Templates.
    pub const TEMPLATE: &str = "Template";
    /// Folders of the launcher's container as shared file systems.
    pub const CONTAINER_PATH_VOLUMES: &str = "ContainerPathVolumes";
    /// Memory set aside beside the guest's, and its locking.
    pub const RESERVED_OVERHEAD_MEMLOCK: &str = "ReservedOverheadMemlock";
    /// Users' cluster roles can be left alone.
    pub const OPT_OUT_ROLE_AGGREGATION: &str = "OptOutRoleAggregation";
    /// Migrations notice that they get nowhere.
    pub const MIGRATION_STALL_DETECTION: &str = "MigrationStallDetection";
    /// The longest stop of a migration can be tuned.
    pub const MIGRATION_DOWNTIME_TUNING: &str = "MigrationDowntimeTuning";
    /// Guests of another architecture than the node.
    pub const CROSS_ARCHITECTURE: &str = "CrossArchitectureVirtualization";
    /// Ranges of open ports.
    pub const PORT_RANGES: &str = "PortRangesSpec";
}

/// How far a feature is, upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Off unless switched on.
    Alpha,
    /// On unless switched off.
    Beta,
    /// On, whatever anybody says.
    Finished,
    /// Still does what it says; goes away.
    Deprecated,
    /// Gone.
    Discontinued,
}

/// A feature gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// How far the feature is.
    pub stage: Stage,
    /// Whether it is on when nobody says anything.
    pub is_on: bool,
}

const fn alpha(name: &'static str) -> Gate {
    of(name, Stage::Alpha, false)
}
const fn beta(name: &'static str) -> Gate {
    of(name, Stage::Beta, true)
}
const fn finished(name: &'static str) -> Gate {
    of(name, Stage::Finished, true)
}
const fn deprecated(name: &'static str) -> Gate {
    of(name, Stage::Deprecated, false)
}
const fn discontinued(name: &'static str) -> Gate {
    of(name, Stage::Discontinued, false)
}
const fn of(name: &'static str, stage: Stage, is_on: bool) -> Gate {
    Gate { name, stage, is_on }
}

/// All gates that upstream knows.
pub const GATES: &[Gate] = &[
    // Nodes need a kubelet that mounts images; where there is one, the installation switches it on.
    of(gate::IMAGE_VOLUME, Stage::Beta, false),
    // Launchers filter their own system calls; the profile on nodes would be a second fence.
    of(gate::KUBEVIRT_SECCOMP_PROFILE, Stage::Beta, false),
    // What nodes offer machines is an operator's wish already, and permittedHostDevices narrows it down.
    of(gate::HOST_DEVICES, Stage::Alpha, true),
    beta("Snapshot"),
    beta(gate::WORKLOAD_ENCRYPTION_SEV),
    beta(gate::NODE_RESTRICTION),
    beta(gate::GPUS_WITH_DRA),
    beta(gate::HOST_DEVICES_WITH_DRA),
    beta(gate::DECENTRALIZED_LIVE_MIGRATION),
    beta(gate::DECLARATIVE_HOTPLUG_VOLUMES),
    beta(gate::PASST_BINDING),
    beta("PodSecondaryInterfaceNamingUpgrade"),
    beta("ExternalNetResourceInjection"),
    beta(gate::REBOOT_POLICY),
    beta(gate::TEMPLATE),
    beta(gate::OPT_OUT_ROLE_AGGREGATION),
    alpha("CPUManager"),
    alpha(gate::IGNITION),
    alpha("HypervStrictCheck"),
    alpha(gate::SIDECAR),
    alpha(gate::HOST_DISK),
    alpha(gate::DOWNWARD_METRICS),
    alpha(gate::ROOT),
    alpha(gate::WORKLOAD_ENCRYPTION_TDX),
    alpha(gate::VSOCK),
    alpha("AlignCPUs"),
    alpha(gate::VIRTIOFS_STORAGE_VOLUMES),
    alpha("PCINUMAAwareTopology"),
    alpha(gate::NETWORK_DEVICES_WITH_DRA),
    alpha("ObjectGraph"),
    alpha(gate::UTILITY_VOLUMES),
    alpha("ConfigurableHypervisor"),
    alpha("IncrementalBackup"),
    alpha(gate::CONTAINER_PATH_VOLUMES),
    alpha(gate::RESERVED_OVERHEAD_MEMLOCK),
    alpha("VGPULiveMigration"),
    alpha("VMStatsCollector"),
    alpha("OCIExport"),
    alpha("Plugins"),
    alpha("GraceIOVirtualization"),
    alpha("IOMMUFD"),
    alpha("FirmwareAutoSelection"),
    alpha(gate::MIGRATION_STALL_DETECTION),
    alpha(gate::MIGRATION_DOWNTIME_TUNING),
    alpha(gate::CROSS_ARCHITECTURE),
    alpha(gate::PORT_RANGES),
    finished("LiveMigration"),
    finished("SRIOVLiveMigration"),
    finished("SRIOV"),
    finished("NonRoot"),
    finished("PSA"),
    finished("CPUNodeDiscovery"),
    finished("NUMA"),
    finished("GPU"),
    finished("VMLiveUpdateFeatures"),
    finished("CommonInstancetypesDeploymentGate"),
    finished("HotplugNICs"),
    finished("BochsDisplayForEFIGuests"),
    finished("AutoResourceLimitsGate"),
    finished("NetworkBindingPlugins"),
    finished("DynamicPodInterfaceNaming"),
    finished("VolumesUpdateStrategy"),
    finished("VolumeMigration"),
    finished("VMExport"),
    finished("DisableCustomSELinuxPolicy"),
    finished("ClusterProfiler"),
    finished("VMPersistentState"),
    finished("InstancetypeReferencePolicy"),
    finished("EnableVirtioFsConfigVolumes"),
    finished("VideoConfig"),
    finished("ExpandDisks"),
    finished("PanicDevices"),
    finished("LiveUpdateNADRef"),
    finished("PersistentReservation"),
    finished("SecureExecution"),
    finished("MigrationPriorityQueue"),
    finished("VmiMemoryOverheadReport"),
    finished("LibvirtHooksServerAndClient"),
    finished("DataVolumes"),
    deprecated("DockerSELinuxMCSWorkaround"),
    deprecated("MultiArchitecture"),
    deprecated("DisableMDEVConfiguration"),
    deprecated("HotplugVolumes"),
    discontinued("ExperimentalVirtiofsSupport"),
    discontinued("Passt"),
    discontinued("Macvtap"),
    discontinued("Slirp"),
    discontinued("PasstIPStackMigration"),
];

/// Returns the gate of a name.
pub fn find(name: &str) -> Option<&'static Gate> {
    GATES.iter().find(|gate| gate.name == name)
}

impl Configuration {
    /// Whether a feature is on, by its name in [`gate`]; one that nobody knows is off.
    pub fn is_on(&self, name: &str) -> bool {
        self.developer_configuration.is_on(name)
    }
}

impl DeveloperConfiguration {
    /// Whether a feature is on, by its name in [`gate`]; one that nobody knows is off.
    pub fn is_on(&self, name: &str) -> bool {
        let listed = |gates: &[String]| gates.iter().any(|listed| listed == name);
        match find(name) {
            None => false,
            Some(gate) if gate.stage == Stage::Finished => true,
            Some(_) if listed(&self.feature_gates) => true,
            Some(gate) => gate.is_on && !listed(&self.disabled_feature_gates),
        }
    }
}

/// Returns the gates of the config map `kubevirt-config`, by which old releases were configured: the
/// value of its key [`LEGACY_KEY`], names with commas or white space between them.
pub fn parse_legacy(text: &str) -> Vec<String> {
    text.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|name| !name.is_empty())
        .take(MAX_LEGACY_GATES)
        .map(str::to_owned)
        .collect()
}

/// Names of the config map that configured old releases; documents write it in several ways.
pub const LEGACY_CONFIG_MAP: &str = "kubevirt-config";
/// Its key with the gates that are on.
pub const LEGACY_KEY: &str = "feature-gates";
/// More names than there ever were gates.
const MAX_LEGACY_GATES: usize = 200;

/// Adds gates of the old config map to a configuration. What the `KubeVirt` object switches off stays off.
pub fn add_legacy(developer: &mut DeveloperConfiguration, gates: &[String]) {
    for gate in gates {
        let is_off = developer.disabled_feature_gates.contains(gate);
        if !is_off && !developer.feature_gates.contains(gate) {
            developer.feature_gates.push(gate.clone());
        }
    }
}

/// Returns what is wrong with the lists of gates: names that are on both.
pub fn conflicts(developer: &DeveloperConfiguration) -> Vec<FieldError> {
    let path = FieldPath::new("spec.configuration.developerConfiguration.featureGates");
    let gates = developer.feature_gates.iter().enumerate();
    gates
        .filter(|(_, gate)| developer.disabled_feature_gates.contains(gate))
        .map(|(index, gate)| {
            let text =
                format!("{gate:?} is in disabledFeatureGates as well: remove it from one list");
            FieldError::forbidden(path.index(index), text)
        })
        .collect()
}

/// Returns warnings about gates that do nothing: unknown, finished, deprecated and discontinued ones.
pub fn warnings(developer: &DeveloperConfiguration) -> Vec<String> {
    let lists = [
        ("featureGates", &developer.feature_gates),
        ("disabledFeatureGates", &developer.disabled_feature_gates),
    ];
    let named = lists
        .into_iter()
        .flat_map(|(list, gates)| gates.iter().map(move |gate| (list, gate)));
    named
        .filter_map(|(list, name)| {
            let what = match find(name).map(|gate| gate.stage) {
                None => "is not known and has no effect: check its spelling",
                Some(Stage::Finished) => "is finished and always on: remove it",
                Some(Stage::Deprecated) => "is deprecated: remove it",
                Some(Stage::Discontinued) => "is of a feature that is gone: remove it",
                Some(Stage::Alpha | Stage::Beta) => return None,
            };
            Some(format!("feature gate {name:?} in {list} {what}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{GATES, Stage, add_legacy, conflicts, gate, parse_legacy, warnings};
    use crate::kubevirt::DeveloperConfiguration;

    fn with(on: &[&str], off: &[&str]) -> DeveloperConfiguration {
        let texts = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        DeveloperConfiguration {
            feature_gates: texts(on),
            disabled_feature_gates: texts(off),
            ..DeveloperConfiguration::default()
        }
    }

    #[test]
    fn gates_are_named_once() {
        let names: BTreeSet<_> = GATES.iter().map(|gate| gate.name).collect();
        assert_eq!(names.len(), GATES.len());
        assert!(
            GATES
                .iter()
                .all(|gate| gate.is_on || gate.stage != Stage::Finished)
        );
    }

    #[test]
    fn alpha_features_are_off_and_beta_ones_on_until_somebody_says_otherwise() {
        let none = with(&[], &[]);
        assert!(!none.is_on(gate::HOST_DISK));
        assert!(none.is_on(gate::NODE_RESTRICTION));
        assert!(none.is_on("LiveMigration"));
        assert!(
            none.is_on(gate::HOST_DEVICES),
            "what nodes offer is switch enough"
        );
        assert!(with(&[gate::HOST_DISK], &[]).is_on(gate::HOST_DISK));
        assert!(!with(&[], &[gate::NODE_RESTRICTION]).is_on(gate::NODE_RESTRICTION));
        assert!(with(&[], &["LiveMigration"]).is_on("LiveMigration"));
        assert!(!with(&["Teleport"], &[]).is_on("Teleport"));
    }

    #[test]
    fn the_old_config_map_switches_gates_on() {
        assert_eq!(parse_legacy("HostDisk"), ["HostDisk"]);
        assert_eq!(
            parse_legacy(" HostDisk,LiveMigration\n,"),
            ["HostDisk", "LiveMigration"]
        );
        let mut developer = with(&["HostDisk"], &["Sidecar"]);
        add_legacy(&mut developer, &parse_legacy("HostDisk,Sidecar,VSOCK"));
        assert_eq!(developer.feature_gates, ["HostDisk", "VSOCK"]);
    }

    #[test]
    fn gates_on_both_lists_are_refused_and_idle_ones_warned_of() {
        let developer = with(&["Root", "HostDisk", "NUMA", "Macvtap", "X"], &["HostDisk"]);
        let errors = conflicts(&developer);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].path.as_str().ends_with("featureGates[1]"));
        let warnings = warnings(&developer);
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings[2].contains("\"X\" in featureGates is not known"));
    }
}
