//! The difference of two JSON values as a JSON patch (RFC 6902).

use serde_json::{Value, json};

/// Deepest nesting that is looked into; below it values are replaced whole.
const MAX_DEPTH: usize = 64;

/// Returns the operations that make `new` of `old`; fields that are the same in both are not touched.
pub fn patch(old: &Value, new: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    compare(old, new, "", 0, &mut operations);
    operations
}

fn compare(old: &Value, new: &Value, path: &str, depth: usize, operations: &mut Vec<Value>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Value::Object(olds), Value::Object(news)) if depth < MAX_DEPTH => {
            for name in olds.keys().filter(|name| !news.contains_key(*name)) {
                operations.push(json!({"op": "remove", "path": child(path, name)}));
            }
            for (name, new) in news {
                let path = child(path, name);
                match olds.get(name) {
                    Some(old) => compare(old, new, &path, depth + 1, operations),
                    None => operations.push(json!({"op": "add", "path": path, "value": new})),
                }
            }
        }
        (Value::Array(olds), Value::Array(news))
            if depth < MAX_DEPTH && olds.len() <= news.len() =>
        {
            for (index, new) in news.iter().enumerate() {
                match olds.get(index) {
                    Some(old) => {
                        let path = format!("{path}/{index}");
                        compare(old, new, &path, depth + 1, operations);
                    }
                    None => {
                        let path = format!("{path}/-");
                        operations.push(json!({"op": "add", "path": path, "value": new}));
                    }
                }
            }
        }
        _ => operations.push(json!({"op": "replace", "path": path, "value": new})),
    }
}

fn child(path: &str, name: &str) -> String {
    format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::patch;

    #[test]
    fn only_what_differs_is_touched() {
        let old = json!({"a": {"b/c": 1, "gone": 2, "same": [1]}, "list": [{"x": 1}, 2]});
        let new =
            json!({"a": {"b/c": 2, "same": [1], "new": null}, "list": [{"x": 1, "y": 2}, 2, 3]});
        assert_eq!(
            patch(&old, &new),
            [
                json!({"op": "remove", "path": "/a/gone"}),
                json!({"op": "replace", "path": "/a/b~1c", "value": 2}),
                json!({"op": "add", "path": "/a/new", "value": null}),
                json!({"op": "add", "path": "/list/0/y", "value": 2}),
                json!({"op": "add", "path": "/list/-", "value": 3}),
            ]
        );
        assert!(patch(&new, &new).is_empty());
    }

    #[test]
    fn shorter_lists_and_other_types_are_replaced_whole() {
        let operations = patch(&json!({"l": [1, 2], "t": {}}), &json!({"l": [1], "t": []}));
        assert_eq!(operations.len(), 2);
        assert!(
            operations
                .iter()
                .all(|operation| operation["op"] == "replace")
        );
    }
}
