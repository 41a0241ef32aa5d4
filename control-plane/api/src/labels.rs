//! Names of labels, annotations and finalizers.

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
/// Label with the name of an instance.
pub const VMI_NAME: &str = "kubevirt.io/vmi-name";
/// Label with the name of a virtual machine.
pub const VM_NAME: &str = "vm.kubevirt.io/name";
/// Node label that says whether machines may be placed there.
pub const SCHEDULABLE: &str = "kubevirt.io/schedulable";
/// Annotation of a launcher pod with the name of its instance.
pub const DOMAIN: &str = "kubevirt.io/domain";
/// Node annotation with the time of the last sign of life.
pub const HEARTBEAT: &str = "kubevirt.io/heartbeat";
/// Annotation with an Ignition configuration.
pub const IGNITION_DATA: &str = "kubevirt.io/ignitiondata";
/// Annotation that lists hook sidecars.
pub const HOOK_SIDECARS: &str = "hooks.kubevirt.io/hookSidecars";
/// Annotation that asks for guest memory in a shared memfd.
pub const MEMFD: &str = "kubevirt.io/memfd";
/// Finalizer of an instance.
pub const VMI_FINALIZER: &str = "kubevirt.io/foregroundDeleteVirtualMachine";
/// Finalizer of a virtual machine.
pub const VM_FINALIZER: &str = "kubevirt.io/virtualMachineControllerFinalize";
