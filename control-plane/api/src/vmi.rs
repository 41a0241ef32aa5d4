//! `VirtualMachineInstance`: one running machine.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::access_credentials::AccessCredential;
use crate::domain::DomainSpec;
use crate::metadata::ObjectMeta;
use crate::networks::Network;
use crate::object::object;
use crate::probes::Probe;
use crate::status::VmiStatus;
use crate::volumes::{UtilityVolume, Volume};

/// Seconds between the power button and the pulled plug when the specification says nothing.
pub const DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS: u64 = 30;

object! {
    /// A `VirtualMachineInstance` object.
    pub struct Vmi {
        /// Group and version, `kubevirt.io/v1`.
        pub api_version: String,
        /// `VirtualMachineInstance`.
        pub kind: String,
        /// Name, labels, identity.
        pub metadata: ObjectMeta,
        /// What is wanted.
        pub spec: VmiSpec,
        /// What is.
        pub status: VmiStatus,
    }

    /// What is wanted of a machine, and of the pod around it.
    pub struct VmiSpec {
        /// Pod priority class.
        pub priority_class_name: String,
        /// The machine.
        pub domain: DomainSpec,
        /// Labels that the node must have.
        pub node_selector: BTreeMap<String, String>,
        /// Pod affinity (untyped, `v1.Affinity`).
        #[cfg_attr(
            feature = "schema",
            schemars(with = "Option<k8s_openapi::api::core::v1::Affinity>")
        )]
        pub affinity: Option<Value>,
        /// Scheduler of the pod.
        pub scheduler_name: String,
        /// Service account of the pod.
        pub service_account_name: String,
        /// Taints that the pod bears (untyped, `v1.Toleration`).
        #[cfg_attr(
            feature = "schema",
            schemars(with = "Vec<k8s_openapi::api::core::v1::Toleration>")
        )]
        pub tolerations: Vec<Value>,
        /// Spread over topology domains (untyped, `v1.TopologySpreadConstraint`).
        #[cfg_attr(
            feature = "schema",
            schemars(with = "Vec<k8s_openapi::api::core::v1::TopologySpreadConstraint>")
        )]
        pub topology_spread_constraints: Vec<Value>,
        /// What an eviction does.
        pub eviction_strategy: Option<String>,
        /// `Paused` starts the machine with its processors stopped.
        pub start_strategy: Option<String>,
        /// Seconds between the power button and the pulled plug.
        pub termination_grace_period_seconds: Option<u64>,
        /// Where data come from.
        pub volumes: Vec<Volume>,
        /// When the machine is beyond help and its pod is restarted.
        pub liveness_probe: Option<Probe>,
        /// When the machine can serve.
        pub readiness_probe: Option<Probe>,
        /// Host name inside the guest.
        pub hostname: String,
        /// Subdomain inside the guest.
        pub subdomain: String,
        /// Networks that interfaces attach to.
        pub networks: Vec<Network>,
        /// Pod DNS policy.
        pub dns_policy: Option<String>,
        /// Pod DNS settings (untyped, `v1.PodDNSConfig`).
        #[cfg_attr(
            feature = "schema",
            schemars(with = "Option<k8s_openapi::api::core::v1::PodDNSConfig>")
        )]
        pub dns_config: Option<Value>,
        /// Keys and passwords given to the guest.
        pub access_credentials: Vec<AccessCredential>,
        /// CPU architecture.
        pub architecture: String,
        /// Dynamic resource claims.
        pub resource_claims: Vec<ResourceClaim>,
        /// Volumes that are no disks.
        pub utility_volumes: Vec<UtilityVolume>,
    }

    /// A dynamic resource claim of the pod; one of its sources is set.
    pub struct ResourceClaim {
        /// Name by which devices refer to it.
        pub name: String,
        /// A claim that is there.
        pub resource_claim_name: Option<String>,
        /// A template of which a claim is made.
        pub resource_claim_template_name: Option<String>,
    }
}

impl VmiSpec {
    /// Returns the seconds between the power button and the pulled plug.
    pub fn grace_period_seconds(&self) -> u64 {
        self.termination_grace_period_seconds
            .unwrap_or(DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS)
    }
}

impl Vmi {
    /// Returns the host name inside the guest: `spec.hostname`, else the object's name.
    pub fn guest_hostname(&self) -> &str {
        if self.spec.hostname.is_empty() {
            &self.metadata.name
        } else {
            &self.spec.hostname
        }
    }

    /// Whether its machine is made and not started until somebody asks for it (`spec.startStrategy`).
    pub fn starts_paused(&self) -> bool {
        self.spec.start_strategy.as_deref() == Some("Paused")
    }
}
