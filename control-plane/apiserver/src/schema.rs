//! What an object may look like: structural schemas (OpenAPI v3 as custom resource definitions use it).

mod check;
mod defaults;
mod format;
mod pattern;
mod prune;
mod read;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

pub use pattern::Pattern;
pub(crate) use read::Reader;

use crate::failure::Cause;

/// The schema of a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`; empty when any.
    pub kind: String,
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
    pub pattern: Pattern,
    /// Least number.
    pub minimum: Option<f64>,
    /// Greatest number.
    pub maximum: Option<f64>,
    /// Least and greatest length of a text in characters, or count of an array's items or of an object's fields.
    pub length: (Option<u64>, Option<u64>),
    /// Whether `null` is a value.
    pub is_nullable: bool,
    /// Whether a number or a text will do (`x-kubernetes-int-or-string`).
    pub is_int_or_string: bool,
    /// Whether fields that it does not name stay (`x-kubernetes-preserve-unknown-fields`).
    pub keeps_unknown: bool,
    /// Whether it is an object with `apiVersion`, `kind`, `metadata` (`x-kubernetes-embedded-resource`).
    pub is_embedded_resource: bool,
    /// How server-side apply merges a list (`x-kubernetes-list-type`).
    pub list: ListType,
    /// Field by which a strategic merge patch finds items (`x-kubernetes-patch-merge-key`), of built-in kinds. A list with
    /// none is replaced by strategic merge patches, unless `merges_items`. It may differ from the keys of `list`: `ports`
    /// of a container are found by `containerPort` here and by `containerPort` and `protocol` there.
    pub merge_key: String,
    /// Whether a strategic merge patch adds plain items (`x-kubernetes-patch-strategy: merge` without a key: `finalizers`).
    pub merges_items: bool,
    /// Whether a map is replaced as a whole (`x-kubernetes-map-type: atomic`).
    pub is_atomic_map: bool,
    /// Rules that few schemas have.
    pub rules: Option<Box<Rules>>,
}

/// Rules of a schema that few schemas have; they restrict and never say what is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Schemas that all must fit.
    pub all_of: Vec<Schema>,
    /// Schemas of which one must fit.
    pub any_of: Vec<Schema>,
    /// Schemas of which exactly one must fit.
    pub one_of: Vec<Schema>,
    /// A schema that must not fit.
    pub not: Option<Schema>,
    /// Whether `minimum` itself is too little, and `maximum` itself too much.
    pub excludes: (bool, bool),
    /// A number that must divide it.
    pub multiple_of: Option<f64>,
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

/// What is wrong with a schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the schema at {path}: {problem}")]
pub struct SchemaError {
    /// Where in the schema: `properties[spec].items`.
    pub path: String,
    /// What is wrong and the cure.
    pub problem: String,
}

impl Schema {
    /// Returns the schema of any value, of which every field stays.
    #[must_use]
    pub fn anything() -> Self {
        Self {
            keeps_unknown: true,
            is_nullable: true,
            ..Self::default()
        }
    }

    /// Reads a structural schema (OpenAPI v3 of custom resource definitions), or a JSON Schema 2020-12 with `$ref` into its
    /// `$defs`. A definition that contains itself keeps any field where it does.
    ///
    /// # Errors
    ///
    /// When it is too deep or too large, or a keyword has a value of another type than it must have.
    pub fn from_json(json: &Value) -> Result<Self, SchemaError> {
        Reader::structural(json).read(json)
    }

    /// Removes fields that the schema does not know and returns their paths, such as `spec.list[0].bar`; `apiVersion`,
    /// `kind` and `metadata` of the root always stay. Paths after the first thousand are not returned.
    pub fn prune(&self, value: &mut Value) -> Vec<String> {
        prune::prune(self, value)
    }

    /// Fills in the defaults of fields that are left out. Doing it again changes nothing.
    pub fn fill_defaults(&self, value: &mut Value) {
        defaults::fill(self, value);
    }

    /// Returns what is wrong with a value; at most 100 causes.
    #[must_use]
    pub fn validate(&self, value: &Value) -> Vec<Cause> {
        check::check(self, value)
    }

    /// Returns the schemas directly below it, each with its place.
    pub(crate) fn children(&self) -> impl Iterator<Item = (String, &Self)> {
        let fields = self.properties.iter();
        let fields = fields.map(|(name, it)| (format!("properties[{name}]"), &**it));
        let other = self.additional.iter();
        let other = other.map(|it| ("additionalProperties".to_owned(), &**it));
        let items = self.items.iter().map(|it| ("items".to_owned(), &**it));
        fields.chain(other).chain(items)
    }
}

#[cfg(test)]
mod tests;
