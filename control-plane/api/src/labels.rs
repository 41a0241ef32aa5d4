//! Names of labels, annotations, finalizers and readiness gates, and values of labels that hold names.

use sha1::{Digest, Sha1};

/// Label that says which component a pod is (`virt-launcher`, `virt-handler`, …).
pub const APP: &str = "kubevirt.io";
/// Label with the uid of the instance that a launcher pod belongs to.
pub const CREATED_BY: &str = "kubevirt.io/created-by";
/// Label with the node that an instance runs on.
pub const NODE_NAME: &str = "kubevirt.io/nodeName";
/// Label with the node that an instance migrates to.
pub const MIGRATION_TARGET_NODE_NAME: &str = "kubevirt.io/migrationTargetNodeName";
/// Label of a target pod with the uid of its migration.
pub const MIGRATION_JOB_UID: &str = "kubevirt.io/migrationJobUID";
/// Label with the name of a migration.
pub const MIGRATION_NAME: &str = "kubevirt.io/migrationName";
/// Label with the name of an instance.
pub const VMI_NAME: &str = "kubevirt.io/vmi-name";
/// Label with the name of a virtual machine.
pub const VM_NAME: &str = "vm.kubevirt.io/name";
/// Label of a launcher pod with the name of its instance, shortened to what a label holds.
pub const VMI_ID: &str = "vmi.kubevirt.io/id";
/// Label of an instance whose launcher is of an old version.
pub const OUTDATED_LAUNCHER_IMAGE: &str = "kubevirt.io/outdatedLauncherImage";
/// Label of a migration that changes volumes.
pub const VOLUME_UPDATE_MIGRATION: &str = "kubevirt.io/volume-update-migration";
/// Label of an instance with its pod's CPU limit.
pub const VMI_POD_CPU_LIMITS: &str = "kubevirt.io/vmi-pod-cpu-resource-limits";
/// Label of an instance with its pod's memory request.
pub const VMI_POD_MEMORY_REQUESTS: &str = "kubevirt.io/vmi-pod-memory-resource-requests";
/// Label of config maps that hold what is to be installed.
pub const INSTALL_STRATEGY: &str = "kubevirt.io/install-strategy";
/// Label of pods that may reach services of the cluster.
pub const ALLOW_ACCESS_CLUSTER_SERVICES: &str = "np.kubevirt.io/allow-access-cluster-services";
/// Label that says who looks after an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label that says what an object is part of, `kubevirt`.
pub const COMPONENT: &str = "app.kubernetes.io/component";

/// Node label that says whether machines may be placed there.
pub const SCHEDULABLE: &str = "kubevirt.io/schedulable";
/// Node label that says whether the kubelet sets processors aside.
pub const CPU_MANAGER: &str = "kubevirt.io/cpumanager";
/// Old name of [`CPU_MANAGER`], kept beside it.
pub const CPU_MANAGER_OLD: &str = "cpumanager";
/// Node label that says that real-time scheduling is unlimited.
pub const REALTIME: &str = "kubevirt.io/realtime";
/// Node label that says whether equal pages are shared.
pub const KSM_ENABLED: &str = "kubevirt.io/ksm-enabled";
/// Node label of AMD's memory encryption.
pub const SEV: &str = "kubevirt.io/sev";
/// Node label of AMD's memory and register encryption.
pub const SEV_ES: &str = "kubevirt.io/sev-es";
/// Node label of AMD's memory encryption with integrity.
pub const SEV_SNP: &str = "kubevirt.io/sev-snp";
/// Node label of Intel's memory encryption.
pub const TDX: &str = "kubevirt.io/tdx";
/// Node label of nodes whose host model is obsolete.
pub const OBSOLETE_HOST_MODEL: &str = "node-labeller.kubevirt.io/obsolete-host-model";
/// Node label with the time stamp counter's frequency, hertz.
pub const TSC_FREQUENCY: &str = "cpu-timer.node.kubevirt.io/tsc-frequency";
/// Node label that says whether guests can have another frequency than the host.
pub const TSC_SCALABLE: &str = "cpu-timer.node.kubevirt.io/tsc-scalable";

/// Prefix of node labels of CPU models that guests can have.
pub const CPU_MODEL_PREFIX: &str = "cpu-model.node.kubevirt.io/";
/// Prefix of node labels of CPU models that guests can bring along.
pub const CPU_MODEL_MIGRATION_PREFIX: &str = "cpu-model-migration.node.kubevirt.io/";
/// Prefix of node labels of CPU features.
pub const CPU_FEATURE_PREFIX: &str = "cpu-feature.node.kubevirt.io/";
/// Prefix of the node label of the CPU's vendor.
pub const CPU_VENDOR_PREFIX: &str = "cpu-vendor.node.kubevirt.io/";
/// Prefix of node labels of timers.
pub const CPU_TIMER_PREFIX: &str = "cpu-timer.node.kubevirt.io/";
/// Prefix of the node label of the model that is the host's.
pub const HOST_MODEL_PREFIX: &str = "host-model-cpu.node.kubevirt.io/";
/// Prefix of node labels of features that the host has beyond its model.
pub const HOST_MODEL_FEATURES_PREFIX: &str = "host-model-required-features.node.kubevirt.io/";
/// Prefix of node labels of Hyper-V enlightenments.
pub const HYPERV_PREFIX: &str = "hyperv.node.kubevirt.io/";
/// Prefix of node labels of machine types.
pub const MACHINE_TYPE_PREFIX: &str = "machine-type.node.kubevirt.io/";
/// Prefix of node labels of architectures of guests.
pub const VM_ARCHITECTURE_PREFIX: &str = "kubevirt.io/vm-arch-";

