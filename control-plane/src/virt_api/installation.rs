//! The objects by which a cluster knows `virt-api`: aggregated API, webhooks, roles.

mod roles;

use api::components::INSTALL_NAMESPACE;
use serde_json::{Value, json};

pub use self::roles::cluster_roles_for;
use super::{GROUP, VERSIONS};
use crate::admission::path;

/// Name of the service of `virt-api`.
const SERVICE: &str = "virt-api";
/// Time for an answer, seconds.
const TIMEOUT_SECONDS: u32 = 10;

/// What a webhook is asked about.
struct Hook {
    name: &'static str,
    path: &'static str,
    group: &'static str,
    resource: &'static str,
    operations: &'static [&'static str],
}

const fn hook(
    name: &'static str,
    path: &'static str,
    resource: &'static str,
    operations: &'static [&'static str],
) -> Hook {
    Hook {
        name,
        path,
        group: "kubevirt.io",
        resource,
        operations,
    }
}

const CREATE: &[&str] = &["CREATE"];
const UPDATE: &[&str] = &["UPDATE"];
const BOTH: &[&str] = &["CREATE", "UPDATE"];

const MUTATING: [Hook; 3] = [
    hook(
        "virtualmachines-mutator.kubevirt.io",
        path::MACHINE_MUTATE,
        "virtualmachines",
        BOTH,
    ),
    hook(
        "virtualmachineinstances-mutator.kubevirt.io",
        path::INSTANCE_MUTATE,
        "virtualmachineinstances",
        BOTH,
    ),
    hook(
        "migrations-mutator.kubevirt.io",
        path::MIGRATION_MUTATE,
        "virtualmachineinstancemigrations",
        CREATE,
    ),
];

const VALIDATING: [Hook; 12] = [
    Hook {
        group: "",
        ..hook(
            "virt-launcher-eviction-interceptor.kubevirt.io",
            path::EVICTION_VALIDATE,
            "pods/eviction",
            &["*"],
        )
    },
    hook(
        "virtualmachineinstances-create-validator.kubevirt.io",
        path::INSTANCE_CREATE_VALIDATE,
        "virtualmachineinstances",
        CREATE,
    ),
    hook(
        "virtualmachineinstances-update-validator.kubevirt.io",
        path::INSTANCE_UPDATE_VALIDATE,
        "virtualmachineinstances",
        UPDATE,
    ),
    hook(
        "virtualmachine-validator.kubevirt.io",
        path::MACHINE_VALIDATE,
        "virtualmachines",
        BOTH,
    ),
    hook(
        "virtualmachinereplicaset-validator.kubevirt.io",
        path::REPLICA_SET_VALIDATE,
        "virtualmachineinstancereplicasets",
        BOTH,
    ),
    hook(
        "virtualmachinepreset-validator.kubevirt.io",
        path::PRESET_VALIDATE,
        "virtualmachineinstancepresets",
        BOTH,
    ),
    hook(
        "migration-create-validator.kubevirt.io",
        path::MIGRATION_CREATE_VALIDATE,
        "virtualmachineinstancemigrations",
        CREATE,
    ),
    hook(
        "migration-update-validator.kubevirt.io",
        path::MIGRATION_UPDATE_VALIDATE,
        "virtualmachineinstancemigrations",
        UPDATE,
    ),
    hook(
        "kubevirt-crd-status-validator.kubevirt.io",
        path::STATUS_VALIDATE,
        "virtualmachines/status",
        BOTH,
    ),
    hook(
        "kubevirt-create-validator.kubevirt.io",
        path::INSTALLATION_CREATE_VALIDATE,
        "kubevirts",
        CREATE,
    ),
    hook(
        "kubevirt-update-validator.kubevirt.io",
        path::INSTALLATION_UPDATE_VALIDATE,
        "kubevirts",
        UPDATE,
    ),
    hook(
        "kubevirt-validator.kubevirt.io",
        path::INSTALLATION_DELETE_VALIDATE,
        "kubevirts",
        &["DELETE"],
    ),
];

impl Hook {
    fn object(&self, namespace: &str, bundle: &str) -> Value {
        let is_eviction = self.path == path::EVICTION_VALIDATE;
        let versions = if self.group.is_empty() {
            json!(["v1"])
        } else {
            json!(["v1", "v1alpha3"])
        };
        let effects = if is_eviction { "NoneOnDryRun" } else { "None" };
        let mut object = json!({
            "name": self.name,
            "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "service": {
                    "namespace": namespace, "name": SERVICE, "path": self.path, "port": 443,
                },
            },
            "failurePolicy": "Fail",
            // Both versions of a kind are named, so that none is converted.
            "matchPolicy": "Exact",
            "sideEffects": effects,
            "timeoutSeconds": TIMEOUT_SECONDS,
            "rules": [{
                "apiGroups": [self.group], "apiVersions": versions,
                "operations": self.operations, "resources": [self.resource], "scope": "*",
            }],
        });
        if is_eviction {
            // A cluster must be able to drain its nodes of all else while this side is down.
            let is_ours = "object.metadata.name.startsWith(\"virt-launcher\") \
                || object.metadata.name.startsWith(\"hp-volume-\")";
            object["matchConditions"] = json!([{"name": "only-vms", "expression": is_ours}]);
        }
        if !bundle.is_empty() {
            object["clientConfig"]["caBundle"] = json!(bundle);
        }
        object
    }
}

