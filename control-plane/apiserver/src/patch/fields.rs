//! Sets of fields, as `managedFields` writes them (`FieldsV1`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::lists::{Known, field, is_atomic_map, item, keys_of, list_type, root_field};
use crate::schema::ListType;

/// Depth of a set that is read; objects stay far below.
const DEPTH_MAX: usize = 100;

/// A set of fields of an object. Names of children are written as in `FieldsV1`: `f:spec`, `k:{"name":"a"}`, `v:"x"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// Whether the field itself is in the set.
    pub(super) is_member: bool,
    /// Fields below it.
    pub(super) children: BTreeMap<String, Fields>,
}

/// Fields of an object's top that nobody owns.
const UNOWNED: [&str; 2] = ["apiVersion", "kind"];
/// Fields of the metadata that nobody owns: the server keeps them.
const UNOWNED_METADATA: [&str; 10] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generateName",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "uid",
];

impl Fields {
    pub(super) fn is_empty(&self) -> bool {
        !self.is_member && self.children.values().all(Self::is_empty)
    }

    /// Returns the fields that an object has.
    pub(super) fn of(known: Known<'_>, object: &Value) -> Self {
        let mut set = Self::default();
        for (name, value) in object.as_object().into_iter().flatten() {
            if UNOWNED.contains(&name.as_str()) {
                continue;
            }
            let mut below = Self::of_value(root_field(known, name), value);
            if name == "metadata" {
                below.is_member = false;
                below.children.retain(|name, _| {
                    !name
                        .strip_prefix("f:")
                        .is_some_and(|it| UNOWNED_METADATA.contains(&it))
                });
            }
            set.insert(format!("f:{name}"), below);
        }
        set
    }

    /// Adds a set of fields below a name, unless it is empty.
    pub(super) fn insert(&mut self, name: String, below: Self) {
        if !below.is_empty() {
            self.children.insert(name, below);
        }
    }

    /// Returns the fields that a value has, itself included where it is a leaf.
    pub(super) fn of_value(known: Known<'_>, value: &Value) -> Self {
        let mut set = Self::default();
        match value {
            Value::Object(fields) if !fields.is_empty() && !is_atomic_map(known) => {
                for (name, value) in fields {
                    set.insert(
                        format!("f:{name}"),
                        Self::of_value(field(known, name), value),
                    );
                }
            }
            Value::Array(items) if *list_type(known) != ListType::Atomic && !items.is_empty() => {
                for value in items {
                    if let Some(name) = item_name(known, value) {
                        let mut below = match list_type(known) {
                            ListType::Map(_) => Self::of_value(item(known), value),
                            ListType::Set | ListType::Atomic => Self::default(),
                        };
                        below.is_member = true;
                        set.insert(name, below);
                    }
                }
            }
            _ => set.is_member = true,
        }
        set
    }

    pub(super) fn union(mut self, other: &Self) -> Self {
        self.is_member |= other.is_member;
        for (name, below) in &other.children {
            let merged = self.children.remove(name).unwrap_or_default().union(below);
            self.children.insert(name.clone(), merged);
        }
        self
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut set = Self {
            is_member: self.is_member && other.is_member,
            ..Self::default()
        };
        for (name, below) in &self.children {
            if let Some(theirs) = other.children.get(name) {
                set.insert(name.clone(), below.intersection(theirs));
            }
        }
        set
    }

    pub(super) fn difference(&self, other: &Self) -> Self {
        let mut set = Self {
            is_member: self.is_member && !other.is_member,
            ..Self::default()
        };
        for (name, below) in &self.children {
            let left = match other.children.get(name) {
                Some(theirs) => below.difference(theirs),
                None => below.clone(),
            };
            set.insert(name.clone(), left);
        }
        set
    }

    /// Returns the paths of the members, such as `.spec.containers[name="a"].image`, at most so many.
    pub(super) fn paths(&self, most: usize) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", most, &mut paths);
        paths
    }

    fn collect_paths(&self, path: &str, most: usize, paths: &mut Vec<String>) {
        if self.is_member && paths.len() < most {
            paths.push(path.to_owned());
        }
        for (name, below) in &self.children {
            below.collect_paths(&format!("{path}{}", readable(name)), most, paths);
        }
    }

    /// Writes the set as `FieldsV1`.
    pub(super) fn to_json(&self) -> Value {
        let mut json = Map::new();
        if self.is_member && !self.children.is_empty() {
            json.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (name, below) in &self.children {
            json.insert(name.clone(), below.to_json());
        }
        Value::Object(json)
    }

    /// Reads `FieldsV1`. `None` when it is something else.
    pub(super) fn from_json(json: &Value) -> Option<Self> {
        let mut set = Self::read(json, DEPTH_MAX)?;
        set.is_member = false;
        Some(set)
    }

    fn read(json: &Value, depth: usize) -> Option<Self> {
        let fields = json.as_object()?;
        let depth = depth.checked_sub(1)?;
        let mut set = Self {
            is_member: fields.is_empty() || fields.contains_key("."),
            ..Self::default()
        };
        for (name, below) in fields.iter().filter(|(name, _)| *name != ".") {
            set.children.insert(name.clone(), Self::read(below, depth)?);
        }
        Some(set)
    }
}

/// Returns the name of a list's item in a set.
pub(super) fn item_name(known: Known<'_>, value: &Value) -> Option<String> {
    match list_type(known) {
        ListType::Map(keys) => {
            let keys = keys_of(known, keys, value)?;
            Some(format!("k:{}", Value::Object(keys)))
        }
        ListType::Set => Some(format!("v:{value}")),
        ListType::Atomic => None,
    }
}

fn readable(name: &str) -> String {
    let Some((kind, rest)) = name.split_once(':') else {
        return name.to_owned();
    };
    match (kind, serde_json::from_str::<Value>(rest)) {
        ("k", Ok(Value::Object(keys))) => {
            let keys: Vec<_> = keys
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            format!("[{}]", keys.join(","))
        }
        ("v", Ok(value)) => format!("[={value}]"),
        _ => format!(".{rest}"),
    }
}
