//! Virtual machines.

use std::collections::BTreeMap;

use serde_json::Value;

use super::vmi::hotplug_disk;
use super::{Cluster, Verdict, gate_text, read, template};
use crate::data_volume::{DataVolumeSpec, DataVolumeTemplate};
use crate::features::gate;
use crate::field::FieldPath;
use crate::validate::Findings;
use crate::vm::{RunStrategy, RunStrategyError, VirtualMachine};
use crate::vmi::Vmi;
use crate::volumes::Volume;

/// Decides on a new virtual machine.
pub fn create_vm(vm: &Value, cluster: &Cluster<'_>) -> Verdict {
    check(vm, None, cluster)
}

/// Decides on a changed virtual machine. What is being deleted may change as it likes.
pub fn update_vm(old: &Value, new: &Value, cluster: &Cluster<'_>) -> Verdict {
    check(new, Some(old), cluster)
}

fn check(vm: &Value, old: Option<&Value>, cluster: &Cluster<'_>) -> Verdict {
    if !vm["metadata"]["deletionTimestamp"].is_null() {
        return Verdict::default();
    }
    let mut verdict = template::check(vm, cluster, old.is_none());
    let (vm, old): (VirtualMachine, Option<VirtualMachine>) =
        match (read(vm), old.map(read).transpose()) {
            (Ok(vm), Ok(old)) => (vm, old),
            (Err(refused), _) | (_, Err(refused)) => return refused,
        };
    let mut findings = Findings::default();
    check_run_strategy(&vm, cluster, &mut findings);
    check_matchers(&vm, &mut findings);
    let is_changed = old
        .as_ref()
        .is_none_or(|old| old.spec.data_volume_templates != vm.spec.data_volume_templates);
    if is_changed {
        check_data_volumes(&vm, &mut findings);
    }
    let strategy = vm.spec.update_volumes_strategy.as_deref();
    let path = FieldPath::new("spec.updateVolumesStrategy");
    let strategies = ["Replacement", "Migration"];
    findings.one_of(path, strategy.unwrap_or_default(), &strategies);
    if let Some(old) = &old {
        check_busy(old, &vm, &mut findings);
    }
    verdict.errors.extend(findings.errors);
    verdict.errors.extend(check_requests(&vm, None));
    if vm.spec.running.is_some() {
        let text = "spec.running is deprecated: use spec.runStrategy (Always, Halted, …) instead";
        verdict.warnings.push(text.to_owned());
    }
    verdict
}

fn check_run_strategy(vm: &VirtualMachine, cluster: &Cluster<'_>, findings: &mut Findings) {
    let path = FieldPath::new("spec.runStrategy");
    match vm.run_strategy() {
        Ok(RunStrategy::WaitAsReceiver) if !cluster.is_on(gate::DECENTRALIZED_LIVE_MIGRATION) => {
            findings.forbidden(path, gate_text(gate::DECENTRALIZED_LIVE_MIGRATION));
        }
        Ok(_) => {}
        Err(error @ RunStrategyError::Both) => {
            findings.forbidden(FieldPath::new("spec.running"), error.to_string());
        }
        Err(error @ RunStrategyError::Neither) => findings.required(path, error.to_string()),
        Err(error @ RunStrategyError::Unknown(_)) => findings.one_of_text(path, error.to_string()),
    }
}

