//! `spec.networks`: what interfaces attach to.

use crate::object::object;

object! {
    /// A network; one of its sources is set.
    pub struct Network {
        /// Name that an interface refers to.
        pub name: String,
        /// The pod's own network.
        pub pod: Option<PodNetwork>,
        /// A network of the Multus meta plugin.
        pub multus: Option<MultusNetwork>,
        /// A device of a dynamic resource claim.
        pub resource_claim: Option<ClaimRequest>,
    }

    /// A request in a dynamic resource claim.
    pub struct ClaimRequest {
        /// Claim in `spec.resourceClaims`.
        pub claim_name: String,
        /// Request in the claim.
        pub request_name: String,
    }

    /// The pod's own network.
    pub struct PodNetwork {
        /// IPv4 network behind masquerade, CIDR.
        #[serde(rename = "vmNetworkCIDR")]
        pub vm_network_cidr: String,
        /// IPv6 network behind masquerade, CIDR.
        #[serde(rename = "vmIPv6NetworkCIDR")]
        pub vm_ipv6_network_cidr: String,
    }

    /// A network of the Multus meta plugin.
    pub struct MultusNetwork {
        /// Network attachment definition, `[namespace/]name`.
        pub network_name: String,
        /// Whether it replaces the pod's own network.
        #[serde(rename = "default")]
        pub is_default: Option<bool>,
    }
}
