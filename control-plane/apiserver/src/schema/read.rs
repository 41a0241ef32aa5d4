//! Schemas from JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{ListType, Rules, Schema, SchemaError};

/// Deepest nesting of schemas: the JSON parser allows no more for values either.
const MAX_DEPTH: usize = 100;

/// Most schemas in one: KubeVirt's largest has about 4,000.
const MAX_NODES: usize = 200_000;

/// Most plain schemas that are kept for sharing; a search among more costs more than they take.
const MAX_PLAIN: usize = 64;

/// Types of values.
const KINDS: [&str; 7] = [
    "array", "boolean", "integer", "null", "number", "object", "string",
];

/// Parts of the names of built-in types that report. Kubernetes takes reports with parts missing, whatever its documents
/// call required.
const OBSERVED: [&str; 8] = [
    "Status",
    "Condition",
    "ContainerState",
    "NodeSystemInfo",
    "DaemonEndpoint",
    "ContainerImage",
    "AttachedVolume",
    ".Event",
];

type Keywords = Map<String, Value>;

/// Finds a definition by its name.
type Find<'a> = Box<dyn Fn(&str) -> Option<&'a Value> + 'a>;

/// Reads schemas and keeps the definitions that they share.
pub(crate) struct Reader<'a> {
    find: Find<'a>,
    definitions: BTreeMap<String, Definition>,
    plain: Vec<Arc<Schema>>,
    left: usize,
    is_native: bool,
}

#[derive(Clone)]
enum Definition {
    /// It is being read; who refers to it meanwhile is inside it.
    Begun,
    Read(Arc<Schema>),
}

impl<'a> Reader<'a> {
    /// Returns a reader of schemas whose `$ref` lead into `$defs` or `definitions` of a root.
    pub(crate) fn structural(root: &'a Value) -> Self {
        let find = |name: &str| {
            let places = ["$defs", "definitions"];
            places.iter().find_map(|it| root.get(it)?.get(name))
        };
        Self::new(Box::new(find), false)
    }

    /// Returns a reader of the schemas of built-in kinds, where `null` says that a field is left out, and an object without
    /// fields may have any.
    pub(crate) fn native(definitions: &'a Keywords) -> Self {
        Self::new(Box::new(|name| definitions.get(name)), true)
    }

    fn new(find: Find<'a>, is_native: bool) -> Self {
        Self {
            find,
            definitions: BTreeMap::new(),
            plain: Vec::new(),
            left: MAX_NODES,
            is_native,
        }
    }

    /// Adds a definition that was read before.
    pub(crate) fn know(&mut self, name: String, schema: Arc<Schema>) {
        self.definitions.insert(name, Definition::Read(schema));
    }

    /// Returns the definitions that were read.
    pub(crate) fn into_definitions(self) -> impl Iterator<Item = (String, Arc<Schema>)> {
        let all = self.definitions.into_iter();
        all.filter_map(|(name, definition)| match definition {
            Definition::Begun => None,
            Definition::Read(schema) => Some((name, schema)),
        })
    }

    /// Reads a schema.
    pub(crate) fn read(&mut self, json: &Value) -> Result<Schema, SchemaError> {
        let mut path = Path::default();
        self.schema(json, &mut path)
    }

    fn schema(&mut self, json: &Value, path: &mut Path) -> Result<Schema, SchemaError> {
        self.left = match self.left.checked_sub(1) {
            Some(left) if path.0.len() < MAX_DEPTH => left,
            Some(_) => return Err(path.error("it is nested too deep, use fewer levels")),
            None => return Err(path.error("the schema is too large, make it smaller")),
        };
        match json {
            Value::Bool(true) => Ok(Schema::anything()),
            Value::Object(keywords) => self.keywords(keywords, path),
            _ => Err(path.error("it must be an object")),
        }
    }

