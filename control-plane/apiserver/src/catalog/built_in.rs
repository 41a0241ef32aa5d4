//! The kinds of Kubernetes itself.

use std::any::TypeId;
use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1 as admission;
use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::authentication::v1 as authentication;
use k8s_openapi::api::authorization::v1 as authorization;
use k8s_openapi::api::autoscaling::v2 as autoscaling;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::events::v1 as events;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::api::node::v1 as node;
use k8s_openapi::api::policy::v1 as policy;
use k8s_openapi::api::rbac::v1 as rbac;
use k8s_openapi::api::scheduling::v1 as scheduling;
use k8s_openapi::api::storage::v1 as storage;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;
use k8s_openapi::{NamespaceResourceScope, Resource as Type};
use schemars::JsonSchema;
use schemars::generate::SchemaGenerator;

use super::{Catalog, LazySchema, Resource, ScalePaths, Subresource, Version};

/// What requests may do with objects that are stored.
pub(super) const STORED: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

const CREATE: &[&str] = &["create"];
const CONNECT: &[&str] = &["create", "get"];

const POD: &[Subresource] = &[
    below("attach", "", "v1", "PodAttachOptions", CONNECT),
    below("binding", "", "v1", "Binding", CREATE),
    below("eviction", "policy", "v1", "Eviction", CREATE),
    below("exec", "", "v1", "PodExecOptions", CONNECT),
    below("log", "", "v1", "Pod", &["get"]),
    below("portforward", "", "v1", "PodPortForwardOptions", CONNECT),
];
const NAMESPACE: &[Subresource] = &[below("finalize", "", "v1", "Namespace", &["update"])];
const SERVICE_ACCOUNT: &[Subresource] = &[below(
    "token",
    "authentication.k8s.io",
    "v1",
    "TokenRequest",
    CREATE,
)];

/// Returns the kinds that need no custom resource definition.
#[must_use]
pub fn built_in() -> Catalog {
    let rows = core_rows()
        .into_iter()
        .chain(workload_rows())
        .chain(cluster_rows())
        .chain(access_rows());
    let resources = rows.map(|row| {
        let resource = row.resource;
        (
            (resource.group.clone(), resource.plural.clone()),
            Arc::new(resource),
        )
    });
    Catalog {
        resources: resources.collect(),
    }
}

fn core_rows() -> Vec<Row> {
    vec![
        row::<core::ConfigMap>().short(&["cm"]),
        row::<core::Endpoints>().short(&["ep"]),
        row::<core::Event>().short(&["ev"]),
        row::<core::LimitRange>().short(&["limits"]),
        row::<core::Namespace>()
            .short(&["ns"])
            .status()
            .below(NAMESPACE),
        row::<core::Node>().short(&["no"]).status(),
        row::<core::PersistentVolume>().short(&["pv"]).status(),
        row::<core::PersistentVolumeClaim>()
            .short(&["pvc"])
            .status(),
        row::<core::Pod>()
            .short(&["po"])
            .in_all()
            .status()
            .below(POD),
        row::<core::PodTemplate>(),
        row::<core::ReplicationController>()
            .short(&["rc"])
            .in_all()
            .status()
            .scale(),
        row::<core::ResourceQuota>().short(&["quota"]).status(),
        row::<core::Secret>(),
        row::<core::Service>().short(&["svc"]).in_all().status(),
        row::<core::ServiceAccount>()
            .short(&["sa"])
            .below(SERVICE_ACCOUNT),
        row::<events::Event>().short(&["ev"]),
        row::<discovery::EndpointSlice>(),
    ]
}

fn workload_rows() -> Vec<Row> {
    vec![
        row::<apps::ControllerRevision>(),
        row::<apps::DaemonSet>().short(&["ds"]).in_all().status(),
        row::<apps::Deployment>()
            .short(&["deploy"])
            .in_all()
            .status()
            .scale(),
        row::<apps::ReplicaSet>()
            .short(&["rs"])
            .in_all()
            .status()
            .scale(),
        row::<apps::StatefulSet>()
            .short(&["sts"])
            .in_all()
            .status()
            .scale(),
        row::<autoscaling::HorizontalPodAutoscaler>()
            .short(&["hpa"])
            .in_all()
            .status(),
        row::<batch::CronJob>().short(&["cj"]).in_all().status(),
        row::<batch::Job>().in_all().status(),
        row::<policy::PodDisruptionBudget>()
            .short(&["pdb"])
            .status(),
    ]
}

