//! Values against schemas. Causes read as those of Kubernetes do: people and programs search for these texts.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{ListType, Rules, Schema, format};
use crate::failure::{Cause, shown};

/// Most causes that are returned.
const MAX_CAUSES: usize = 100;

/// Returns what is wrong with a value.
pub(super) fn check(schema: &Schema, value: &Value) -> Vec<Cause> {
    let mut checking = Checking::new(MAX_CAUSES);
    checking.value(schema, value);
    checking.causes
}

struct Checking {
    causes: Vec<Cause>,
    most: usize,
    path: String,
}

impl Checking {
    fn new(most: usize) -> Self {
        Self {
            causes: Vec::new(),
            most,
            path: String::new(),
        }
    }

    fn value(&mut self, schema: &Schema, value: &Value) {
        if value.is_null() && schema.is_nullable || self.causes.len() >= self.most {
            return;
        }
        if !has_type(schema, value) {
            return self.wrong_type(schema, value);
        }
        if !schema.choices.is_empty() && !schema.choices.contains(value) {
            self.not_supported(&schema.choices, value);
        }
        match value {
            Value::Object(fields) => self.object(schema, fields),
            Value::Array(items) => self.array(schema, items),
            Value::String(text) => self.text(schema, text),
            Value::Number(number) => {
                self.number(schema, number.as_f64().unwrap_or_default(), value);
            }
            Value::Null | Value::Bool(_) => {}
        }
        if let Some(rules) = &schema.rules {
            self.rules(schema, rules, value);
        }
    }

    fn object(&mut self, schema: &Schema, fields: &Map<String, Value>) {
        for name in &schema.required {
            if !fields.contains_key(name) {
                self.below(name, |it| {
                    it.add("FieldValueRequired", "Required value".to_owned());
                });
            }
        }
        if schema.is_embedded_resource {
            self.embedded(fields);
        }
        let count = u64::try_from(fields.len()).unwrap_or(u64::MAX);
        if schema.length.1.is_some_and(|most| count > most) {
            let most = schema.length.1.unwrap_or_default();
            self.add(
                "FieldValueTooMany",
                format!("Too many: {count}: must have at most {most} items"),
            );
        }
        if let Some(least) = schema.length.0.filter(|least| count < *least) {
            self.invalid(
                &count.into(),
                &format!("should have at least {least} properties"),
            );
        }
        for (name, value) in fields {
            if let Some(field) = schema.properties.get(name).or(schema.additional.as_ref()) {
                self.below(name, |it| it.value(field, value));
            }
        }
    }

    fn embedded(&mut self, fields: &Map<String, Value>) {
        for name in ["apiVersion", "kind"] {
            let text = fields.get(name).and_then(Value::as_str);
            if text.unwrap_or_default().is_empty() {
                self.below(name, |it| {
                    it.add(
                        "FieldValueRequired",
                        "Required value: must not be empty".to_owned(),
                    );
                });
            }
        }
    }

    fn array(&mut self, schema: &Schema, items: &[Value]) {
        let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
        if let Some(most) = schema.length.1.filter(|most| count > *most) {
            self.add(
                "FieldValueTooMany",
                format!("Too many: {count}: must have at most {most} items"),
            );
        }
        if let Some(least) = schema.length.0.filter(|least| count < *least) {
            self.invalid(
                &count.into(),
                &format!("should have at least {least} items"),
            );
        }
        if let Some(item) = &schema.items {
            for (index, value) in items.iter().enumerate() {
                self.item(index, |it| it.value(item, value));
                if self.causes.len() >= self.most {
                    return;
                }
            }
        }
        // Lists of built-in kinds have their own rules on duplicates.
        if schema.merge_key.is_empty() && !schema.merges_items {
            self.duplicates(&schema.list, items);
        }
    }

    fn duplicates(&mut self, list: &ListType, items: &[Value]) {
        let identity = |value: &Value| match list {
            ListType::Atomic => None,
            ListType::Set => Some(value.clone()),
            ListType::Map(keys) => {
                let fields = keys.iter();
                let fields = fields.filter_map(|key| Some((key.clone(), value.get(key)?.clone())));
                Some(Value::Object(fields.collect()))
            }
        };
        let mut seen = BTreeSet::new();
        for (index, value) in items.iter().enumerate() {
            let Some(identity) = identity(value) else {
                return;
            };
            if !seen.insert(identity.to_string()) {
                let message = format!("Duplicate value: {}", shown(&identity));
                self.item(index, |it| it.add("FieldValueDuplicate", message));
            }
        }
    }

    fn text(&mut self, schema: &Schema, text: &str) {
        let value = || Value::from(text);
        let count = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
        if let Some(most) = schema.length.1.filter(|most| count > *most) {
            self.add(
                "FieldValueTooLong",
                format!("Too long: may not be more than {most} bytes"),
            );
        }
        if let Some(least) = schema.length.0.filter(|least| count < *least) {
            self.invalid(&value(), &format!("should be at least {least} chars long"));
        }
        if !schema.pattern.is_empty() && !schema.pattern.fits(text) {
            self.invalid(
                &value(),
                &format!("should match '{}'", schema.pattern.as_str()),
            );
        }
        if !format::fits(&schema.format, text) {
            let value = shown(&value());
            self.invalid_text(
                &value,
                &format!("must be of type {}: {value}", schema.format),
            );
        }
    }

