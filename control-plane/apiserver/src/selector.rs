//! Selectors of labels and fields (API concepts, "Labels and Selectors", "Field Selectors").

use std::collections::BTreeMap;

use serde_json::Value;

use crate::failure::Failure;
use crate::request::Query;
use crate::store::Stored;

/// Which objects are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

/// What a selector wants of one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// One of the values; the label must be there.
    In(String, Vec<String>),
    /// None of the values, or no such label.
    NotIn(String, Vec<String>),
    /// Any value.
    Exists(String),
    /// No such label.
    Absent(String),
    /// A number above this one.
    Above(String, i64),
    /// A number below this one.
    Below(String, i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldRequirement {
    path: String,
    value: String,
    is_equal: bool,
}

/// Fields beside name and namespace that can be selected, by [`crate::catalog::Resource::store_name`].
const SELECTABLE: &[(&str, &[&str])] = &[
    (
        "pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
    ),
    ("events", EVENT_FIELDS),
    ("events.events.k8s.io", EVENT_FIELDS),
    ("nodes", &["spec.unschedulable"]),
    ("namespaces", &["status.phase"]),
    ("secrets", &["type"]),
    ("persistentvolumes", &["status.phase"]),
    ("persistentvolumeclaims", &["status.phase"]),
    ("services", &["spec.clusterIP", "spec.type"]),
    ("replicasets.apps", &["status.replicas"]),
    ("jobs.batch", &["status.successful"]),
    (
        "certificatesigningrequests.certificates.k8s.io",
        &["spec.signerName"],
    ),
];

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "reportingController",
];

impl Selector {
    /// Reads `labelSelector` and `fieldSelector` of a request about a resource.
    ///
    /// # Errors
    ///
    /// 400 when one is malformed, or names a field that cannot be selected.
    pub fn parse(query: &Query, store_name: &str) -> Result<Self, Failure> {
        let labels = parse_labels(query.get("labelSelector").unwrap_or_default())?;
        let fields = parse_fields(query.get("fieldSelector").unwrap_or_default(), store_name)?;
        Ok(Self { labels, fields })
    }

    /// Whether an object is meant.
    #[must_use]
    pub fn matches(&self, object: &Stored) -> bool {
        matches_labels(&self.labels, &object.labels) && self.matches_fields(object)
    }

    fn matches_fields(&self, object: &Stored) -> bool {
        let (own, deep): (Vec<_>, Vec<_>) = self
            .fields
            .iter()
            .partition(|it| it.path.starts_with("metadata."));
        let own_fit = own.iter().all(|it| match it.path.as_str() {
            "metadata.name" => it.fits(&object.name),
            _ => it.fits(&object.namespace),
        });
        if !own_fit || deep.is_empty() {
            return own_fit;
        }
        let value = object.value();
        deep.iter().all(|it| it.fits(&field(&value, &it.path)))
    }

    /// Whether all objects are meant.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Means the object of one name alone, unless the name is empty.
    pub fn or_name(&mut self, name: &str) {
        if !name.is_empty() {
            let path = "metadata.name".to_owned();
            self.fields.push(FieldRequirement {
                path,
                value: name.to_owned(),
                is_equal: true,
            });
        }
    }
}

/// Returns the only name that the field selector of a request can mean, by which rules with names allow lists.
#[must_use]
pub fn only_name(query: &Query) -> Option<String> {
    let text = query.get("fieldSelector")?;
    let names = split_fields(text).into_iter().filter_map(split_field);
    let mut names = names.filter(|(path, _, is_equal)| *is_equal && *path == "metadata.name");
    names.next().map(|(_, value, _)| unescape(value))
}

impl FieldRequirement {
    fn fits(&self, found: &str) -> bool {
        (self.value == found) == self.is_equal
    }
}

