//! Changes of a template while an instance runs.

use api::labels;
use serde_json::Value;

use super::Case;
use crate::controller::change::{is_deleted, text};
use crate::controller::{RESTART_ON_UPDATE, conditions};

/// Fields of an instance's specification that matter only when its pod is placed: the next pod takes them over.
const PLACEMENT: [&str; 3] = ["nodeSelector", "affinity", "tolerations"];

/// Whether a change of the template waits for a restart.
pub(super) fn is_pending(case: &Case<'_>) -> bool {
    let Some(instance) = case.instance else {
        return false;
    };
    if is_deleted(instance) {
        return false;
    }
    let Some(started_from) = &case.observed.started_from else {
        // What is pending stays pending while nobody knows what the instance was made from.
        let is_current = super::revision_name(case.raw, instance).is_none();
        return !is_current && conditions::is_true(case.raw, api::vm::condition::RESTART_REQUIRED);
    };
    let live = case.config.cluster.vm_rollout_strategy.as_deref() != Some("Stage");
    let old = part(started_from.pointer("/data/spec"), live);
    let new = part(case.raw.get("spec"), live);
    old != new
}

/// The part of a virtual machine's specification that an instance is made of.
fn part(spec: Option<&Value>, live: bool) -> Value {
    let field = |name: &str| spec.and_then(|spec| spec.get(name)).cloned();
    let template = field("template").unwrap_or_default();
    let mut template = template.get("spec").cloned().unwrap_or_default();
    if live && let Some(template) = template.as_object_mut() {
        template.retain(|field, _| !PLACEMENT.contains(&field.as_str()));
    }
    let mut part = serde_json::json!({
        "template": template,
        "instancetype": field("instancetype"),
        "preference": field("preference"),
    });
    without_nulls(&mut part);
    part
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Whether a pending change restarts the instance now: only where the virtual machine or the cluster asks for it, and
/// only once the instance has come up.
pub(super) fn restarts(case: &Case<'_>, instance: &Value) -> bool {
    let annotations = case.raw.pointer("/metadata/annotations");
    let own = annotations.and_then(|known| known.get(RESTART_ON_UPDATE));
    let wanted = match own.and_then(Value::as_str) {
        Some(own) => own == "true",
        None => case.config.restart_on_update,
    };
    let is_up = text(instance, "/status/phase") == "Running";
    let is_moving = instance
        .pointer("/metadata/labels")
        .is_some_and(|known| known.get(labels::MIGRATION_TARGET_NODE_NAME).is_some());
    wanted && is_up && !is_moving && is_pending(case)
}