/// Prefixes of node labels that come and go with what a node can do.
pub const NODE_LABEL_PREFIXES: [&str; 10] = [
    CPU_MODEL_PREFIX,
    CPU_MODEL_MIGRATION_PREFIX,
    CPU_FEATURE_PREFIX,
    CPU_VENDOR_PREFIX,
    CPU_TIMER_PREFIX,
    HOST_MODEL_PREFIX,
    HOST_MODEL_FEATURES_PREFIX,
    HYPERV_PREFIX,
    MACHINE_TYPE_PREFIX,
    VM_ARCHITECTURE_PREFIX,
];

/// Node annotation with the time of the last sign of life.
pub const HEARTBEAT: &str = "kubevirt.io/heartbeat";
/// Node annotation that keeps labels of abilities away.
pub const SKIP_NODE: &str = "node-labeller.kubevirt.io/skip-node";
/// Node annotation that says whether it was us who turned sharing of equal pages on.
pub const KSM_HANDLER_MANAGED: &str = "kubevirt.io/ksm-handler-managed";
/// Prefix of node annotations that set the parameters of page sharing (`…pages-boost-override`).
pub const KSM_OVERRIDE_PREFIX: &str = "kubevirt.io/ksm-";

/// Annotation of a launcher pod with the name of its instance.
pub const DOMAIN: &str = "kubevirt.io/domain";
/// Annotation of a pod with the name of the instance it belongs to.
pub const OWNER_VMI_NAME: &str = "kubevirt.io/owner-vmi-name";
/// Annotation of a pod with the uid of the instance it belongs to.
pub const OWNER_VMI_UID: &str = "kubevirt.io/owner-vmi-uid";
/// Annotation of a target pod with the name of its migration.
pub const MIGRATION_JOB_NAME: &str = "kubevirt.io/migrationJobName";
/// Annotation of a pod that can migrate over Unix sockets.
pub const MIGRATION_TRANSPORT_UNIX: &str = "kubevirt.io/migrationTransportUnix";
/// Annotation of a pod with its memory beside the guest's.
pub const MEMORY_OVERHEAD_BYTES: &str = "kubevirt.io/memory-overhead-bytes";
/// Annotation of a pod with its networks' devices, JSON.
pub const NETWORK_INFO: &str = "kubevirt.io/network-info";
/// Annotation with the newest API version that the controller knew.
pub const LATEST_OBSERVED_API_VERSION: &str = "kubevirt.io/latest-observed-api-version";
/// Annotation with the stored API version that the controller knew.
pub const STORAGE_OBSERVED_API_VERSION: &str = "kubevirt.io/storage-observed-api-version";
/// Annotation of an instance with the generation of its virtual machine.
pub const VM_GENERATION: &str = "kubevirt.io/vm-generation";
/// Annotation with an Ignition configuration.
pub const IGNITION_DATA: &str = "kubevirt.io/ignitiondata";
/// Annotation that lists hook sidecars.
pub const HOOK_SIDECARS: &str = "hooks.kubevirt.io/hookSidecars";
/// Annotation that asks for guest memory in a shared memfd.
pub const MEMFD: &str = "kubevirt.io/memfd";
/// Annotation that asks for all PCI devices on the root bus.
pub const PLACE_PCI_DEVICES_ON_ROOT_COMPLEX: &str = "kubevirt.io/placePCIDevicesOnRootComplex";
/// Annotation with the layout of the PCI buses.
pub const PCI_TOPOLOGY_VERSION: &str = "kubevirt.io/pci-topology-version";
/// Annotation with the slots set aside for interfaces.
pub const PCI_INTERFACE_SLOT_COUNT: &str = "kubevirt.io/pci-interface-slot-count";
/// Annotation that keeps PCI windows below 4 GiB.
pub const DISABLE_PCI_HOLE64: &str = "kubevirt.io/disablePCIHole64";
/// Annotation that keeps a launcher's pod after a failure, for a look at it.
pub const KEEP_LAUNCHER_ALIVE_AFTER_FAILURE: &str = "kubevirt.io/keep-launcher-alive-after-failure";
/// Annotation with log filters in libvirt's words.
pub const LIBVIRT_LOG_FILTERS: &str = "kubevirt.io/libvirt-log-filters";
/// Annotation that lets a bridge on the pod network migrate.
pub const ALLOW_POD_BRIDGE_MIGRATION: &str = "kubevirt.io/allow-pod-bridge-network-live-migration";
/// Annotation that keeps the guest from reporting free pages.
pub const FREE_PAGE_REPORTING_DISABLED: &str = "kubevirt.io/free-page-reporting-disabled";
/// Annotation that makes guest agent probes succeed without asking.
pub const PAUSE_GUEST_AGENT_PROBES: &str = "kubevirt.io/pause-guest-agent-probes";
/// Annotation of a claim with the file of a memory dump.
pub const MEMORY_DUMP: &str = "kubevirt.io/memory-dump";
/// Annotation of a migration off a node that is being drained.
pub const EVACUATION_MIGRATION: &str = "kubevirt.io/evacuationMigration";
/// Annotation of a migration to a new launcher.
pub const WORKLOAD_UPDATE_MIGRATION: &str = "kubevirt.io/workloadUpdateMigration";
/// Annotation that says who asked for an eviction.
pub const EVICTION_SOURCE: &str = "kubevirt.io/eviction-source";
/// Annotation of a migration with the seconds that its pod may be pending.
pub const MIGRATION_PENDING_POD_TIMEOUT: &str = "kubevirt.io/migrationPendingPodTimeoutSeconds";
/// Annotation of a migration with the seconds that its pod may find no node.
pub const MIGRATION_UNSCHEDULABLE_POD_TIMEOUT: &str =
    "kubevirt.io/migrationUnschedulablePodTimeoutSeconds";