fn check_matchers(vm: &VirtualMachine, findings: &mut Findings) {
    for (field, matcher, kind) in [
        ("instancetype", &vm.spec.instancetype, "Instancetype"),
        ("preference", &vm.spec.preference, "Preference"),
    ] {
        let Some(matcher) = matcher else { continue };
        let path = FieldPath::new("spec").child(field);
        if matcher.name.is_empty() && matcher.infer_from_volume.is_empty() {
            findings.required(
                path.child("name"),
                "required: name it, or a volume by inferFromVolume",
            );
        }
        let kinds = [
            format!("VirtualMachine{kind}").to_ascii_lowercase(),
            format!("VirtualMachineCluster{kind}").to_ascii_lowercase(),
        ];
        // Upstream takes singular and plural, in any case.
        let given = matcher.kind.to_ascii_lowercase();
        let given = given.strip_suffix('s').unwrap_or(&given);
        if !given.is_empty() && !kinds.iter().any(|kind| kind == given) {
            let text = format!(
                "{:?} is not known: use VirtualMachine{kind} or VirtualMachineCluster{kind}",
                matcher.kind
            );
            findings.one_of_text(path.child("kind"), text);
        }
        let policy = matcher.infer_from_volume_failure_policy.as_deref();
        let path = path.child("inferFromVolumeFailurePolicy");
        findings.one_of(path, policy.unwrap_or_default(), &["Reject", "Ignore"]);
    }
    let domain = &vm.spec.template.spec.domain;
    if vm.spec.instancetype.is_some() {
        let cpu = domain.cpu.as_ref();
        let is_sized = cpu.is_some_and(|cpu| cpu.sockets.or(cpu.cores).or(cpu.threads).is_some());
        let memory = domain.memory.as_ref();
        for (field, is_set) in [
            ("cpu", is_sized),
            (
                "memory.guest",
                memory.is_some_and(|memory| memory.guest.is_some()),
            ),
        ] {
            if is_set {
                let path = FieldPath::new("spec.template.spec.domain").child(field);
                findings.forbidden(
                    path,
                    "conflicts with spec.instancetype, which sets it: remove one of them",
                );
            }
        }
    }
}

fn check_data_volumes(vm: &VirtualMachine, findings: &mut Findings) {
    let mut names = BTreeMap::new();
    for (index, template) in vm.spec.data_volume_templates.iter().enumerate() {
        let path = FieldPath::new("spec.dataVolumeTemplates").index(index);
        check_data_volume(template, vm, &path, findings);
        let name = &template.metadata.name;
        if name.is_empty() {
            continue;
        }
        if let Some(first) = names.insert(name, index) {
            let text = format!("dataVolumeTemplates[{first}] has the same name: choose another");
            findings.duplicate(path.child("metadata.name"), text);
        }
        let uses = |volume: &Volume| {
            let claim = volume.persistent_volume_claim.as_ref();
            let data_volume = volume.data_volume.as_ref();
            claim.is_some_and(|claim| claim.claim_name == *name)
                || data_volume.is_some_and(|data_volume| data_volume.name == *name)
        };
        if !vm.spec.template.spec.volumes.iter().any(uses) {
            let text = format!(
                "no volume of the template uses {name:?}: add a dataVolume volume to spec.template.spec.volumes"
            );
            findings.add(path, text);
        }
    }
}

fn check_data_volume(
    template: &DataVolumeTemplate,
    vm: &VirtualMachine,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let metadata = &template.metadata;
    if metadata.name.is_empty() {
        findings.required(
            path.child("metadata.name"),
            "required: name the data volume",
        );
    }
    let namespace = vm.metadata.namespace_or_default();
    if !metadata.namespace.is_empty() && metadata.namespace != namespace {
        let text = format!("must be {namespace:?}, the virtual machine's own: remove it");
        findings.add(path.child("metadata.namespace"), text);
    }
    let spec = &template.spec;
    let path = path.child("spec");
    let claim = match (&spec.pvc, &spec.storage) {
        (Some(_), Some(_)) => {
            return findings.add(path, "pvc and storage exclude each other: keep one");
        }
        (None, None) => {
            return findings.required(path, "required: describe the claim in storage or pvc");
        }
        (Some(claim), None) | (None, Some(claim)) => claim,
    };
    let fills_itself = ["dataSource", "dataSourceRef"]
        .iter()
        .any(|field| claim[*field].is_object());
    let sources = sources(spec);
    match (fills_itself, sources.len(), spec.source_ref.is_some()) {
        (true, 0, false) | (false, 0, true) | (false, 1, false) => {}
        (true, _, _) => findings.add(
            path.child("source"),
            "excludes dataSource and dataSourceRef of the claim: keep one of them",
        ),
        (false, 0, false) => findings.required(
            path.child("source"),
            "required: say where the content comes from, by source or sourceRef",
        ),
        (false, _, true) => {
            findings.add(path.child("source"), "excludes sourceRef: keep one of them");
        }
        (false, _, false) => findings.add(
            path.child("source"),
            format!("{} exclude each other: keep one", sources.join(" and ")),
        ),
    }
}