    fn number(&mut self, schema: &Schema, number: f64, value: &Value) {
        let excludes = schema
            .rules
            .as_ref()
            .map_or((false, false), |it| it.excludes);
        if let Some(least) = schema.minimum {
            if excludes.0 && number <= least {
                self.invalid(value, &format!("should be greater than {least}"));
            } else if number < least {
                self.invalid(
                    value,
                    &format!("should be greater than or equal to {least}"),
                );
            }
        }
        if let Some(most) = schema.maximum {
            if excludes.1 && number >= most {
                self.invalid(value, &format!("should be less than {most}"));
            } else if number > most {
                self.invalid(value, &format!("should be less than or equal to {most}"));
            }
        }
        if schema.format == "int32" && i32::try_from(value.as_i64().unwrap_or(i64::MAX)).is_err() {
            self.invalid(value, &format!("must be of type int32: {value}"));
        }
    }

    fn rules(&mut self, schema: &Schema, rules: &Rules, value: &Value) {
        for one in &rules.all_of {
            self.value(one, value);
        }
        let fits = |one: &&Schema| self.fits(one, value);
        let any = rules.any_of.is_empty() || rules.any_of.iter().any(|it| fits(&it));
        let one = rules.one_of.iter().filter(fits).take(2).count();
        let not = rules.not.iter().any(|it| fits(&it));
        let field = format!("\"{}\"", self.path);
        let value = shown(value);
        if !any {
            self.add_invalid(
                &value,
                &format!("{field} must validate at least one schema (anyOf)"),
            );
        }
        if !rules.one_of.is_empty() && one != 1 {
            let found = if one == 0 { "none" } else { "more than one" };
            self.add_invalid(
                &value,
                &format!(
                    "{field} must validate one and only one schema (oneOf). Found {found} valid"
                ),
            );
        }
        if not {
            self.add_invalid(
                &value,
                &format!("{field} must not validate the schema (not)"),
            );
        }
        self.multiple(schema, rules, &value);
    }

    fn multiple(&mut self, schema: &Schema, rules: &Rules, value: &str) {
        let number = value
            .parse::<f64>()
            .ok()
            .filter(|_| schema.kind != "string");
        if let (Some(of), Some(number)) = (rules.multiple_of, number)
            && of > 0.0
            && (number / of).fract() != 0.0
        {
            self.invalid_text(value, &format!("should be a multiple of {of}"));
        }
    }

    fn fits(&self, schema: &Schema, value: &Value) -> bool {
        let mut checking = Self::new(1);
        checking.value(schema, value);
        checking.causes.is_empty()
    }

    fn wrong_type(&mut self, schema: &Schema, value: &Value) {
        let wanted = if schema.is_int_or_string {
            "integer,string"
        } else {
            &schema.kind
        };
        let is = kind_of(value);
        let message = format!(
            "Invalid value: \"{is}\": {} in body must be of type {wanted}: \"{is}\"",
            self.path
        );
        self.add("FieldValueTypeInvalid", message);
    }

    fn not_supported(&mut self, choices: &[Value], value: &Value) {
        let choices: Vec<_> = choices.iter().map(shown).collect();
        let (value, choices) = (shown(value), choices.join(", "));
        let message = format!("Unsupported value: {value}: supported values: {choices}");
        self.add("FieldValueNotSupported", message);
    }

    fn invalid(&mut self, value: &Value, problem: &str) {
        self.invalid_text(&shown(value), problem);
    }

    fn invalid_text(&mut self, value: &str, problem: &str) {
        let message = format!("{} in body {problem}", self.path);
        self.add_invalid(value, &message);
    }

    fn add_invalid(&mut self, value: &str, problem: &str) {
        self.add(
            "FieldValueInvalid",
            format!("Invalid value: {value}: {problem}"),
        );
    }

    fn add(&mut self, reason: &'static str, message: String) {
        if self.causes.len() < self.most {
            let field = self.path.clone();
            self.causes.push(Cause {
                reason,
                message,
                field,
            });
        }
    }

    fn below(&mut self, name: &str, then: impl FnOnce(&mut Self)) {
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        then(self);
        self.path.truncate(before);
    }

    fn item(&mut self, index: usize, then: impl FnOnce(&mut Self)) {
        let before = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        then(self);
        self.path.truncate(before);
    }
}

fn has_type(schema: &Schema, value: &Value) -> bool {
    if schema.is_int_or_string {
        return value.is_string()
            || value.is_number() && (is_whole(value) || schema.format == "quantity");
    }
    match schema.kind.as_str() {
        "" => !value.is_null() || schema.choices.contains(value) || schema.keeps_unknown,
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => is_whole(value),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => true,
    }
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|it| it.fract() == 0.0)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_whole(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
