//! Cells that several kinds have.

use jiff::Timestamp;
use serde_json::Value;

use super::age;

/// What a cell shows when there is nothing.
pub(super) const NONE: &str = "<none>";

/// Name of the object.
pub(super) fn name(object: &Value, _: Timestamp) -> Value {
    object["metadata"]["name"].clone()
}

/// How long ago the object was created.
pub(super) fn created(object: &Value, now: Timestamp) -> Value {
    age::since(&object["metadata"]["creationTimestamp"], now).into()
}

/// When the object was created.
pub(super) fn created_at(object: &Value, _: Timestamp) -> Value {
    object["metadata"]["creationTimestamp"].clone()
}

/// Returns a value as text: a text itself, JSON of other values.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Returns a text of the object, empty where there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    let text = object.pointer(pointer).and_then(Value::as_str);
    text.unwrap_or_default()
}

/// Returns a cell with a text or a mark of absence.
pub(super) fn or_none(text: &str) -> Value {
    if text.is_empty() { NONE } else { text }.into()
}

/// Returns a value of the object as text, or a mark of absence.
pub(super) fn value_or(object: &Value, pointer: &str, absent: &str) -> Value {
    let value = object.pointer(pointer).filter(|it| !it.is_null());
    value.map_or_else(|| absent.to_owned(), plain).into()
}

/// Returns a number of the object, 0 where there is none.
pub(super) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// Returns items of a list of the object.
pub(super) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    let list = object.pointer(pointer).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// Returns texts joined by commas, or a mark of absence.
pub(super) fn joined<'a>(texts: impl IntoIterator<Item = &'a str>) -> Value {
    let texts: Vec<_> = texts.into_iter().filter(|it| !it.is_empty()).collect();
    or_none(&texts.join(","))
}

/// Returns labels as `key=value,…`.
pub(super) fn labels(labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| format!("{key}={}", plain(value)));
    labels.collect::<Vec<_>>().join(",")
}

/// Returns a label selector as clients write it.
pub(super) fn selector(selector: &Value) -> Value {
    let mut parts: Vec<_> = Some(labels(&selector["matchLabels"]))
        .into_iter()
        .filter(|it| !it.is_empty())
        .collect();
    for rule in list(selector, "/matchExpressions") {
        let key = text(rule, "/key");
        let values: Vec<_> = list(rule, "/values").iter().map(plain).collect();
        let values = values.join(",");
        parts.push(match text(rule, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    or_none(&parts.join(","))
}

/// Returns a condition of the status.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut conditions = list(object, "/status/conditions").iter();
    conditions.find(|it| it["type"] == kind)
}

/// Returns access modes in their short forms.
pub(super) fn access_modes(modes: &[Value]) -> String {
    let short = |mode: &Value| match mode.as_str().unwrap_or_default() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    let modes: Vec<_> = modes
        .iter()
        .map(short)
        .filter(|it| !it.is_empty())
        .collect();
    modes.join(",")
}
