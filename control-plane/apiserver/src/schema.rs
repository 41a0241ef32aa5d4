//! What an object may look like: structural schemas (OpenAPI v3 as custom resource definitions use it).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// The schema of a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`; empty when any.
    pub kind: String,
    /// Sentence about it.
    pub description: String,
    /// Fields of an object.
    pub properties: BTreeMap<String, Arc<Schema>>,
    /// Schema of values under any other name.
    pub additional: Option<Arc<Schema>>,
    /// Schema of an array's items.
    pub items: Option<Arc<Schema>>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// Value of a field that is left out.
    pub default: Option<Value>,
    /// Values that alone are allowed.
    pub choices: Vec<Value>,
    /// Text format: `date-time`, `int32`, `byte`, …
    pub format: String,
    /// Regular expression of a text.
    pub pattern: String,
    /// Least number.
    pub minimum: Option<f64>,
    /// Greatest number.
    pub maximum: Option<f64>,
    /// Least and greatest length of a text or an array.
    pub length: (Option<u64>, Option<u64>),
    /// Whether `null` is a value.
    pub is_nullable: bool,
    /// Whether a number or a text will do (`x-kubernetes-int-or-string`).
    pub is_int_or_string: bool,
    /// Whether fields that it does not name stay (`x-kubernetes-preserve-unknown-fields`).
    pub keeps_unknown: bool,
    /// Whether it is an object with `apiVersion`, `kind`, `metadata` (`x-kubernetes-embedded-resource`).
    pub is_embedded_resource: bool,
    /// How a list is merged (`x-kubernetes-list-type`).
    pub list: ListType,
    /// Whether a map is replaced as a whole (`x-kubernetes-map-type: atomic`).
    pub is_atomic_map: bool,
}

/// How a list is merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// As a whole.
    #[default]
    Atomic,
    /// Item by item, equal items once.
    Set,
    /// Item by item, found by these fields.
    Map(Vec<String>),
}
