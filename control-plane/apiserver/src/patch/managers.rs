//! Who owns which fields: `metadata.managedFields`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::fields::Fields;

/// Entries of plain updates that are kept apart; older ones become one, as in Kubernetes.
const UPDATES_MAX: usize = 10;
/// Who the older updates are counted to.
const ANCIENT: &str = "ancient-changes";
/// Longest name of a manager, in bytes.
const NAME_MAX: usize = 128;

/// What a manager did to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manager {
    /// Its name.
    pub(super) name: String,
    /// Whether by server-side apply.
    pub(super) is_apply: bool,
    /// `status`, or empty.
    pub(super) subresource: String,
    /// Version that it used.
    pub(super) api_version: String,
    /// When, RFC 3339.
    pub(super) time: String,
    /// The fields that are its.
    pub(super) fields: Fields,
}

impl Manager {
    pub(super) fn is(&self, name: &str, is_apply: bool, subresource: &str) -> bool {
        self.name == name && self.is_apply == is_apply && self.subresource == subresource
    }

    fn read(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let operation = text("operation");
        let known = matches!(operation.as_str(), "Apply" | "Update");
        let fields = Fields::from_json(&entry["fieldsV1"])?;
        known.then(|| Self {
            name: text("manager"),
            is_apply: operation == "Apply",
            subresource: text("subresource"),
            api_version: text("apiVersion"),
            time: text("time"),
            fields,
        })
    }

    fn write(&self) -> Value {
        let mut entry = json!({
            "manager": self.name,
            "operation": if self.is_apply { "Apply" } else { "Update" },
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_json(),
        });
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.clone().into();
        }
        entry
    }
}

/// Returns the managers of an object; those that cannot be read own nothing.
pub(super) fn managers(object: &Value) -> Vec<Manager> {
    let entries = object["metadata"]["managedFields"].as_array();
    entries
        .into_iter()
        .flatten()
        .filter_map(Manager::read)
        .collect()
}

/// Writes the managers into an object: those that own something, older updates as one.
pub(super) fn set_managers(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|it| !it.fields.is_empty());
    let mut updates: Vec<_> = (0..managers.len())
        .filter(|at| !managers[*at].is_apply)
        .collect();
    if updates.len() > UPDATES_MAX {
        updates.sort_by(|a, b| managers[*a].time.cmp(&managers[*b].time));
        updates.truncate(updates.len() - UPDATES_MAX + 1);
        let mut ancient = managers[updates[updates.len() - 1]].clone();
        ANCIENT.clone_into(&mut ancient.name);
        ancient.subresource.clear();
        for at in &updates {
            ancient.fields = ancient.fields.union(&managers[*at].fields);
        }
        updates.sort_unstable_by(|a, b| b.cmp(a));
        for at in updates {
            managers.remove(at);
        }
        managers.insert(0, ancient);
    }
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    let Some(metadata) = metadata else { return };
    if managers.is_empty() {
        metadata.remove("managedFields");
    } else {
        let entries = managers.iter().map(Manager::write).collect();
        metadata.insert("managedFields".to_owned(), entries);
    }
}

/// Returns a manager's name as it is kept: never empty, of bounded length.
pub(super) fn name_of(manager: &str) -> String {
    if manager.is_empty() {
        return "unknown".to_owned();
    }
    manager.chars().take(NAME_MAX).collect()
}

/// Returns a time as `managedFields` has it: to the second.
pub(super) fn time_of(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