    fn keywords(&mut self, json: &Keywords, path: &mut Path) -> Result<Schema, SchemaError> {
        if let Some(reference) = json.get("$ref") {
            return self.reference(reference, json, path);
        }
        if let Some(only) = or_null(json) {
            let mut schema = self.schema(only, path)?;
            schema.is_nullable = true;
            return Ok(schema);
        }
        let mut schema = plain_keywords(json, path)?;
        self.nested(json, &mut schema, path)?;
        if self.is_native {
            make_native(&mut schema);
        } else {
            self.rules(json, &mut schema, path)?;
        }
        Ok(schema)
    }

    /// Reads what a reference leads to; keywords beside it say how it is merged, and its default.
    fn reference(
        &mut self,
        reference: &Value,
        json: &Keywords,
        path: &mut Path,
    ) -> Result<Schema, SchemaError> {
        let name = reference.as_str().and_then(|it| it.rsplit('/').next());
        let name = name.ok_or_else(|| path.error("$ref must be a text"))?;
        let found = self.definition(name, path)?;
        let beside = plain_keywords(json, path)?;
        let mut schema = (*found).clone();
        if beside.list != ListType::Atomic {
            schema.list = beside.list;
        }
        if !beside.merge_key.is_empty() {
            schema.merge_key = beside.merge_key;
        }
        schema.default = beside.default.or(schema.default);
        schema.is_atomic_map |= beside.is_atomic_map;
        schema.is_nullable |= beside.is_nullable;
        Ok(schema)
    }

    fn definition(&mut self, name: &str, path: &mut Path) -> Result<Arc<Schema>, SchemaError> {
        match self.definitions.get(name) {
            Some(Definition::Read(schema)) => return Ok(Arc::clone(schema)),
            Some(Definition::Begun) => return Ok(Arc::new(Schema::anything())),
            None => {}
        }
        let Some(json) = (self.find)(name) else {
            let problem =
                format!("$ref leads to \"{name}\", which is not defined, add it to $defs");
            return Err(path.error(&problem));
        };
        self.definitions.insert(name.to_owned(), Definition::Begun);
        let mut schema = self.schema(json, path)?;
        if self.is_native && OBSERVED.iter().any(|it| name.contains(it)) {
            schema.required.clear();
        }
        let schema = Arc::new(schema);
        self.know(name.to_owned(), Arc::clone(&schema));
        Ok(schema)
    }

    fn child(
        &mut self,
        json: &Value,
        path: &mut Path,
        step: &str,
    ) -> Result<Arc<Schema>, SchemaError> {
        path.0.push(step.to_owned());
        let shared = self.shared_definition(json, path)?;
        let schema = match shared {
            Some(schema) => schema,
            None => {
                let schema = self.schema(json, path)?;
                self.share(schema)
            }
        };
        path.0.pop();
        Ok(schema)
    }

    /// Returns the definition itself where nothing but a description stands beside the reference.
    fn shared_definition(
        &mut self,
        json: &Value,
        path: &mut Path,
    ) -> Result<Option<Arc<Schema>>, SchemaError> {
        let Some(json) = json.as_object() else {
            return Ok(None);
        };
        let is_plain = json.keys().all(|it| it == "$ref" || it == "description");
        let Some(reference) = json.get("$ref").filter(|_| is_plain) else {
            return Ok(None);
        };
        let name = reference.as_str().and_then(|it| it.rsplit('/').next());
        let name = name.ok_or_else(|| path.error("$ref must be a text"))?;
        if path.0.len() >= MAX_DEPTH {
            return Err(path.error("it is nested too deep, use fewer levels"));
        }
        self.definition(name, path).map(Some)
    }

    fn share(&mut self, schema: Schema) -> Arc<Schema> {
        let is_leaf = schema.properties.is_empty() && schema.rules.is_none();
        if !is_leaf {
            return Arc::new(schema);
        }
        if let Some(known) = self.plain.iter().find(|it| ***it == schema) {
            return Arc::clone(known);
        }
        let schema = Arc::new(schema);
        if self.plain.len() < MAX_PLAIN {
            self.plain.push(Arc::clone(&schema));
        }
        schema
    }