fn cluster_rows() -> Vec<Row> {
    vec![
        row::<admission::MutatingWebhookConfiguration>().category("api-extensions"),
        row::<admission::ValidatingWebhookConfiguration>().category("api-extensions"),
        row::<apiextensions::CustomResourceDefinition>()
            .short(&["crd", "crds"])
            .category("api-extensions")
            .status(),
        row::<apiregistration::APIService>()
            .category("api-extensions")
            .status(),
        row::<coordination::Lease>(),
        row::<networking::Ingress>().short(&["ing"]).status(),
        row::<networking::IngressClass>(),
        row::<networking::NetworkPolicy>().short(&["netpol"]),
        row::<node::RuntimeClass>(),
        row::<scheduling::PriorityClass>().short(&["pc"]),
        row::<storage::CSIDriver>(),
        row::<storage::CSINode>(),
        row::<storage::CSIStorageCapacity>(),
        row::<storage::StorageClass>().short(&["sc"]),
        row::<storage::VolumeAttachment>().status(),
    ]
}

fn access_rows() -> Vec<Row> {
    vec![
        row::<authentication::SelfSubjectReview>().only_answered(),
        row::<authentication::TokenReview>().only_answered(),
        row::<authorization::LocalSubjectAccessReview>().only_answered(),
        row::<authorization::SelfSubjectAccessReview>().only_answered(),
        row::<authorization::SelfSubjectRulesReview>().only_answered(),
        row::<authorization::SubjectAccessReview>().only_answered(),
        row::<rbac::ClusterRole>(),
        row::<rbac::ClusterRoleBinding>(),
        row::<rbac::Role>(),
        row::<rbac::RoleBinding>(),
    ]
}

struct Row {
    resource: Resource,
}

fn row<T>() -> Row
where
    T: Type + JsonSchema,
    T::Scope: 'static,
{
    let version = Version {
        name: T::VERSION.to_owned(),
        is_served: true,
        is_storage: true,
        deprecation: None,
        schema: LazySchema::native(SchemaGenerator::subschema_for::<T>),
        columns: Vec::new(),
        has_status: false,
        scale: None,
    };
    Row {
        resource: Resource {
            group: T::GROUP.to_owned(),
            plural: T::URL_PATH_SEGMENT.to_owned(),
            singular: T::KIND.to_lowercase(),
            kind: T::KIND.to_owned(),
            list_kind: format!("{}List", T::KIND),
            short_names: Vec::new(),
            categories: Vec::new(),
            is_namespaced: TypeId::of::<T::Scope>() == TypeId::of::<NamespaceResourceScope>(),
            verbs: STORED,
            subresources: Vec::new(),
            is_custom: false,
            versions: vec![version],
        },
    }
}

impl Row {
    fn short(mut self, names: &[&str]) -> Self {
        self.resource.short_names = names.iter().map(|&it| it.to_owned()).collect();
        self
    }

    fn in_all(self) -> Self {
        self.category("all")
    }

    fn category(mut self, name: &str) -> Self {
        self.resource.categories.push(name.to_owned());
        self
    }

    fn status(mut self) -> Self {
        self.resource.versions[0].has_status = true;
        self
    }

    fn scale(mut self) -> Self {
        self.resource.versions[0].scale = Some(ScalePaths {
            spec_replicas: ".spec.replicas".to_owned(),
            status_replicas: ".status.replicas".to_owned(),
            label_selector: Some(".spec.selector".to_owned()),
        });
        self
    }

    fn below(mut self, subresources: &[Subresource]) -> Self {
        self.resource.subresources = subresources.to_vec();
        self
    }

    fn only_answered(mut self) -> Self {
        self.resource.verbs = CREATE;
        self
    }
}

const fn below(
    name: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource {
        name,
        group,
        version,
        kind,
        verbs,
    }
}

#[cfg(test)]
pub(super) use tests::all_definitions;

#[cfg(test)]
mod tests;
