//! Strategic merge patches: lists of built-in kinds are merged by the key of their items, with directives.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::lists::{Known, field, item, root_field};
use crate::failure::Failure;
use crate::schema::Schema;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

type Fields = Map<String, Value>;

/// Applies a strategic merge patch to an object of a kind.
///
/// # Errors
///
/// 400 when the patch is no object, a directive is unknown or malformed, or an item lacks its key.
pub fn strategic(schema: &Schema, doc: &Value, patch: &Value) -> Result<Value, Failure> {
    let Value::Object(patch) = patch else {
        return Err(Failure::bad_request("the patch must be an object"));
    };
    let doc = doc.as_object().cloned().unwrap_or_default();
    merge_object(Some(schema), doc, patch, true).map(Value::Object)
}

fn merge_object(
    known: Known<'_>,
    mut doc: Fields,
    patch: &Fields,
    is_root: bool,
) -> Result<Fields, Failure> {
    match directive(patch)? {
        Some("replace") => return Ok(without_directives(patch)),
        Some("delete") => return Ok(Fields::new()),
        _ => {}
    }
    if let Some(Value::Array(kept)) = patch.get(RETAIN_KEYS) {
        doc.retain(|name, _| kept.iter().any(|it| it == name.as_str()));
    }
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let known = if is_root {
            root_field(known, name)
        } else {
            field(known, name)
        };
        let old = doc.remove(name);
        if !value.is_null() {
            doc.insert(name.clone(), merge_value(known, old, value, name)?);
        }
    }
    delete_primitives(&mut doc, patch);
    for (name, order) in patch {
        if let (Some(name), Value::Array(order)) = (name.strip_prefix(ORDER), order) {
            let known = field(known, name);
            if let Some(Value::Array(items)) = doc.get_mut(name) {
                reorder(known, items, order);
            }
        }
    }
    Ok(doc)
}

fn merge_value(
    known: Known<'_>,
    old: Option<Value>,
    patch: &Value,
    name: &str,
) -> Result<Value, Failure> {
    match patch {
        Value::Object(patch) => {
            let old = match old {
                Some(Value::Object(old)) => old,
                _ => Fields::new(),
            };
            merge_object(known, old, patch, false).map(Value::Object)
        }
        Value::Array(patch) => {
            let old = match old {
                Some(Value::Array(old)) => old,
                _ => Vec::new(),
            };
            merge_list(known, old, patch, name).map(Value::Array)
        }
        plain => Ok(plain.clone()),
    }
}

fn merge_list(
    known: Known<'_>,
    mut old: Vec<Value>,
    patch: &[Value],
    name: &str,
) -> Result<Vec<Value>, Failure> {
    if let Some(key) = merge_key(known) {
        return merge_items(known, old, patch, key, name);
    }
    if !known.is_some_and(|it| it.merges_items) {
        return patch.iter().map(|it| plain(known, it, name)).collect();
    }
    let mut seen: HashSet<String> = old.iter().map(Value::to_string).collect();
    let new = patch.iter().filter(|it| seen.insert(it.to_string()));
    old.extend(new.cloned());
    Ok(old)
}

/// Returns the field by which items of a list are found; `None` where they are not.
fn merge_key(known: Known<'_>) -> Option<&str> {
    known
        .map(|it| it.merge_key.as_str())
        .filter(|it| !it.is_empty())
}

/// Returns an item of a list that is replaced as a whole, with directives inside it obeyed.
fn plain(known: Known<'_>, value: &Value, name: &str) -> Result<Value, Failure> {
    merge_value(item(known), None, value, name)
}

fn merge_items(
    known: Known<'_>,
    mut old: Vec<Value>,
    patch: &[Value],
    key: &str,
    name: &str,
) -> Result<Vec<Value>, Failure> {
    let is_replaced = patch
        .iter()
        .any(|it| it.get(PATCH).is_some_and(|it| it == "replace") && it.get(key).is_none());
    if is_replaced {
        old.clear();
    }
    let mut places: HashMap<String, usize> = HashMap::new();
    for (at, value) in old.iter().enumerate() {
        places.entry(value[key].to_string()).or_insert(at);
    }
    let mut gone = HashSet::new();
    for value in patch {
        let Value::Object(fields) = value else {
            return Err(Failure::bad_request(format!(
                "{name}: the items of this list are objects with the field {key}"
            )));
        };
        let Some(wanted) = fields.get(key).map(Value::to_string) else {
            if is_replaced {
                continue;
            }
            return Err(Failure::bad_request(format!(
                "{name}: an item lacks {key}, by which items of this list are found"
            )));
        };
        let at = places.get(&wanted).copied();
        if directive(fields)? == Some("delete") {
            gone.extend(at);
            continue;
        }
        let at = at.unwrap_or_else(|| {
            old.push(Value::Null);
            old.len() - 1
        });
        let before = old[at].as_object().cloned().unwrap_or_default();
        old[at] = Value::Object(merge_object(item(known), before, fields, false)?);
        places.insert(wanted, at);
        gone.remove(&at);
    }
    let kept = old
        .into_iter()
        .enumerate()
        .filter(|(at, _)| !gone.contains(at));
    Ok(kept.map(|(_, value)| value).collect())
}

fn directive(patch: &Fields) -> Result<Option<&str>, Failure> {
    match patch.get(PATCH) {
        None => Ok(None),
        Some(Value::String(word)) if matches!(word.as_str(), "replace" | "delete" | "merge") => {
            Ok(Some(word))
        }
        Some(other) => Err(Failure::bad_request(format!(
            "$patch: {other} is no directive: use replace, delete or merge"
        ))),
    }
}

fn without_directives(patch: &Fields) -> Fields {
    let plain = patch.iter().filter(|(name, _)| !name.starts_with('$'));
    plain
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn delete_primitives(doc: &mut Fields, patch: &Fields) {
    for (name, gone) in patch {
        if let (Some(name), Value::Array(gone)) = (name.strip_prefix(DELETE_FROM), gone)
            && let Some(Value::Array(items)) = doc.get_mut(name)
        {
            let gone: HashSet<String> = gone.iter().map(Value::to_string).collect();
            items.retain(|it| !gone.contains(&it.to_string()));
        }
    }
}

/// Puts items into the order that the patch names; others stay behind those that they were behind.
fn reorder(known: Known<'_>, items: &mut Vec<Value>, order: &[Value]) {
    let id = |value: &Value| match merge_key(known) {
        Some(key) => value[key].to_string(),
        None => value.to_string(),
    };
    let places: HashMap<String, usize> = order.iter().map(&id).zip(0..).collect();
    // Each named item goes with the others that stand behind it, the first of all with those in front.
    let (mut front, mut named): (Vec<Value>, Vec<(usize, Vec<Value>)>) = Default::default();
    for value in items.drain(..) {
        match (places.get(&id(&value)), named.last_mut()) {
            (Some(place), _) => named.push((*place, vec![value])),
            (None, Some((_, group))) => group.push(value),
            (None, None) => front.push(value),
        }
    }
    named.sort_by_key(|(place, _)| *place);
    items.extend(front);
    items.extend(named.into_iter().flat_map(|(_, group)| group));
}
