//! Whether objects are taken in: the verdicts of [`api::admission`] as answers.

use api::admission::{
    Cluster, Requester, Verdict, create_kubevirt, create_migration, create_preset,
    create_replica_set, create_vm, create_vmi, delete_kubevirt, update_kubevirt, update_migration,
    update_preset, update_replica_set, update_vm, update_vm_status, update_vmi,
};
use serde_json::{Value, json};

use super::ClusterConfig;
use super::answer::Answer;
use super::request::{Operation, Request};

/// Returns what verdicts depend on.
pub(super) fn cluster<'c>(request: &Request<'c>, cluster: &'c ClusterConfig) -> Cluster<'c> {
    // Who may do everything is at home on every node: the one process of a single node.
    let own = request.old_object.pointer("/status/nodeName");
    let own = request
        .is_master
        .then(|| own.and_then(Value::as_str).unwrap_or_default());
    Cluster {
        config: &cluster.configuration,
        namespace: &cluster.namespace,
        requester: Requester {
            user: request.user,
            node: request.node.or(own),
        },
    }
}

/// Decides on new instances.
pub(super) fn new_instance(request: &Request<'_>, config: &ClusterConfig) -> Answer {
    let vmi = named(request.object);
    create_vmi(&vmi, &cluster(request, config)).into()
}

/// Returns an object with a name: where the API server has not made it up yet, one of the same form.
fn named(object: &Value) -> Value {
    let mut object = object.clone();
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let (name, prefix) = (text("name"), text("generateName"));
    if name.is_empty() && !prefix.is_empty() {
        object["metadata"]["name"] = json!(format!("{prefix}xxxxx"));
    }
    object
}

/// Decides on changed instances.
pub(super) fn changed_instance(request: &Request<'_>, config: &ClusterConfig) -> Answer {
    let (old, new) = (request.old_object, request.object);
    update_vmi(old, new, &cluster(request, config)).into()
}

/// Decides on machines. Those that were stored before can be labelled, and let go, whatever the rules are now.
pub(super) fn machine(request: &Request<'_>, config: &ClusterConfig) -> Answer {
    let (old, cluster) = (request.old_object, cluster(request, config));
    let vm = named(request.object);
    let verdict = match request.operation {
        Operation::Update if !request.has_changed("spec") => Verdict::default(),
        Operation::Update => update_vm(old, &vm, &cluster),
        _ => create_vm(&vm, &cluster),
    };
    verdict.into()
}

/// Decides on the status of machines.
pub(super) fn machine_status(request: &Request<'_>, config: &ClusterConfig) -> Answer {
    update_vm_status(request.object, config.facts.instance.as_ref()).into()
}

/// Decides on replica sets.
pub(super) fn replica_set(request: &Request<'_>, config: &ClusterConfig) -> Answer {
    let (old, cluster) = (request.old_object, cluster(request, config));
    let verdict = match request.operation {
        Operation::Update if !request.has_changed("spec") => Verdict::default(),
        Operation::Update => update_replica_set(old, request.object, &cluster),
        _ => create_replica_set(&named(request.object), &cluster),
    };
    verdict.into()
}

/// Decides on presets.
pub(super) fn preset(request: &Request<'_>, config: &ClusterConfig) -> Answer {
    let (old, new, cluster) = (request.old_object, request.object, cluster(request, config));
    let verdict = match request.operation {
        Operation::Update => update_preset(old, new, &cluster),
        _ => create_preset(new, &cluster),
    };
    verdict.into()
}

/// Decides on new migrations.
pub(super) fn new_migration(request: &Request<'_>, config: &ClusterConfig) -> Answer {
    let facts = &config.facts;
    let instance = facts.instance.as_ref();
    let cluster = cluster(request, config);
    create_migration(request.object, instance, &facts.migrations, &cluster).into()
}

/// Decides on changed migrations.
pub(super) fn changed_migration(request: &Request<'_>, _config: &ClusterConfig) -> Answer {
    update_migration(request.old_object, request.object).into()
}

/// Decides on new installations.
pub(super) fn new_installation(request: &Request<'_>, config: &ClusterConfig) -> Answer {
    create_kubevirt(request.object, config.facts.installations).into()
}

/// Decides on changed installations.
pub(super) fn changed_installation(request: &Request<'_>, _config: &ClusterConfig) -> Answer {
    update_kubevirt(request.old_object, request.object).into()
}

/// Decides on the removal of installations.
pub(super) fn removed_installation(request: &Request<'_>, config: &ClusterConfig) -> Answer {
    let removed = match request.old_object {
        Value::Null => request.object,
        old => old,
    };
    delete_kubevirt(removed, &config.facts.workloads).into()
}
