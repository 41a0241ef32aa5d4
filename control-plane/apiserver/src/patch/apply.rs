//! Server-side apply: a manager says what it wants of an object, and owns those fields.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::compare::compare;
use super::fields::{Fields, item_name};
use super::lists::{Known, field, is_atomic_map, item, list_type, root_field};
use super::managers::{Manager, managers, name_of, set_managers, time_of};
use crate::failure::{Cause, Failure};
use crate::schema::{ListType, Schema};

/// Conflicting fields that are named.
const CONFLICTS_MAX: usize = 50;

/// Applies what a manager wants of an object, which may not be there yet.
///
/// Fields that it applied before and leaves out now go away, unless somebody else owns them.
///
/// # Errors
///
/// 409 when it changes fields of other managers and `force` is not set; 400 when it brings `managedFields` along.
pub fn apply(
    schema: &Schema,
    live: Option<&Value>,
    applied: &Value,
    manager: &str,
    force: bool,
    subresource: &str,
    now: Timestamp,
) -> Result<Value, Failure> {
    if applied["metadata"]["managedFields"]
        .as_array()
        .is_some_and(|it| !it.is_empty())
    {
        return Err(Failure::bad_request(
            "metadata.managedFields must be nil: the server keeps it; leave it out of what is applied",
        ));
    }
    let (known, name) = (Some(schema), name_of(manager));
    let empty = Value::Object(Map::new());
    let live = live.unwrap_or(&empty);
    let mut owners = managers(live);
    let wanted = Fields::of(known, applied);
    let mut merged = merge_root(known, live, applied);
    let changed = compare(known, live, &merged).changed;
    let is_me = |it: &Manager| it.is(&name, true, subresource);
    take_over(&mut owners, &changed.intersection(&wanted), force, &is_me)?;
    let before = owners
        .iter()
        .find(|it| is_me(it))
        .map(|it| it.fields.clone());
    let given_up = before.unwrap_or_default().difference(&wanted);
    let others = owners.iter().filter(|it| !is_me(it));
    let kept = others.fold(wanted.clone(), |set, it| set.union(&it.fields));
    remove_root(known, &mut merged, &given_up, &kept);
    let is_new = owners.iter().all(|it| !is_me(it) || it.fields != wanted);
    let changes = is_new || without_managers(live) != without_managers(&merged);
    put(
        &mut owners,
        applied,
        &name,
        true,
        subresource,
        wanted,
        now,
        changes,
    );
    if !merged["metadata"].is_object() {
        merged["metadata"] = Value::Object(Map::new());
    }
    set_managers(&mut merged, owners);
    Ok(merged)
}

/// Notes who wrote an object by anything but apply: what is new or has another value belongs to the writer.
///
/// The list of managers that a request brings along counts; without one the old list goes on.
pub fn track(
    schema: &Schema,
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    subresource: &str,
    now: Timestamp,
) {
    let (known, name) = (Some(schema), name_of(manager));
    let empty = Value::Object(Map::new());
    let before = old.unwrap_or(&empty);
    let mut owners = if new["metadata"]["managedFields"].is_array() {
        managers(new)
    } else {
        managers(before)
    };
    let difference = compare(known, before, new);
    let lost = difference.changed.clone().union(&difference.removed);
    let is_me = |it: &Manager| it.is(&name, false, subresource);
    for owner in &mut owners {
        let gone = if is_me(owner) {
            &difference.removed
        } else {
            &lost
        };
        owner.fields = owner.fields.difference(gone);
    }
    if !difference.changed.is_empty() {
        let mine = owners
            .iter()
            .find(|it| is_me(it))
            .map(|it| it.fields.clone());
        let fields = mine.unwrap_or_default().union(&difference.changed);
        put(
            &mut owners,
            &new.clone(),
            &name,
            false,
            subresource,
            fields,
            now,
            true,
        );
    }
    set_managers(new, owners);
}

fn without_managers(object: &Value) -> Value {
    let mut object = object.clone();
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    metadata.map(|metadata| metadata.remove("managedFields"));
    object
}

