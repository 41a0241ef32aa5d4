//! Instance types and preferences that a new machine takes from a volume.

use api::vm::{InstancetypeMatcher, VirtualMachine};

/// What a machine does when the volume names none.
const IGNORE: &str = "Ignore";

/// How flags ask for an inference.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    /// Volume that is named; else the one that boots first.
    pub(super) from: Option<&'a str>,
    /// Whether the user has asked for it.
    pub(super) is_explicit: bool,
}

/// Returns what makes a machine take something from a volume; `None` when nobody asked and no volume is fit for it.
///
/// # Errors
///
/// Fails when the user asked and it cannot be done.
pub(super) fn matcher(
    vm: &VirtualMachine,
    wish: Wish<'_>,
) -> Result<Option<InstancetypeMatcher>, String> {
    match volume(vm, wish.from) {
        Ok(volume) => Ok(Some(InstancetypeMatcher {
            infer_from_volume: volume,
            infer_from_volume_failure_policy: (!wish.is_explicit).then(|| IGNORE.to_owned()),
            ..InstancetypeMatcher::default()
        })),
        Err(error) if wish.is_explicit => Err(error),
        Err(_) => Ok(None),
    }
}

/// Returns the volume to take it from.
fn volume(vm: &VirtualMachine, from: Option<&str>) -> Result<String, String> {
    let spec = &vm.spec.template.spec;
    let disks = spec.domain.devices.disks.iter();
    let first = disks
        .filter(|disk| disk.boot_order.is_some())
        .min_by_key(|disk| disk.boot_order);
    let first = first.map(|disk| disk.name.as_str());
    let name = from
        .or(first)
        .or(spec.volumes.first().map(|volume| volume.name.as_str()));
    let Some(name) = name else {
        return Err(
            "at least one volume is needed to infer an instance type or preference".to_owned(),
        );
    };
    let Some(volume) = spec.volumes.iter().find(|volume| volume.name == name) else {
        return Err(format!("there is no volume with name {name:?}"));
    };
    let is_fit = match &volume.data_volume {
        Some(source) => is_labelled(vm, &source.name),
        None => volume.persistent_volume_claim.is_some(),
    };
    if !is_fit {
        return Err(format!(
            "nothing can be inferred from volume {name:?}: it works with claims, data sources, and imports of claims, snapshots and registries"
        ));
    }
    Ok(name.to_owned())
}

/// Whether a data volume comes from something that may carry labels with names of types.
fn is_labelled(vm: &VirtualMachine, name: &str) -> bool {
    let mut templates = vm.spec.data_volume_templates.iter();
    let Some(template) = templates.find(|template| template.metadata.name == name) else {
        return true;
    };
    let source = template.spec.source.as_ref();
    template.spec.source_ref.is_some()
        || source.is_some_and(|source| {
            source.pvc.is_some() || source.registry.is_some() || source.snapshot.is_some()
        })
}