    fn nested(
        &mut self,
        json: &Keywords,
        schema: &mut Schema,
        path: &mut Path,
    ) -> Result<(), SchemaError> {
        if let Some(fields) = json.get("properties") {
            let fields = fields.as_object();
            let fields = fields.ok_or_else(|| path.error("properties must be an object"))?;
            for (name, field) in fields {
                let field = self.child(field, path, &format!("properties[{name}]"))?;
                schema.properties.insert(name.clone(), field);
            }
        }
        match json.get("additionalProperties") {
            None | Some(Value::Bool(false)) => {}
            Some(other) => {
                schema.additional = Some(self.child(other, path, "additionalProperties")?);
            }
        }
        if let Some(items) = json.get("items") {
            schema.items = Some(self.child(items, path, "items")?);
        }
        Ok(())
    }

    fn rules(
        &mut self,
        json: &Keywords,
        schema: &mut Schema,
        path: &mut Path,
    ) -> Result<(), SchemaError> {
        let flag = |name| json.get(name).and_then(Value::as_bool).unwrap_or(false);
        let mut rules = Rules {
            excludes: (flag("exclusiveMinimum"), flag("exclusiveMaximum")),
            multiple_of: number(json, "multipleOf", path)?,
            ..Rules::default()
        };
        // Structural schemas of int-or-string say so a second time, in `anyOf`.
        if !schema.is_int_or_string {
            rules.any_of = self.many(json, "anyOf", path)?;
            rules.all_of = self.many(json, "allOf", path)?;
        }
        rules.one_of = self.many(json, "oneOf", path)?;
        if let Some(not) = json.get("not") {
            path.0.push("not".to_owned());
            rules.not = Some(self.schema(not, path)?);
            path.0.pop();
        }
        if rules != Rules::default() {
            schema.rules = Some(Box::new(rules));
        }
        Ok(())
    }

    fn many(
        &mut self,
        json: &Keywords,
        name: &str,
        path: &mut Path,
    ) -> Result<Vec<Schema>, SchemaError> {
        let Some(all) = json.get(name) else {
            return Ok(Vec::new());
        };
        let all = all.as_array();
        let all = all.ok_or_else(|| path.error(&format!("{name} must be a list")))?;
        let mut schemas = Vec::new();
        for (index, one) in all.iter().enumerate() {
            path.0.push(format!("{name}[{index}]"));
            schemas.push(self.schema(one, path)?);
            path.0.pop();
        }
        Ok(schemas)
    }
}

/// Returns the schema that stands beside `null` in a choice of the two (schemars' form of `Option`).
fn or_null(json: &Keywords) -> Option<&Value> {
    let choices = json.get("anyOf")?.as_array()?;
    let is_null = |it: &Value| it.get("type").is_some_and(|it| it == "null");
    match choices.as_slice() {
        [one, null] | [null, one] if is_null(null) => Some(one),
        _ => None,
    }
}

fn make_native(schema: &mut Schema) {
    schema.is_nullable = true;
    let is_object = schema.kind == "object" || schema.kind.is_empty();
    let is_open = schema.properties.is_empty() && schema.additional.is_none();
    schema.keeps_unknown |= is_object && is_open;
}

fn plain_keywords(json: &Keywords, path: &Path) -> Result<Schema, SchemaError> {
    let flag = |name| json.get(name).and_then(Value::as_bool).unwrap_or(false);
    let (kind, or_null) = kind(json, path)?;
    let mut choices = list(json, "enum", path)?.to_vec();
    choices.extend(json.get("const").cloned());
    let strategy = text(json, "x-kubernetes-patch-strategy", path)?;
    let merge_key = text(json, "x-kubernetes-patch-merge-key", path)?.to_owned();
    let anything = json.is_empty();
    Ok(Schema {
        kind,
        required: texts(json, "required", path)?,
        default: json.get("default").cloned(),
        choices,
        format: text(json, "format", path)?.to_owned(),
        pattern: text(json, "pattern", path)?.into(),
        minimum: number(json, "minimum", path)?,
        maximum: number(json, "maximum", path)?,
        length: (
            length(json, ["minLength", "minItems", "minProperties"], path)?,
            length(json, ["maxLength", "maxItems", "maxProperties"], path)?,
        ),
        is_nullable: flag("nullable") || or_null || anything,
        is_int_or_string: flag("x-kubernetes-int-or-string")
            || text(json, "format", path)? == "int-or-string",
        keeps_unknown: flag("x-kubernetes-preserve-unknown-fields") || anything,
        is_embedded_resource: flag("x-kubernetes-embedded-resource"),
        list: list_type(json, path)?,
        merges_items: merge_key.is_empty() && strategy.split(',').any(|it| it == "merge"),
        merge_key,
        is_atomic_map: text(json, "x-kubernetes-map-type", path)? == "atomic",
        ..Schema::default()
    })
}