/// Returns a field as selectors compare it: text, or what is written for another value; empty where it is missing.
fn field(object: &Value, path: &str) -> String {
    let found = path.split('.').fold(object, |value, name| &value[name]);
    match (path, found) {
        ("source", Value::Object(source)) => source
            .get("component")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        ("spec.unschedulable" | "spec.hostNetwork", Value::Null) => "false".to_owned(),
        (_, Value::Null) => String::new(),
        (_, Value::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    }
}

/// Whether labels meet all requirements.
#[must_use]
pub fn matches_labels(requirements: &[Requirement], labels: &BTreeMap<String, String>) -> bool {
    requirements.iter().all(|it| it.fits(labels))
}

impl Requirement {
    fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        let number = |key: &String| labels.get(key).and_then(|it| it.parse::<i64>().ok());
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|it| values.contains(it)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|it| !values.contains(it)),
            Self::Exists(key) => labels.contains_key(key),
            Self::Absent(key) => !labels.contains_key(key),
            Self::Above(key, bound) => number(key).is_some_and(|it| it > *bound),
            Self::Below(key, bound) => number(key).is_some_and(|it| it < *bound),
        }
    }
}

/// Reads a selector of labels: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
///
/// # Errors
///
/// 400 when it is malformed.
pub fn parse_labels(text: &str) -> Result<Vec<Requirement>, Failure> {
    let parts = split_outside_parentheses(text);
    let parts = parts.into_iter().map(str::trim).filter(|it| !it.is_empty());
    parts
        .map(|part| requirement(part).ok_or_else(|| malformed("label", text, part)))
        .collect()
}

/// Reads a `LabelSelector` object (`matchLabels`, `matchExpressions`); nothing when it is malformed.
#[must_use]
pub fn from_object(selector: &Value) -> Option<Vec<Requirement>> {
    let mut requirements = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        requirements.push(Requirement::In(
            key.clone(),
            vec![value.as_str()?.to_owned()],
        ));
    }
    for expression in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let key = expression["key"].as_str()?.to_owned();
        let values = expression["values"].as_array().into_iter().flatten();
        let values = values
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        requirements.push(match expression["operator"].as_str()? {
            "In" => Requirement::In(key, values),
            "NotIn" => Requirement::NotIn(key, values),
            "Exists" => Requirement::Exists(key),
            "DoesNotExist" => Requirement::Absent(key),
            _ => return None,
        });
    }
    Some(requirements)
}

fn requirement(part: &str) -> Option<Requirement> {
    if let Some(key) = part.strip_prefix('!') {
        return Some(Requirement::Absent(label_key(key)?));
    }
    if let Some((head, values)) = part.split_once('(') {
        let values = values
            .strip_suffix(')')?
            .split(',')
            .map(|it| it.trim().to_owned())
            .collect();
        let (key, operator) = head.trim_end().rsplit_once(char::is_whitespace)?;
        return match operator {
            "in" => Some(Requirement::In(label_key(key)?, values)),
            "notin" => Some(Requirement::NotIn(label_key(key)?, values)),
            _ => None,
        };
    }
    let value = |text: &str| vec![text.trim().to_owned()];
    for (operator, is_in) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, text)) = part.split_once(operator) {
            let key = label_key(key)?;
            let is_plain = !text.contains(['=', '!']);
            return is_plain.then(|| {
                if is_in {
                    Requirement::In(key, value(text))
                } else {
                    Requirement::NotIn(key, value(text))
                }
            });
        }
    }
    if let Some((key, bound)) = part.split_once('>') {
        return Some(Requirement::Above(
            label_key(key)?,
            bound.trim().parse().ok()?,
        ));
    }
    if let Some((key, bound)) = part.split_once('<') {
        return Some(Requirement::Below(
            label_key(key)?,
            bound.trim().parse().ok()?,
        ));
    }
    Some(Requirement::Exists(label_key(part)?))
}

fn label_key(text: &str) -> Option<String> {
    let text = text.trim();
    let is_fine = |it: char| it.is_ascii_alphanumeric() || "-_./".contains(it);
    (!text.is_empty() && text.chars().all(is_fine)).then(|| text.to_owned())
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut parts) = (0_u32, 0, Vec::new());
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&text[begin..index]);
                begin = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

fn parse_fields(text: &str, store_name: &str) -> Result<Vec<FieldRequirement>, Failure> {
    let mut requirements = Vec::new();
    for part in split_fields(text).iter().filter(|it| !it.is_empty()) {
        let (path, value, is_equal) =
            split_field(part).ok_or_else(|| malformed("field", text, part))?;
        if !is_selectable(path, store_name) {
            return Err(Failure::bad_request(format!(
                "field label not supported: {path}"
            )));
        }
        requirements.push(FieldRequirement {
            path: path.to_owned(),
            value: unescape(value),
            is_equal,
        });
    }
    Ok(requirements)
}