/// Returns the configurations of the webhooks, mutating and validating (`admissionregistration.k8s.io/v1`).
///
/// `bundle` is the authority of the service's certificate, PEM in base64; it is left out when empty, as in process.
#[must_use]
pub fn webhooks_for(namespace: &str, bundle: &str) -> Vec<Value> {
    let configuration = |kind: &str, name: &str, hooks: &[Hook]| {
        let hooks = hooks.iter().map(|hook| hook.object(namespace, bundle));
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": name, "labels": labels()},
            "webhooks": hooks.collect::<Vec<_>>(),
        })
    };
    vec![
        configuration(
            "MutatingWebhookConfiguration",
            "virt-api-mutator",
            &MUTATING,
        ),
        configuration(
            "ValidatingWebhookConfiguration",
            "virt-api-validator",
            &VALIDATING,
        ),
    ]
}

/// Returns the registrations of the aggregated API (`apiregistration.k8s.io/v1`).
///
/// `bundle` is the authority of the service's certificate, PEM in base64; it is left out when empty, as in process.
#[must_use]
pub fn api_services_for(namespace: &str, bundle: &str) -> Vec<Value> {
    let service = |version: &str| {
        let mut object = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": format!("{version}.{GROUP}"), "labels": labels()},
            "spec": {
                "service": {"namespace": namespace, "name": SERVICE, "port": 443},
                "group": GROUP, "version": version,
                "groupPriorityMinimum": 1000, "versionPriority": 15,
            },
        });
        if !bundle.is_empty() {
            object["spec"]["caBundle"] = json!(bundle);
        }
        object
    };
    VERSIONS.map(service).into()
}

/// Returns [`webhooks_for`] an installation in the usual namespace, in process.
#[must_use]
pub fn webhooks() -> Vec<Value> {
    webhooks_for(INSTALL_NAMESPACE, "")
}

/// Returns [`api_services_for`] an installation in the usual namespace, in process.
#[must_use]
pub fn api_services() -> Vec<Value> {
    api_services_for(INSTALL_NAMESPACE, "")
}

/// Returns [`cluster_roles_for`] an installation in the usual namespace.
#[must_use]
pub fn cluster_roles() -> Vec<Value> {
    cluster_roles_for(INSTALL_NAMESPACE)
}

/// Labels of all that is installed.
fn labels() -> Value {
    json!({"kubevirt.io": "", "app.kubernetes.io/component": "kubevirt"})
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{
        MUTATING, VALIDATING, api_services, api_services_for, cluster_roles, webhooks, webhooks_for,
    };
    use crate::admission;

    #[test]
    fn every_webhook_that_is_installed_is_answered() {
        for hook in MUTATING.iter().chain(&VALIDATING) {
            assert!(
                admission::paths().any(|path| path == hook.path),
                "{}",
                hook.path
            );
        }
    }

    #[test]
    fn objects_have_the_names_of_upstream() {
        let names = |objects: Vec<Value>| -> Vec<String> {
            let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
            objects.iter().map(name).collect()
        };
        assert_eq!(
            names(webhooks()),
            ["virt-api-mutator", "virt-api-validator"]
        );
        assert_eq!(
            names(api_services()),
            [
                "v1.subresources.kubevirt.io",
                "v1alpha3.subresources.kubevirt.io"
            ]
        );
        let roles = names(cluster_roles());
        for name in ["admin", "edit", "view", "default", "migrate"] {
            assert!(roles.contains(&format!("kubevirt.io:{name}")), "{roles:?}");
        }
    }

    #[test]
    fn an_authority_is_named_where_there_is_one() {
        let with = webhooks_for("ns", "QUJD");
        let config = &with[0]["webhooks"][0]["clientConfig"];
        assert_eq!(config["caBundle"], "QUJD");
        assert_eq!(config["service"]["namespace"], "ns");
        assert_eq!(
            api_services_for("ns", "QUJD")[0]["spec"]["caBundle"],
            "QUJD"
        );
        assert!(webhooks_for("ns", "")[0]["webhooks"][0]["clientConfig"]["caBundle"].is_null());
    }
}
