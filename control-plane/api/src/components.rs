//! The parts of an installation: their names, service accounts, certificates and resources of nodes.

/// Namespace of an installation unless it is put elsewhere.
pub const INSTALL_NAMESPACE: &str = "kubevirt";

/// The launcher of an instance.
pub const VIRT_LAUNCHER: &str = "virt-launcher";
/// The node agent.
pub const VIRT_HANDLER: &str = "virt-handler";
/// The API server for subresources and admission.
pub const VIRT_API: &str = "virt-api";
/// The controllers.
pub const VIRT_CONTROLLER: &str = "virt-controller";
/// The installer.
pub const VIRT_OPERATOR: &str = "virt-operator";
/// A pod that holds plugged volumes on a node, by its label [`APP`](crate::labels::APP).
pub const HOTPLUG_DISK: &str = "hotplug-disk";
/// The container of a launcher's pod in which the machine runs.
pub const COMPUTE_CONTAINER: &str = "compute";
/// The container of a launcher's pod that prints the guest's serial console.
pub const CONSOLE_LOG_CONTAINER: &str = "guest-console-log";

/// Service accounts. Upstream's webhooks let nobody else write an instance's status.
pub mod service_account {
    /// Of `virt-api`.
    pub const API: &str = "kubevirt-apiserver";
    /// Of `virt-controller`.
    pub const CONTROLLER: &str = "kubevirt-controller";
    /// Of `virt-handler`.
    pub const HANDLER: &str = "kubevirt-handler";
    /// Of `virt-operator`.
    pub const OPERATOR: &str = "kubevirt-operator";
    /// Of the controller of migrations between clusters.
    pub const SYNCHRONIZATION_CONTROLLER: &str = "kubevirt-synchronization-controller";
}

/// Common names in certificates.
pub mod common_name {
    /// `virt-api` as a client of node agents.
    pub const HANDLER_CLIENT: &str = "kubevirt.io:system:client:virt-handler";
    /// A node agent as a server.
    pub const HANDLER_SERVER: &str = "kubevirt.io:system:node:virt-handler";
    /// A node agent as a client of another in a migration.
    pub const MIGRATION_CLIENT: &str = "kubevirt.io:system:client:migration";
}

/// Resources that nodes offer by device plugins.
pub mod resource {
    /// Hardware virtualisation.
    pub const KVM: &str = "devices.kubevirt.io/kvm";
    /// Network taps.
    pub const TUN: &str = "devices.kubevirt.io/tun";
    /// Network queues in the kernel.
    pub const VHOST_NET: &str = "devices.kubevirt.io/vhost-net";
    /// vsock in the kernel.
    pub const VHOST_VSOCK: &str = "devices.kubevirt.io/vhost-vsock";
}

/// Returns the user name of a service account, as API servers report it.
pub fn service_account_user(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

#[cfg(test)]
mod tests {
    use super::{INSTALL_NAMESPACE, service_account, service_account_user};

    #[test]
    fn users_of_service_accounts_are_named_as_api_servers_do() {
        assert_eq!(
            service_account_user(INSTALL_NAMESPACE, service_account::HANDLER),
            "system:serviceaccount:kubevirt:kubevirt-handler"
        );
    }
}