/// Splits at commas that are not escaped.
fn split_fields(text: &str) -> Vec<&str> {
    let (mut begin, mut parts, mut is_escaped) = (0, Vec::new(), false);
    for (index, byte) in text.bytes().enumerate() {
        if byte == b',' && !is_escaped {
            parts.push(&text[begin..index]);
            begin = index + 1;
        }
        is_escaped = byte == b'\\' && !is_escaped;
    }
    parts.push(&text[begin..]);
    parts
}

fn split_field(part: &str) -> Option<(&str, &str, bool)> {
    if let Some((path, value)) = part.split_once("!=") {
        return Some((path.trim(), value, false));
    }
    let (path, value) = part.split_once("==").or_else(|| part.split_once('='))?;
    Some((path.trim(), value, true))
}

fn unescape(text: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text.chars());
    while let Some(it) = rest.next() {
        plain.extend(if it == '\\' { rest.next() } else { Some(it) });
    }
    plain
}

fn is_selectable(path: &str, store_name: &str) -> bool {
    let more = SELECTABLE.iter().find(|(name, _)| *name == store_name);
    matches!(path, "metadata.name" | "metadata.namespace")
        || more.is_some_and(|(_, paths)| paths.contains(&path))
}

fn malformed(kind: &str, text: &str, part: &str) -> Failure {
    Failure::bad_request(format!(
        "unable to parse the {kind} selector {text:?}: {part:?} is no requirement"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn check(selector: &str, expected: bool) {
        let found = labels(&[("app", "web"), ("tier", "front"), ("n", "5"), ("empty", "")]);
        let requirements = parse_labels(selector).unwrap();
        assert_eq!(
            matches_labels(&requirements, &found),
            expected,
            "{selector}"
        );
    }

    #[test]
    fn label_selectors_have_all_operators() {
        check("", true);
        check("app=web", true);
        check("app==web,tier!=back", true);
        check("app in (web, db),tier notin (back)", true);
        check("app in (db)", false);
        check("missing notin (a),missing!=b", true);
        check("app,!missing", true);
        check("!app", false);
        check("n>4,n<6", true);
        check("n>5", false);
        check("empty=", true);
        check("empty in ()", true);
    }

    #[test]
    fn malformed_selectors_are_refused() {
        for text in [
            "a b", "a=b=c", "in (x)", "a in x", "a in (x", "=x", "!", "n>x",
        ] {
            assert_eq!(parse_labels(text).unwrap_err().code, 400, "{text}");
        }
    }

    fn pod() -> Stored {
        let json = br#"{"metadata":{"name":"a","namespace":"b"},"spec":{"nodeName":"n,1"},"status":{"phase":"Running"}}"#;
        Stored::read(json.as_slice().into()).unwrap()
    }

    fn check_fields(selector: &str, expected: bool) {
        let fields = parse_fields(selector, "pods").unwrap();
        let selector_of = Selector {
            fields,
            ..Selector::default()
        };
        assert_eq!(selector_of.matches(&pod()), expected, "{selector}");
    }

    #[test]
    fn field_selectors_compare_known_fields() {
        check_fields("metadata.name=a,metadata.namespace=b", true);
        check_fields("metadata.name!=a", false);
        check_fields(r"spec.nodeName=n\,1,status.phase==Running", true);
        check_fields("status.phase!=Running", false);
        check_fields("spec.hostNetwork=false", true);
    }

    #[test]
    fn other_fields_cannot_be_selected() {
        let error = parse_fields("spec.running=true", "virtualmachines.kubevirt.io").unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (400, "field label not supported: spec.running")
        );
        assert!(parse_fields("nonsense", "pods").is_err());
    }

    #[test]
    fn selector_objects_are_read() {
        let selector = serde_json::json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]});
        assert!(matches_labels(
            &from_object(&selector).unwrap(),
            &labels(&[("app", "web")])
        ));
        assert!(!matches_labels(
            &from_object(&selector).unwrap(),
            &labels(&[("app", "web"), ("x", "")])
        ));
        assert_eq!(
            from_object(&serde_json::json!({"matchExpressions": [{"key": "x", "operator": "?"}]})),
            None
        );
    }
}
