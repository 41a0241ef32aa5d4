//! From the schemas that schemars makes of our types to structural schemas, as API servers want them: one
//! type each, no references, `null` only where it is allowed.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::facets;

/// Where definitions are in what schemars makes.
const DEFINITIONS: &str = "#/$defs/";
/// Longest description; `kubectl explain` shows it on a line or two.
const MAX_DESCRIPTION_LEN: usize = 160;
/// Nesting of our types, which do not contain themselves, is far below.
const MAX_DEPTH: usize = 60;

/// Returns the structural schema of an object's type.
pub(super) fn schema_of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let root = Value::from(generator.into_root_schema_for::<T>());
    let definitions = root.get("$defs").and_then(Value::as_object).cloned();
    let inliner = Inliner {
        definitions: definitions.unwrap_or_default(),
    };
    let mut schema = inliner.structural(&root, 0);
    facets::add(&T::schema_name(), &mut schema);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.insert("metadata".to_owned(), json!({"type": "object"}));
    }
    Value::Object(schema)
}

/// Replaces references by what they refer to.
struct Inliner {
    definitions: Map<String, Value>,
}

impl Inliner {
    fn structural(&self, schema: &Value, depth: usize) -> Map<String, Value> {
        assert!(depth < MAX_DEPTH, "no type of ours contains itself");
        let Some(schema) = schema.as_object() else {
            return anything();
        };
        let mut result = self.without_description(schema, depth);
        if let Some(text) = schema.get("description").and_then(Value::as_str) {
            result.insert("description".to_owned(), describe(text).into());
        }
        result
    }

    fn without_description(&self, schema: &Map<String, Value>, depth: usize) -> Map<String, Value> {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            return self.named(name.trim_start_matches(DEFINITIONS), depth);
        }
        for list in ["anyOf", "oneOf", "allOf"] {
            if let Some(Value::Array(schemas)) = schema.get(list) {
                return self.one_of(schemas, depth);
            }
        }
        match type_of(schema) {
            Some("object") => self.object(schema, depth),
            Some("array") => {
                let items = schema.get("items").unwrap_or(&Value::Bool(true));
                let items = self.structural(items, depth + 1);
                Map::from_iter([
                    ("type".to_owned(), "array".into()),
                    ("items".to_owned(), items.into()),
                ])
            }
            Some(scalar) => plain(scalar, schema),
            None if schema.contains_key("enum") || schema.contains_key("const") => {
                Map::from_iter([("type".to_owned(), "string".into())])
            }
            None => anything(),
        }
    }

    /// The schema of a type by its name; foreign types come without their long descriptions.
    fn named(&self, name: &str, depth: usize) -> Map<String, Value> {
        match name {
            "ObjectMeta" => return embedded_metadata(),
            "Quantity" | "io.k8s.apimachinery.pkg.api.resource.Quantity" => return quantity(),
            "ProbePort" | "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => {
                return int_or_string();
            }
            _ => {}
        }
        let definition = &self.definitions[name];
        let mut schema = self.structural(definition, depth + 1);
        if name.starts_with("io.k8s.") {
            without_descriptions(&mut schema);
        }
        facets::add(name, &mut schema);
        schema
    }

    fn one_of(&self, schemas: &[Value], depth: usize) -> Map<String, Value> {
        let mut others = schemas.iter().filter(|schema| schema["type"] != "null");
        match (others.next(), others.next()) {
            (Some(only), None) => self.structural(only, depth + 1),
            // Alternatives of our types are the words of an enumeration; words may be added any time.
            _ => Map::from_iter([("type".to_owned(), "string".into())]),
        }
    }

    fn object(&self, schema: &Map<String, Value>, depth: usize) -> Map<String, Value> {
        let mut result = Map::from_iter([("type".to_owned(), "object".into())]);
        if let Some(Value::Object(properties)) = schema.get("properties") {
            let properties = properties.iter().map(|(name, property)| {
                let property = self.structural(property, depth + 1);
                (name.clone(), Value::Object(property))
            });
            result.insert("properties".to_owned(), properties.collect());
        }
        match schema.get("additionalProperties") {
            None | Some(Value::Bool(_)) => {}
            Some(values) => {
                let values = self.structural(values, depth + 1);
                result.insert("additionalProperties".to_owned(), values.into());
            }
        }
        if let Some(required) = schema.get("required") {
            result.insert("required".to_owned(), required.clone());
        }
        result
    }
}

