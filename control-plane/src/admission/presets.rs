//! Presets: settings that go into instances with certain labels when they are made (deprecated upstream, but old
//! manifests have them).

use std::collections::BTreeMap;

use api::Preset;
use serde::Deserialize;
use serde_json::{Value, json};

/// Annotation that keeps an instance from presets.
const EXCLUDED: &str = "virtualmachineinstancepresets.admission.kubevirt.io/exclude";
/// Prefix of annotations with the presets that were applied.
const APPLIED_PREFIX: &str = "virtualmachinepreset.kubevirt.io/";
const WARNING: &str =
    "VirtualMachineInstancePreset is deprecated: write its settings into the machines";
/// Parts of `spec.domain` that presets fill in, each as a whole.
const PARTS: [&str; 7] = [
    "/resources/requests",
    "/cpu",
    "/firmware",
    "/clock",
    "/features",
    "/devices/watchdog",
    "/ioThreadsPolicy",
];

/// Puts the presets that are meant for an instance into it; returns what users are told.
///
/// Where the instance says something itself, that stays.
///
/// # Errors
///
/// Two presets that want different things of one part.
pub(super) fn apply(vmi: &mut Value, presets: &[Value]) -> Result<Vec<String>, String> {
    if vmi["metadata"]["annotations"][EXCLUDED] == "true" {
        return Ok(Vec::new());
    }
    let labels: BTreeMap<String, String> =
        BTreeMap::deserialize(&vmi["metadata"]["labels"]).unwrap_or_default();
    let is_meant = |preset: &&Value| {
        let typed = Preset::deserialize(*preset);
        typed.is_ok_and(|preset| preset.spec.selector.unwrap_or_default().matches(&labels))
    };
    let presets: Vec<&Value> = presets.iter().filter(is_meant).collect();
    check(&presets)?;
    let mut warnings = Vec::new();
    for preset in presets {
        let name = preset["metadata"]["name"].as_str().unwrap_or_default();
        if merge(vmi, &preset["spec"]["domain"]) {
            let annotation = format!("{APPLIED_PREFIX}{name}");
            if !vmi["metadata"]["annotations"].is_object() {
                vmi["metadata"]["annotations"] = json!({});
            }
            vmi["metadata"]["annotations"][annotation] = json!(api::manifest::API_VERSION);
            warnings = vec![WARNING.to_owned()];
        }
    }
    Ok(warnings)
}

/// Refuses presets that contradict each other.
fn check(presets: &[&Value]) -> Result<(), String> {
    for (index, one) in presets.iter().enumerate() {
        for other in &presets[index + 1..] {
            let differs = |part: &&&str| {
                let (a, b) = (part_of(one, part), part_of(other, part));
                a.is_some() && b.is_some() && a != b
            };
            if let Some(part) = PARTS.iter().find(differs) {
                let name = |preset: &Value| preset["metadata"]["name"].clone();
                return Err(format!(
                    "presets {} and {} conflict: they want different things of spec.domain{}; \
                     change one of them or their selectors",
                    name(one),
                    name(other),
                    part.replace('/', "."),
                ));
            }
        }
    }
    Ok(())
}

fn part_of<'p>(preset: &'p Value, part: &str) -> Option<&'p Value> {
    let found = preset["spec"]["domain"].pointer(part);
    found.filter(|value| !value.is_null())
}

/// Fills parts of a preset into an instance; whether any of them is in force then.
fn merge(vmi: &mut Value, preset: &Value) -> bool {
    let mut is_applied = false;
    for part in PARTS {
        let wanted = preset.pointer(part).filter(|value| !value.is_null());
        let Some(wanted) = wanted else {
            continue;
        };
        let place = part[1..]
            .split('/')
            .fold(&mut vmi["spec"]["domain"], |place, field| {
                if !place.is_object() {
                    *place = json!({});
                }
                &mut place[field]
            });
        if place.is_null() || place == &json!({}) {
            *place = wanted.clone();
        }
        is_applied |= place == wanted;
    }
    is_applied
}
