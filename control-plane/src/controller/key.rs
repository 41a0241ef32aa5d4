//! Which object is meant, and how each kind is addressed at the API server.

use std::fmt;

use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

/// Kinds of objects that the controllers read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `VirtualMachineInstance`.
    Instance,
    /// `VirtualMachine`.
    Machine,
    /// `VirtualMachineInstanceReplicaSet`.
    ReplicaSet,
    /// `VirtualMachineInstanceMigration`.
    Migration,
    /// `KubeVirt`.
    KubeVirt,
    /// `Pod`.
    Pod,
    /// `Node`.
    Node,
    /// `PersistentVolumeClaim`.
    Claim,
    /// `ControllerRevision`.
    Revision,
    /// `DataVolume` of the Containerized Data Importer.
    DataVolume,
    /// `NetworkAttachmentDefinition` of the network plumbing working group (Multus).
    NetworkAttachment,
    /// `Event`.
    Event,
    /// `Lease`.
    Lease,
}

impl Kind {
    /// Group and version, kind and plural.
    const fn names(self) -> (&'static str, &'static str, &'static str) {
        const KUBEVIRT: &str = "kubevirt.io/v1";
        match self {
            Self::Instance => (
                KUBEVIRT,
                "VirtualMachineInstance",
                "virtualmachineinstances",
            ),
            Self::Machine => (KUBEVIRT, "VirtualMachine", "virtualmachines"),
            Self::ReplicaSet => (
                KUBEVIRT,
                "VirtualMachineInstanceReplicaSet",
                "virtualmachineinstancereplicasets",
            ),
            Self::Migration => (
                KUBEVIRT,
                "VirtualMachineInstanceMigration",
                "virtualmachineinstancemigrations",
            ),
            Self::KubeVirt => (KUBEVIRT, "KubeVirt", "kubevirts"),
            Self::Pod => ("v1", "Pod", "pods"),
            Self::Node => ("v1", "Node", "nodes"),
            Self::Claim => ("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
            Self::Revision => ("apps/v1", "ControllerRevision", "controllerrevisions"),
            Self::DataVolume => ("cdi.kubevirt.io/v1beta1", "DataVolume", "datavolumes"),
            Self::NetworkAttachment => (
                "k8s.cni.cncf.io/v1",
                "NetworkAttachmentDefinition",
                "network-attachment-definitions",
            ),
            Self::Event => ("v1", "Event", "events"),
            Self::Lease => ("coordination.k8s.io/v1", "Lease", "leases"),
        }
    }

    /// Returns the group and version.
    pub(crate) fn api_version(self) -> &'static str {
        self.names().0
    }

    /// Returns the name of the kind as objects carry it.
    pub(crate) fn name(self) -> &'static str {
        self.names().1
    }

    /// Returns the path of a namespace's objects, or of all objects of a kind without namespaces.
    pub(crate) fn path(self, namespace: &str) -> String {
        let (version, _, plural) = self.names();
        let root = if version.contains('/') { "apis" } else { "api" };
        if namespace.is_empty() {
            format!("/{root}/{version}/{plural}")
        } else {
            format!("/{root}/{version}/namespaces/{namespace}/{plural}")
        }
    }

    /// Returns how the kind is watched.
    pub(crate) fn resource(self) -> ApiResource {
        let (version, kind, plural) = self.names();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its namespace; empty where the kind has none.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

impl Key {
    /// Makes a key.
    pub(crate) fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Returns the key of an object; `None` when it has no name.
    pub(crate) fn of(kind: Kind, object: &Value) -> Option<Self> {
        let text = |field| {
            object
                .pointer(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let name = text("/metadata/name");
        (!name.is_empty()).then(|| Self::new(kind, text("/metadata/namespace"), name))
    }

    /// Returns the path of the object, or of a part of it that is written by itself.
    pub(crate) fn path(&self, subresource: Option<&str>) -> String {
        let object = format!("{}/{}", self.kind.path(&self.namespace), self.name);
        match subresource {
            Some(part) => format!("{object}/{part}"),
            None => object,
        }
    }

    /// Returns the key of another object in the same namespace.
    pub(crate) fn sibling(&self, kind: Kind, name: &str) -> Self {
        Self::new(kind, self.namespace.clone(), name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.name();
        if self.namespace.is_empty() {
            write!(f, "{kind} {}", self.name)
        } else {
            write!(f, "{kind} {}/{}", self.namespace, self.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Kind};

    #[test]
    fn objects_have_the_paths_of_the_api_server() {
        let pod = Key::new(Kind::Pod, "default", "p");
        assert_eq!(
            pod.path(Some("status")),
            "/api/v1/namespaces/default/pods/p/status"
        );
        let vm = Key::new(Kind::Machine, "ns", "vm");
        assert_eq!(
            vm.path(None),
            "/apis/kubevirt.io/v1/namespaces/ns/virtualmachines/vm"
        );
        assert_eq!(
            Key::new(Kind::Node, "", "n1").path(None),
            "/api/v1/nodes/n1"
        );
        assert_eq!(Kind::Lease.resource().group, "coordination.k8s.io");
    }
}
