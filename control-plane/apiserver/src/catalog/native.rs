//! Schemas of built-in kinds, from the types of k8s-openapi, with what those leave out: how lists merge.

mod merging;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use crate::schema::{Reader, Schema};

/// Makes the schema of one type, adding those that it refers to.
pub(crate) type Generate = fn(&mut SchemaGenerator) -> schemars::Schema;

/// Where references lead: the place where OpenAPI documents have them.
pub(crate) const DEFINITIONS: &str = "/components/schemas";

/// Definition of the metadata of every object.
pub(crate) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// Definitions that were read, shared by all kinds: the pod's spec is in six.
static KNOWN: LazyLock<Mutex<BTreeMap<String, Arc<Schema>>>> = LazyLock::new(Mutex::default);

/// Returns the definitions of some types and of what they refer to, and the names of the types themselves.
pub(crate) fn definitions(types: &[Generate]) -> (Map<String, Value>, Vec<String>) {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = DEFINITIONS.into();
    let mut generator = settings.into_generator();
    let names = types.iter().map(|it| referred(&it(&mut generator)));
    let names = names.collect();
    let mut definitions = generator.take_definitions(false);
    merging::annotate(&mut definitions);
    if let Some(Value::Object(quantity)) = definitions.get_mut(QUANTITY) {
        quantity.insert("format".to_owned(), json!("quantity"));
    }
    (definitions, names)
}

/// Returns the schema of a type.
pub(super) fn schema(generate: Generate) -> Arc<Schema> {
    let (definitions, names) = definitions(&[generate]);
    named(&definitions, &names[0])
}

/// Returns the schema of the metadata of every object.
pub(super) fn object_meta() -> Arc<Schema> {
    let known = known().get(OBJECT_META).cloned();
    known.unwrap_or_else(|| schema(object_meta_type()))
}

/// Returns the type of the metadata of every object.
pub(crate) fn object_meta_type() -> Generate {
    SchemaGenerator::subschema_for::<ObjectMeta>
}

fn named(definitions: &Map<String, Value>, name: &str) -> Arc<Schema> {
    let mut reader = Reader::native(definitions);
    for (name, schema) in known() {
        reader.know(name, schema);
    }
    let reference = json!({"$ref": format!("#{DEFINITIONS}/{name}")});
    let schema = reader.read(&reference);
    let schema = schema.expect("the schemas of k8s-openapi are well formed, a test reads them all");
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.extend(reader.into_definitions());
    // The reader copies what a reference leads to; the definition itself is shared.
    known.get(name).cloned().unwrap_or_else(|| Arc::new(schema))
}

fn known() -> BTreeMap<String, Arc<Schema>> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.clone()
}

fn referred(schema: &schemars::Schema) -> String {
    let reference = schema.get("$ref").and_then(Value::as_str);
    let name = reference.and_then(|it| it.rsplit('/').next());
    name.expect("named types are made as references").to_owned()
}