/// Annotation of a migration with the seconds to wait for volumes that are no disks.
pub const MIGRATION_UTILITY_VOLUMES_TIMEOUT: &str =
    "kubevirt.io/migrationUtilityVolumesTimeoutSeconds";
/// Annotation of a virtual machine with the strategy it had before a restore.
pub const RESTORE_RUN_STRATEGY: &str = "kubevirt.io/restore-run-strategy";
/// Annotation of a virtual machine whose data volumes are made before it starts.
pub const IMMEDIATE_DATA_VOLUME_CREATION: &str = "kubevirt.io/immediate-data-volume-creation";
/// Annotation of an instance with the name of its instance type.
pub const INSTANCETYPE_NAME: &str = "kubevirt.io/instancetype-name";
/// Annotation of an instance with the name of its cluster instance type.
pub const CLUSTER_INSTANCETYPE_NAME: &str = "kubevirt.io/cluster-instancetype-name";
/// Annotation of an instance with the name of its preference.
pub const PREFERENCE_NAME: &str = "kubevirt.io/preference-name";
/// Annotation of an instance with the name of its cluster preference.
pub const CLUSTER_PREFERENCE_NAME: &str = "kubevirt.io/cluster-preference-name";

/// Readiness gate of a launcher pod: the guest isn't paused.
pub const UNPAUSED_READINESS_GATE: &str = "kubevirt.io/virtual-machine-unpaused";

/// Finalizer of an instance.
pub const VMI_FINALIZER: &str = "kubevirt.io/foregroundDeleteVirtualMachine";
/// Finalizer of an instance made by an old release.
pub const VMI_FINALIZER_OLD: &str = "foregroundDeleteVirtualMachine";
/// Finalizer of a virtual machine.
pub const VM_FINALIZER: &str = "kubevirt.io/virtualMachineControllerFinalize";
/// Finalizer of a migration.
pub const MIGRATION_FINALIZER: &str = "kubevirt.io/migrationJobFinalize";
/// Finalizer of an installation.
pub const KUBEVIRT_FINALIZER: &str = "kubevirt.io/virtOperatorFinalizer";

/// Longest value of a label.
const VALUE_LEN_MAX: usize = 63;
/// Hexadecimal digits of the digest that shortened names end in.
const DIGEST_DIGITS: usize = 8;

/// Returns a name as the value of a label, [`VMI_ID`] above all: one that is too long is cut and ends in a dash and the
/// first digits of its SHA-1. All of KubeVirt's programs shorten names alike, or services would find no pods.
pub fn value_of(name: &str) -> String {
    if name.len() <= VALUE_LEN_MAX {
        return name.to_owned();
    }
    let digest = Sha1::digest(name.as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let start: String = name
        .chars()
        .take(VALUE_LEN_MAX - DIGEST_DIGITS - 1)
        .collect();
    format!("{start}-{}", &digest[..DIGEST_DIGITS])
}

#[cfg(test)]
mod tests {
    use super::value_of;

    #[test]
    fn names_fit_into_labels() {
        assert_eq!(value_of("vm"), "vm");
        let longest = "x".repeat(63);
        assert_eq!(value_of(&longest), longest);
        assert_eq!(
            value_of(&"x".repeat(100)),
            format!("{}-50e48369", "x".repeat(54))
        );
        let dotted = format!("{}.{}", "y".repeat(53), "z".repeat(20));
        assert_eq!(value_of(&dotted), format!("{}.-5831b4b9", "y".repeat(53)));
    }
}
