//! What a schema says about fields and about the items of lists.

use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value};

use crate::schema::{ListType, Schema};

/// `ObjectMeta` as far as merging needs it: custom resources do not describe theirs.
static METADATA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let owners = Schema {
        kind: "array".to_owned(),
        list: ListType::Map(vec!["uid".to_owned()]),
        merge_key: "uid".to_owned(),
        ..Schema::default()
    };
    let finalizers = Schema {
        kind: "array".to_owned(),
        list: ListType::Set,
        merges_items: true,
        ..Schema::default()
    };
    let properties = [
        ("ownerReferences".to_owned(), Arc::new(owners)),
        ("finalizers".to_owned(), Arc::new(finalizers)),
    ];
    Arc::new(Schema {
        kind: "object".to_owned(),
        properties: properties.into(),
        keeps_unknown: true,
        ..Schema::default()
    })
});

/// What is known about a value: a schema, or nothing.
pub(super) type Known<'s> = Option<&'s Schema>;

/// Returns what is known about a field of an object.
pub(super) fn field<'s>(known: Known<'s>, name: &str) -> Known<'s> {
    let known = known?;
    let found = known.properties.get(name).or(known.additional.as_ref());
    found.map(Arc::as_ref)
}

/// Returns what is known about a field of a whole object, whose metadata is the same for all kinds.
pub(super) fn root_field<'s>(known: Known<'s>, name: &str) -> Known<'s> {
    if name == "metadata" {
        Some(&METADATA)
    } else {
        field(known, name)
    }
}

/// Returns what is known about the items of a list.
pub(super) fn item(known: Known<'_>) -> Known<'_> {
    known?.items.as_deref()
}

/// Returns how a list is merged; as a whole, where nothing is known about it.
pub(super) fn list_type(known: Known<'_>) -> &ListType {
    known.map_or(&ListType::Atomic, |schema| &schema.list)
}

/// Whether an object is replaced as a whole.
pub(super) fn is_atomic_map(known: Known<'_>) -> bool {
    known.is_some_and(|schema| schema.is_atomic_map)
}

/// Returns the keys of a list's item, with the defaults for those that it leaves out. `None` when it is no object or a key
/// is neither there nor has a default.
pub(super) fn keys_of(
    known: Known<'_>,
    keys: &[String],
    value: &Value,
) -> Option<Map<String, Value>> {
    let fields = value.as_object()?;
    let default = |key: &str| field(item(known), key)?.default.clone();
    let pairs = keys.iter().map(|key| {
        let value = fields.get(key).cloned().or_else(|| default(key));
        value.map(|value| (key.clone(), value))
    });
    // A key that is absent everywhere (`protocol` of older objects) distinguishes nothing.
    let found: Map<String, Value> = pairs.flatten().collect();
    (!found.is_empty()).then_some(found)
}
