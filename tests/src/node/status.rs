//! Reading the status of instances.

use serde_json::Value;

/// Returns a condition, or null.
#[must_use]
pub fn condition<'v>(vmi: &'v Value, kind: &str) -> &'v Value {
    let conditions = vmi["status"]["conditions"].as_array();
    let found = conditions.and_then(|all| all.iter().find(|one| one["type"] == kind));
    found.unwrap_or(&Value::Null)
}

/// Whether a condition is true.
#[must_use]
pub fn is_true(vmi: &Value, kind: &str) -> bool {
    condition(vmi, kind)["status"] == "True"
}

/// Whether an instance has ended, well or badly.
#[must_use]
pub fn is_final(vmi: &Value) -> bool {
    matches!(
        vmi["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    )
}

/// Returns the phases that an instance went through, in their order.
#[must_use]
pub fn phases(vmi: &Value) -> Vec<&str> {
    let entries = vmi["status"]["phaseTransitionTimestamps"].as_array();
    let phases = entries.into_iter().flatten();
    phases.filter_map(|entry| entry["phase"].as_str()).collect()
}