fn sources(spec: &DataVolumeSpec) -> Vec<&'static str> {
    let Some(source) = &spec.source else {
        return Vec::new();
    };
    [
        ("http", source.http.is_some()),
        ("registry", source.registry.is_some()),
        ("pvc", source.pvc.is_some()),
        ("snapshot", source.snapshot.is_some()),
        ("s3", source.s3.is_some()),
        ("gcs", source.gcs.is_some()),
        ("imageio", source.imageio.is_some()),
        ("vddk", source.vddk.is_some()),
        ("blank", source.blank.is_some()),
        ("upload", source.upload.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, is_set)| is_set.then_some(name))
    .collect()
}

/// What may not change while a snapshot is taken or restored.
fn check_busy(old: &VirtualMachine, new: &VirtualMachine, findings: &mut Findings) {
    let is_started = old.run_strategy().ok() != new.run_strategy().ok();
    let path = FieldPath::new("spec.runStrategy");
    if let Some(name) = &new.status.restore_in_progress
        && is_started
    {
        findings.forbidden(
            path.clone(),
            format!("the restore {name:?} is under way: wait for its end"),
        );
    }
    if let Some(name) = &new.status.snapshot_in_progress {
        let text = format!("the snapshot {name:?} is being taken: wait for its end");
        if is_started {
            findings.forbidden(path, text.clone());
        }
        if old.spec.template.spec.volumes != new.spec.template.spec.volumes {
            findings.forbidden(FieldPath::new("spec.template.spec.volumes"), text);
        }
    }
}

/// Decides on a changed status of a virtual machine, `instance` being its instance if there is one: volumes
/// that are asked for must fit to those that are there.
pub fn update_vm_status(new: &Value, instance: Option<&Value>) -> Verdict {
    let (vm, instance): (VirtualMachine, Option<Vmi>) =
        match (read(new), instance.map(read).transpose()) {
            (Ok(vm), Ok(instance)) => (vm, instance),
            (Err(refused), _) | (_, Err(refused)) => return refused,
        };
    check_requests(&vm, instance.as_ref()).into()
}

fn check_requests(vm: &VirtualMachine, instance: Option<&Vmi>) -> Vec<crate::field::FieldError> {
    let mut findings = Findings::default();
    let (mut added, mut removed) = (BTreeMap::new(), BTreeMap::new());
    for (index, request) in vm.status.volume_requests.iter().enumerate() {
        let path = FieldPath::new("status.volumeRequests").index(index);
        match (&request.add_volume_options, &request.remove_volume_options) {
            (Some(add), None) => {
                let path = path.child("addVolumeOptions");
                if let Some(first) = added.insert(&add.name, index) {
                    let text =
                        format!("volumeRequests[{first}] asks for it already: wait for its end");
                    findings.duplicate(path.child("name"), text);
                }
                match &add.disk {
                    Some(disk) => findings
                        .errors
                        .extend(hotplug_disk(disk, &path.child("disk"))),
                    None => findings.required(path.child("disk"), "required: describe the disk"),
                }
                let source = add.volume_source.clone().unwrap_or_default();
                let wanted = Volume {
                    name: add.name.clone(),
                    persistent_volume_claim: source.persistent_volume_claim,
                    data_volume: source.data_volume,
                    ..Volume::default()
                };
                let of_instance = instance.map(|vmi| vmi.spec.volumes.as_slice());
                let known = vm.spec.template.spec.volumes.iter();
                let mut known = known.chain(of_instance.unwrap_or_default());
                if known.any(|volume| volume.name == wanted.name && *volume != wanted) {
                    let text = format!(
                        "another volume is called {:?}: choose another name",
                        wanted.name
                    );
                    findings.duplicate(path.child("name"), text);
                }
            }
            (None, Some(remove)) => {
                if let Some(first) = removed.insert(&remove.name, index) {
                    let text =
                        format!("volumeRequests[{first}] asks for it already: wait for its end");
                    findings.duplicate(path.child("removeVolumeOptions.name"), text);
                }
            }
            _ => findings.add(
                path,
                "set exactly one of addVolumeOptions and removeVolumeOptions",
            ),
        }
    }
    let is_moving = instance.is_some_and(|vmi| {
        let state = vmi.status.migration_state.as_ref();
        state.is_some_and(|state| state.start_timestamp.is_some() && state.end_timestamp.is_none())
    });
    if is_moving && !vm.status.volume_requests.is_empty() {
        let path = FieldPath::new("status.volumeRequests");
        findings.forbidden(path, "the instance is migrating: wait for its end");
    }
    findings.errors
}