/// The type of a schema, `null` aside.
fn type_of(schema: &Map<String, Value>) -> Option<&str> {
    match schema.get("type")? {
        Value::String(name) => Some(name),
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .find(|name| *name != "null"),
        _ => None,
    }
}

fn plain(scalar: &str, schema: &Map<String, Value>) -> Map<String, Value> {
    let mut result = Map::from_iter([("type".to_owned(), scalar.into())]);
    let format = match schema.get("format").and_then(Value::as_str) {
        Some("int32" | "int16" | "int8" | "uint8" | "uint16") => "int32",
        Some("int64" | "uint32" | "uint64" | "int" | "uint") => "int64",
        Some(format @ ("float" | "double" | "date-time" | "byte")) => format,
        _ => "",
    };
    if !format.is_empty() {
        result.insert("format".to_owned(), format.into());
    }
    for bound in ["minimum", "maximum"] {
        if let Some(number) = schema.get(bound) {
            result.insert(bound.to_owned(), number.clone());
        }
    }
    result
}

/// An object that we have no type of.
fn anything() -> Map<String, Value> {
    Map::from_iter([
        ("type".to_owned(), "object".into()),
        (
            "x-kubernetes-preserve-unknown-fields".to_owned(),
            true.into(),
        ),
    ])
}

/// Metadata of templates: all of it stays, and `null` is what old tools write.
fn embedded_metadata() -> Map<String, Value> {
    let mut schema = anything();
    schema.insert("nullable".to_owned(), true.into());
    schema
}

fn int_or_string() -> Map<String, Value> {
    Map::from_iter([
        (
            "anyOf".to_owned(),
            json!([{"type": "integer"}, {"type": "string"}]),
        ),
        ("x-kubernetes-int-or-string".to_owned(), true.into()),
    ])
}

fn quantity() -> Map<String, Value> {
    let mut schema = int_or_string();
    schema.insert("pattern".to_owned(), crate::quantity::PATTERN.into());
    schema
}

fn without_descriptions(schema: &mut Map<String, Value>) {
    schema.remove("description");
    for (key, value) in schema.iter_mut() {
        match value {
            Value::Object(fields) if key == "properties" => {
                for property in fields.values_mut().filter_map(Value::as_object_mut) {
                    without_descriptions(property);
                }
            }
            Value::Object(inner) => without_descriptions(inner),
            _ => {}
        }
    }
}

/// A doc comment as `kubectl explain` shows it: its first paragraph without markup, cut at a word.
fn describe(text: &str) -> String {
    let first = text.split("\n\n").next().unwrap_or_default();
    let first = without_links(&first.replace('\n', " ")).replace('`', "");
    if first.len() <= MAX_DESCRIPTION_LEN {
        return first;
    }
    let end = first
        .char_indices()
        .map(|(index, _)| index)
        .take_while(|index| *index <= MAX_DESCRIPTION_LEN)
        .last()
        .unwrap_or_default();
    let cut = first[..end].rfind(' ').unwrap_or(end);
    format!("{}…", &first[..cut])
}

/// Replaces `[text](target)` and `[text]` by the text.
fn without_links(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        let Some(len) = rest[open..].find(']') else {
            break;
        };
        result.push_str(&rest[..open]);
        result.push_str(&rest[open + 1..open + len]);
        rest = &rest[open + len + 1..];
        if rest.starts_with('(')
            && let Some(close) = rest.find(')')
        {
            rest = &rest[close + 1..];
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::describe;

    #[test]
    fn descriptions_are_plain_text_of_one_paragraph() {
        assert_eq!(
            describe("A `link` to [`this`](super::that), [`it`] and [x].\n\nMore."),
            "A link to this, it and x."
        );
        let long = "word ".repeat(100);
        assert!(describe(&long).ends_with("word…"));
        assert!(describe(&long).len() < 170);
    }
}