/// Takes fields away from their owners, or says whose they are.
fn take_over(
    owners: &mut [Manager],
    changed: &Fields,
    force: bool,
    is_me: &impl Fn(&Manager) -> bool,
) -> Result<(), Failure> {
    let mut causes = Vec::new();
    for owner in owners.iter_mut().filter(|it| !is_me(it)) {
        let contested = owner.fields.intersection(changed);
        if contested.is_empty() {
            continue;
        }
        if force {
            owner.fields = owner.fields.difference(&contested);
        } else {
            causes.extend(conflicts(owner, &contested));
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    causes.truncate(CONFLICTS_MAX);
    let each: Vec<_> = causes
        .iter()
        .map(|it| format!("{}: {}", it.message, it.field))
        .collect();
    let (count, plural) = (each.len(), if each.len() == 1 { "" } else { "s" });
    let message = format!(
        "Apply failed with {count} conflict{plural}: {}",
        each.join("\n")
    );
    Err(Failure {
        causes,
        ..Failure::new(409, "Conflict", message)
    })
}

fn conflicts(owner: &Manager, contested: &Fields) -> Vec<Cause> {
    let using = if owner.is_apply {
        String::new()
    } else {
        format!(" using {}", owner.api_version)
    };
    let message = format!("conflict with \"{}\"{using}", owner.name);
    let cause = |field| Cause {
        reason: "FieldManagerConflict",
        message: message.clone(),
        field,
    };
    contested
        .paths(CONFLICTS_MAX)
        .into_iter()
        .map(cause)
        .collect()
}

/// Gives a manager its fields; the time moves on when something changed.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one entry of managedFields"
)]
fn put(
    owners: &mut Vec<Manager>,
    object: &Value,
    name: &str,
    is_apply: bool,
    subresource: &str,
    fields: Fields,
    now: Timestamp,
    changes: bool,
) {
    let api_version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    match owners
        .iter_mut()
        .find(|it| it.is(name, is_apply, subresource))
    {
        Some(mine) => {
            mine.fields = fields;
            mine.api_version = api_version;
            if changes {
                mine.time = time_of(now);
            }
        }
        None => owners.push(Manager {
            name: name.to_owned(),
            is_apply,
            subresource: subresource.to_owned(),
            api_version,
            time: time_of(now),
            fields,
        }),
    }
}

fn merge_root(known: Known<'_>, live: &Value, applied: &Value) -> Value {
    let mut merged = live.as_object().cloned().unwrap_or_default();
    for (name, value) in applied.as_object().into_iter().flatten() {
        let old = merged.remove(name);
        merged.insert(name.clone(), merge(root_field(known, name), old, value));
    }
    Value::Object(merged)
}

fn merge(known: Known<'_>, old: Option<Value>, applied: &Value) -> Value {
    match (old, applied) {
        (Some(Value::Object(mut old)), Value::Object(fields)) if !is_atomic_map(known) => {
            for (name, value) in fields {
                let before = old.remove(name);
                old.insert(name.clone(), merge(field(known, name), before, value));
            }
            Value::Object(old)
        }
        (Some(Value::Array(old)), Value::Array(items)) if *list_type(known) != ListType::Atomic => {
            Value::Array(merge_items(known, old, items))
        }
        _ => applied.clone(),
    }
}

fn merge_items(known: Known<'_>, mut old: Vec<Value>, items: &[Value]) -> Vec<Value> {
    let mut places: HashMap<Option<String>, usize> = HashMap::new();
    for (at, value) in old.iter().enumerate() {
        places.entry(item_name(known, value)).or_insert(at);
    }
    for value in items {
        match places.entry(item_name(known, value)) {
            Entry::Occupied(at) => {
                let at = *at.get();
                old[at] = merge(item(known), Some(old[at].take()), value);
            }
            Entry::Vacant(place) => {
                place.insert(old.len());
                old.push(value.clone());
            }
        }
    }
    old
}

fn remove_root(known: Known<'_>, object: &mut Value, gone: &Fields, kept: &Fields) {
    remove(object, gone, kept, &|name| root_field(known, name), known);
}

/// Removes fields, save those that somebody keeps.
fn remove<'s>(
    value: &mut Value,
    gone: &Fields,
    kept: &Fields,
    below: &dyn Fn(&str) -> Known<'s>,
    known: Known<'s>,
) {
    let nobody = Fields::default();
    for (name, gone) in &gone.children {
        let kept = kept.children.get(name).unwrap_or(&nobody);
        match value {
            Value::Object(fields) => {
                let name = name.strip_prefix("f:").unwrap_or(name);
                if kept.is_empty() && gone.is_member {
                    fields.remove(name);
                } else if let Some(value) = fields.get_mut(name) {
                    let known = below(name);
                    remove(value, gone, kept, &|name| field(known, name), known);
                    if kept.is_empty() && value.as_object().is_some_and(Map::is_empty) {
                        fields.remove(name);
                    }
                }
            }
            Value::Array(items) => {
                let at = items
                    .iter()
                    .position(|it| item_name(known, it).as_ref() == Some(name));
                let Some(at) = at else { continue };
                if kept.is_empty() && gone.is_member {
                    items.remove(at);
                } else {
                    let known = item(known);
                    remove(
                        &mut items[at],
                        gone,
                        kept,
                        &|name| field(known, name),
                        known,
                    );
                }
            }
            _ => {}
        }
    }
}
