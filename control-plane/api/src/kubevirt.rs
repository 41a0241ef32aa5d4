//! `KubeVirt`: how the cluster's machines are run. Parts that nobody of ours reads stay untyped.

use crate::condition::Condition;
use crate::metadata::{LocalObjectReference, ObjectMeta};
use crate::object::object;

mod configuration;
mod host_devices;
mod installation;
mod tuning;

pub use configuration::*;
pub use host_devices::*;
pub use installation::*;
pub use tuning::*;

/// Kind of [`KubeVirt`].
pub const KUBEVIRT_KIND: &str = "KubeVirt";

object! {
    /// A `KubeVirt` object; a cluster has one.
    pub struct KubeVirt {
        /// Group and version, `kubevirt.io/v1`.
        pub api_version: String,
        /// [`KUBEVIRT_KIND`].
        pub kind: String,
        /// Name, labels, identity.
        pub metadata: ObjectMeta,
        /// What is wanted.
        pub spec: KubeVirtSpec,
        /// What is.
        pub status: KubeVirtStatus,
    }

    /// What is wanted of the installation.
    pub struct KubeVirtSpec {
        /// Tag of the images.
        pub image_tag: String,
        /// Registry of the images.
        pub image_registry: String,
        /// When images are fetched.
        pub image_pull_policy: String,
        /// Secrets for the registry.
        pub image_pull_secrets: Vec<LocalObjectReference>,
        /// Namespace of Prometheus.
        pub monitor_namespace: String,
        /// Namespace of the service monitor.
        pub service_monitor_namespace: String,
        /// Service account of Prometheus.
        pub monitor_account: String,
        /// How running machines are brought to a new version.
        pub workload_update_strategy: WorkloadUpdateStrategy,
        /// What happens to machines when the installation goes.
        pub uninstall_strategy: String,
        /// How long certificates live.
        pub certificate_rotate_strategy: CertificateRotateStrategy,
        /// Version label of the product around it.
        pub product_version: String,
        /// Name label of the product around it.
        pub product_name: String,
        /// Component label of the product around it.
        pub product_component: String,
        /// Port for migrations between clusters.
        pub synchronization_port: String,
        /// How machines are run.
        pub configuration: Configuration,
        /// Placement of the control plane.
        pub infra: Option<ComponentPlacement>,
        /// Placement of the node agents.
        pub workloads: Option<ComponentPlacement>,
        /// Changes to the installed objects.
        pub customize_components: CustomizeComponents,
    }

    /// What the installation is.
    pub struct KubeVirtStatus {
        /// `Deploying`, `Deployed`, `Deleting` or `Deleted`.
        pub phase: String,
        /// Statements about it.
        pub conditions: Vec<Condition>,
        /// Version of the operator.
        pub operator_version: String,
        /// Registry wanted.
        pub target_kube_virt_registry: String,
        /// Version wanted.
        pub target_kube_virt_version: String,
        /// Installation wanted, JSON.
        pub target_deployment_config: String,
        /// Checksum of the installation wanted.
        #[serde(rename = "targetDeploymentID")]
        pub target_deployment_id: String,
        /// Registry in use.
        pub observed_kube_virt_registry: String,
        /// Version in use.
        pub observed_kube_virt_version: String,
        /// Installation in use, JSON.
        pub observed_deployment_config: String,
        /// Checksum of the installation in use.
        #[serde(rename = "observedDeploymentID")]
        pub observed_deployment_id: String,
        /// Machines that run with an old launcher.
        pub outdated_virtual_machine_instance_workloads: Option<i64>,
        /// Generation of the specification that was taken over.
        pub observed_generation: Option<i64>,
        /// Architecture of machines that name none.
        pub default_architecture: String,
        /// Installed objects.
        pub generations: Vec<InstalledGeneration>,
        /// Addresses for migrations between clusters.
        pub synchronization_addresses: Vec<String>,
    }
}

#[cfg(test)]
mod tests;
