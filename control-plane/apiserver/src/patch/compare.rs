//! Which fields two versions of an object differ in.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Fields, item_name};
use super::lists::{Known, field, is_atomic_map, item, list_type, root_field};
use crate::schema::ListType;

/// Differences of two objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Fields that are new or have another value.
    pub(super) changed: Fields,
    /// Fields that are no more.
    pub(super) removed: Fields,
}

/// Compares two objects of a kind. What nobody owns is left out.
pub(super) fn compare(known: Known<'_>, old: &Value, new: &Value) -> Difference {
    let mut found = object(old, new, |name| root_field(known, name));
    let owned = Fields::of(known, old).union(&Fields::of(known, new));
    found.changed = found.changed.intersection(&owned);
    found.removed = found.removed.intersection(&owned);
    found
}

fn object<'s>(old: &Value, new: &Value, known: impl Fn(&str) -> Known<'s>) -> Difference {
    let mut found = Difference::default();
    let (old, new) = (old.as_object(), new.as_object());
    for (name, value) in new.into_iter().flatten() {
        let before = old.and_then(|old| old.get(name));
        found.put(format!("f:{name}"), before, Some(value), known(name));
    }
    for (name, before) in old.into_iter().flatten() {
        if new.is_none_or(|new| !new.contains_key(name)) {
            found.put(format!("f:{name}"), Some(before), None, known(name));
        }
    }
    found
}

impl Difference {
    fn put(&mut self, name: String, old: Option<&Value>, new: Option<&Value>, known: Known<'_>) {
        match (old, new) {
            (None, Some(new)) => self.changed.insert(name, Fields::of_value(known, new)),
            (Some(old), None) => self.removed.insert(name, Fields::of_value(known, old)),
            (Some(old), Some(new)) if old != new => {
                let below = value(known, old, new);
                self.changed.insert(name.clone(), below.changed);
                self.removed.insert(name, below.removed);
            }
            _ => {}
        }
    }
}

fn value(known: Known<'_>, old: &Value, new: &Value) -> Difference {
    match (old, new) {
        (Value::Object(_), Value::Object(fields))
            if !is_atomic_map(known) && !fields.is_empty() =>
        {
            object(old, new, |name| field(known, name))
        }
        (Value::Array(old), Value::Array(new)) if *list_type(known) != ListType::Atomic => {
            items(known, old, new)
        }
        _ => Difference {
            changed: Fields::of_value(known, new),
            removed: Fields::of_value(known, old).difference(&Fields::of_value(known, new)),
        },
    }
}

fn items(known: Known<'_>, old: &[Value], new: &[Value]) -> Difference {
    let mut found = Difference::default();
    let named = |items: &[Value]| -> BTreeMap<String, Value> {
        let named = items
            .iter()
            .filter_map(|it| Some((item_name(known, it)?, it.clone())));
        named.collect()
    };
    let (old, new) = (named(old), named(new));
    for (name, value) in &new {
        match old.get(name) {
            Some(before) => found.put(name.clone(), Some(before), Some(value), item(known)),
            None => found.changed.insert(name.clone(), whole(known, value)),
        }
    }
    for (name, value) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
        found.removed.insert(name.clone(), whole(known, value));
    }
    found
}

fn whole(known: Known<'_>, value: &Value) -> Fields {
    let mut fields = match list_type(known) {
        ListType::Map(_) => Fields::of_value(item(known), value),
        ListType::Set | ListType::Atomic => Fields::default(),
    };
    fields.is_member = true;
    fields
}
