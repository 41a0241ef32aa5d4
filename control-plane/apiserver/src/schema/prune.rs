//! Fields that a schema does not know.

use serde_json::{Map, Value};

use super::Schema;

/// Most paths that are returned: a warning with more helps nobody, and a hostile object has millions.
const MAX_PATHS: usize = 1000;

/// Fields of every object.
const OF_ALL: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes unknown fields and returns their paths.
pub(super) fn prune(schema: &Schema, value: &mut Value) -> Vec<String> {
    let mut pruning = Pruning::default();
    pruning.value(schema, value, true);
    pruning.removed
}

#[derive(Default)]
struct Pruning {
    removed: Vec<String>,
    path: String,
}

impl Pruning {
    fn value(&mut self, schema: &Schema, value: &mut Value, is_object_root: bool) {
        match value {
            Value::Object(fields) => self.object(schema, fields, is_object_root),
            Value::Array(items) => self.array(schema, items),
            _ => {}
        }
    }

    fn object(&mut self, schema: &Schema, fields: &mut Map<String, Value>, is_object_root: bool) {
        let is_root = is_object_root || schema.is_embedded_resource;
        fields.retain(|name, value| {
            let before = self.path.len();
            self.enter(name);
            let stays = match schema.properties.get(name).or(schema.additional.as_ref()) {
                Some(field) => {
                    self.value(field, value, false);
                    true
                }
                None => schema.keeps_unknown || is_root && OF_ALL.contains(&name.as_str()),
            };
            if !stays && self.removed.len() < MAX_PATHS {
                self.removed.push(self.path.clone());
            }
            self.path.truncate(before);
            stays
        });
    }

    fn array(&mut self, schema: &Schema, items: &mut [Value]) {
        let Some(item) = &schema.items else {
            return;
        };
        for (index, value) in items.iter_mut().enumerate() {
            let before = self.path.len();
            self.path.push_str(&format!("[{index}]"));
            self.value(item, value, false);
            self.path.truncate(before);
        }
    }

    fn enter(&mut self, name: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
    }
}