/// Returns the type, and whether `null` stands beside it (2020-12 has lists of types).
fn kind(json: &Keywords, path: &Path) -> Result<(String, bool), SchemaError> {
    let Some(kinds) = json.get("type").and_then(Value::as_array) else {
        let kind = text(json, "type", path)?;
        if !kind.is_empty() && !KINDS.contains(&kind) {
            let problem = format!("type is \"{kind}\", use one of {}", KINDS.join(", "));
            return Err(path.error(&problem));
        }
        return Ok((kind.to_owned(), false));
    };
    let or_null = kinds.iter().any(|it| it == "null");
    let mut kinds = kinds
        .iter()
        .filter_map(Value::as_str)
        .filter(|it| *it != "null");
    let first = kinds.next().unwrap_or_default();
    let only = if kinds.next().is_some() { "" } else { first };
    Ok((only.to_owned(), or_null))
}

fn list_type(json: &Keywords, path: &Path) -> Result<ListType, SchemaError> {
    match text(json, "x-kubernetes-list-type", path)? {
        "set" => Ok(ListType::Set),
        "map" => {
            let keys = texts(json, "x-kubernetes-list-map-keys", path)?;
            if keys.is_empty() {
                return Err(path.error("a list of type map needs x-kubernetes-list-map-keys"));
            }
            Ok(ListType::Map(keys))
        }
        "" | "atomic" => Ok(ListType::Atomic),
        other => Err(path.error(&format!(
            "x-kubernetes-list-type is \"{other}\", use atomic, set or map"
        ))),
    }
}

fn text<'a>(json: &'a Keywords, name: &str, path: &Path) -> Result<&'a str, SchemaError> {
    match json.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(path.error(&format!("{name} must be a text"))),
    }
}

fn list<'a>(json: &'a Keywords, name: &str, path: &Path) -> Result<&'a [Value], SchemaError> {
    match json.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(path.error(&format!("{name} must be a list"))),
    }
}

fn texts(json: &Keywords, name: &str, path: &Path) -> Result<Vec<String>, SchemaError> {
    let items = list(json, name, path)?.iter();
    let items = items.map(|it| it.as_str().map(str::to_owned));
    let items: Option<Vec<_>> = items.collect();
    items.ok_or_else(|| path.error(&format!("{name} must be a list of texts")))
}

fn number(json: &Keywords, name: &str, path: &Path) -> Result<Option<f64>, SchemaError> {
    match json.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(number) if number.is_number() => Ok(number.as_f64()),
        Some(_) => Err(path.error(&format!("{name} must be a number"))),
    }
}

fn length(json: &Keywords, names: [&str; 3], path: &Path) -> Result<Option<u64>, SchemaError> {
    for name in names {
        match json.get(name) {
            None | Some(Value::Null) => {}
            Some(number) if number.is_u64() => return Ok(number.as_u64()),
            Some(_) => return Err(path.error(&format!("{name} must be a whole number, 0 or more"))),
        }
    }
    Ok(None)
}

#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn error(&self, problem: &str) -> SchemaError {
        let path = if self.0.is_empty() {
            "its root".to_owned()
        } else {
            self.0.join(".")
        };
        SchemaError {
            path,
            problem: problem.to_owned(),
        }
    }
}
