//! How the control plane itself is installed: placement, certificates, updates, changes.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::object::object;

object! {
    /// How running machines are brought to a new version.
    pub struct WorkloadUpdateStrategy {
        /// `LiveMigrate`, `Evict` or both; machines stay as they are when there is none.
        pub workload_update_methods: Vec<String>,
        /// Machines that are ended at once.
        pub batch_eviction_size: Option<i32>,
        /// Time between batches, `1m0s`.
        pub batch_eviction_interval: Option<String>,
    }

    /// How long certificates live.
    pub struct CertificateRotateStrategy {
        /// Certificates of our own authority.
        pub self_signed: Option<SelfSignedCertificates>,
    }

    /// Certificates of our own authority; durations are written `24h0m0s`.
    pub struct SelfSignedCertificates {
        /// Life of the authority (use `ca.duration`).
        pub ca_rotate_interval: Option<String>,
        /// Life of certificates (use `server.duration`).
        pub cert_rotate_interval: Option<String>,
        /// Time that two authorities are valid (use `ca.renewBefore`).
        pub ca_overlap_interval: Option<String>,
        /// The authority.
        pub ca: Option<CertificateLife>,
        /// Its certificates.
        pub server: Option<CertificateLife>,
    }

    /// How long a certificate lives.
    pub struct CertificateLife {
        /// Altogether.
        pub duration: Option<String>,
        /// Time before its end at which the next one is made.
        pub renew_before: Option<String>,
    }

    /// Where components run, and how many of each.
    pub struct ComponentPlacement {
        /// Where they run.
        pub node_placement: Option<NodePlacement>,
        /// How many of each.
        pub replicas: Option<u8>,
    }

    /// Which nodes pods may run on.
    pub struct NodePlacement {
        /// Labels that the node must have.
        pub node_selector: BTreeMap<String, String>,
        /// Pod affinity (untyped, `v1.Affinity`).
        #[cfg_attr(
            feature = "schema",
            schemars(with = "Option<k8s_openapi::api::core::v1::Affinity>")
        )]
        pub affinity: Option<Value>,
        /// Taints that the pods bear (untyped, `v1.Toleration`).
        #[cfg_attr(
            feature = "schema",
            schemars(with = "Vec<k8s_openapi::api::core::v1::Toleration>")
        )]
        pub tolerations: Vec<Value>,
    }

    /// Changes to the installed objects.
    pub struct CustomizeComponents {
        /// Patches.
        pub patches: Vec<ComponentPatch>,
        /// Flags of the components.
        pub flags: Option<ComponentFlags>,
    }

    /// A patch of an installed object.
    pub struct ComponentPatch {
        /// Name of the object.
        pub resource_name: String,
        /// Kind of the object.
        pub resource_type: String,
        /// The patch, JSON.
        pub patch: String,
        /// `json`, `merge` or `strategic`.
        #[serde(rename = "type")]
        pub patch_type: String,
    }

    /// Flags of the components.
    pub struct ComponentFlags {
        /// virt-api.
        pub api: BTreeMap<String, String>,
        /// virt-controller.
        pub controller: BTreeMap<String, String>,
        /// virt-handler.
        pub handler: BTreeMap<String, String>,
    }

    /// An installed object.
    pub struct InstalledGeneration {
        /// Group.
        pub group: String,
        /// Resource.
        pub resource: String,
        /// Namespace.
        pub namespace: String,
        /// Name.
        pub name: String,
        /// Generation that was installed.
        pub last_generation: Option<i64>,
        /// Checksum of what was installed.
        pub hash: String,
    }
}
