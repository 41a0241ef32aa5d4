//! What the server alone says of an object: identity, times, generation.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::catalog::{Resource, Version};
use crate::failure::Failure;

/// Fields of `ObjectMeta`; others are dropped, and reported as unknown.
const FIELDS: [&str; 14] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "uid",
];
/// Characters of generated names: none that form words or look alike.
const SUFFIX: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of the random end of a generated name.
const SUFFIX_LEN: usize = 5;
/// Length of a generated name before its end, so that the whole is a label (RFC 1123).
const GENERATE_NAME_MAX: usize = 63 - SUFFIX_LEN;

/// Brings metadata into the form that everything else relies on, and returns the paths of unknown fields.
///
/// # Errors
///
/// 400 when a field is of the wrong type.
pub(super) fn normalise(object: &mut Value) -> Result<Vec<String>, Failure> {
    let metadata = &mut object["metadata"];
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    let Some(fields) = metadata.as_object_mut() else {
        return Err(Failure::bad_request("metadata must be an object"));
    };
    fields.retain(|name, value| name != "selfLink" && !is_nothing(value));
    let unknown: Vec<_> = fields
        .keys()
        .filter(|it| !FIELDS.contains(&it.as_str()))
        .cloned()
        .collect();
    for name in &unknown {
        fields.remove(name);
    }
    for (name, value) in fields.iter_mut() {
        check_type(name, value)?;
    }
    Ok(unknown.iter().map(|it| format!("metadata.{it}")).collect())
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn check_type(name: &str, value: &mut Value) -> Result<(), Failure> {
    let is_text_map = |it: &Value| {
        it.as_object()
            .is_some_and(|it| it.values().all(Value::is_string))
    };
    let is_list_of =
        |it: &Value, fits: fn(&Value) -> bool| it.as_array().is_some_and(|it| it.iter().all(fits));
    let (fits, wanted) = match name {
        "labels" | "annotations" => {
            drop_nulls(value);
            (is_text_map(value), "an object of texts")
        }
        "finalizers" => (is_list_of(value, Value::is_string), "a list of texts"),
        "ownerReferences" => {
            value
                .as_array_mut()
                .into_iter()
                .flatten()
                .for_each(drop_nulls);
            (
                is_list_of(value, is_owner),
                "a list of objects with apiVersion, kind, name and uid",
            )
        }
        "managedFields" => (is_list_of(value, Value::is_object), "a list of objects"),
        "generation" | "deletionGracePeriodSeconds" => (value.is_i64(), "a number"),
        _ => (value.is_string(), "a text"),
    };
    if fits {
        return Ok(());
    }
    Err(Failure::bad_request(format!(
        "metadata.{name} must be {wanted}"
    )))
}

fn drop_nulls(value: &mut Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, it| !it.is_null());
    }
}

fn is_owner(owner: &Value) -> bool {
    let is_text = |name: &str| owner[name].is_string();
    let is_flag = |name: &str| owner.get(name).is_none_or(Value::is_boolean);
    ["apiVersion", "kind", "name", "uid"]
        .into_iter()
        .all(is_text)
        && ["controller", "blockOwnerDeletion"]
            .into_iter()
            .all(is_flag)
}

/// Gives a new object its identity, in the namespace of the request.
///
/// # Errors
///
/// 400 when it is meant for another namespace or brings a revision along; 500 without randomness.
pub(super) fn begin(object: &mut Value, namespace: &str, now: Timestamp) -> Result<(), Failure> {
    let metadata = &mut object["metadata"];
    if metadata["resourceVersion"]
        .as_str()
        .is_some_and(|it| it != "0")
    {
        return Err(Failure::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    in_namespace(metadata, namespace)?;
    if let Some(fields) = metadata.as_object_mut() {
        fields.retain(|name, _| {
            !matches!(
                name.as_str(),
                "resourceVersion"
                    | "deletionTimestamp"
                    | "deletionGracePeriodSeconds"
                    | "generation"
            )
        });
    }
    if metadata["name"].is_null() {
        metadata["name"] = match metadata["generateName"].as_str() {
            Some(base) => generated(base)?.into(),
            None => Value::Null,
        };
    }
    let uuid = uuid::Builder::from_random_bytes(random::<16>()?).into_uuid();
    metadata["uid"] = uuid.to_string().into();
    metadata["creationTimestamp"] = seconds(now).into();
    if metadata["name"].is_null() {
        metadata["name"] = "".into();
    }
    Ok(())
}

/// Makes sure that an object is in the namespace of its request; objects outside of namespaces lose theirs.
///
/// # Errors
///
/// 400 when it names another.
pub(super) fn in_namespace(metadata: &mut Value, namespace: &str) -> Result<(), Failure> {
    match metadata["namespace"].as_str() {
        _ if namespace.is_empty() => remove(metadata, "namespace"),
        Some(own) if own != namespace => {
            return Err(Failure::bad_request(format!(
                "the namespace of the provided object does not match the namespace sent on the request ({own:?} is not {namespace:?})"
            )));
        }
        _ => metadata["namespace"] = namespace.into(),
    }
    Ok(())
}

/// Carries over what an update cannot change.
pub(super) fn carry_over(old: &Value, new: &mut Value) {
    const KEPT: [&str; 7] = [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "resourceVersion",
    ];
    for name in KEPT {
        match old["metadata"].get(name) {
            Some(value) => new["metadata"][name] = value.clone(),
            None => remove(&mut new["metadata"], name),
        }
    }
}

pub(super) fn remove(fields: &mut Value, name: &str) {
    if let Some(fields) = fields.as_object_mut() {
        fields.remove(name);
    }
}

/// Sets the generation: 1 of a new object, one more when anything but metadata and status changes.
pub(super) fn count_generation(kind: (&Resource, &Version), old: Option<&Value>, new: &mut Value) {
    if !has_generation(kind) {
        return;
    }
    let generation = match old {
        None => 1,
        Some(old) => {
            let before = old["metadata"]["generation"].as_i64().unwrap_or(0);
            before + i64::from(wants_another(kind.1, old, new))
        }
    };
    if generation > 0 {
        new["metadata"]["generation"] = generation.into();
    }
}

fn has_generation((resource, version): (&Resource, &Version)) -> bool {
    resource.is_custom
        || (version.has_status && !resource.group.is_empty())
        || resource.group == "admissionregistration.k8s.io"
}

fn wants_another(version: &Version, old: &Value, new: &Value) -> bool {
    let is_counted = |name: &str| {
        let is_status = version.has_status && name == "status";
        !is_status && !matches!(name, "apiVersion" | "kind" | "metadata")
    };
    let counted = |object: &'_ Value| -> Vec<(String, Value)> {
        let fields = object.as_object().into_iter().flatten();
        let fields = fields.filter(|(name, _)| is_counted(name));
        fields
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    counted(old) != counted(new)
}

/// Returns a time as objects carry it.
pub(super) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn generated(base: &str) -> Result<String, Failure> {
    let mut end = GENERATE_NAME_MAX.min(base.len());
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let letter = |byte: u8| char::from(SUFFIX[usize::from(byte) % SUFFIX.len()]);
    let suffix: String = random::<SUFFIX_LEN>()?.into_iter().map(letter).collect();
    Ok(format!("{}{suffix}", &base[..end]))
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::new(500, "InternalError", format!("obtain randomness: {error}"))
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn generated_names_keep_to_the_length_of_labels() {
        let name = generated("web-").unwrap();
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(generated(&"ä".repeat(60)).unwrap().chars().count(), 29 + 5);
        assert_ne!(generated("a").unwrap(), generated("a").unwrap());
    }

    #[test]
    fn a_new_object_gets_its_identity_and_no_other() {
        let mut object = json!({"metadata": {"generateName": "a-", "uid": "mine", "generation": 7, "deletionTimestamp": "x"}});
        begin(&mut object, "default", Timestamp::UNIX_EPOCH).unwrap();
        let metadata = &object["metadata"];
        assert_eq!(metadata["creationTimestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(metadata["namespace"], "default");
        assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
        assert!(metadata["deletionTimestamp"].is_null() && metadata["generation"].is_null());
        let mut elsewhere = json!({"metadata": {"name": "a", "namespace": "b"}});
        assert_eq!(
            begin(&mut elsewhere, "c", Timestamp::UNIX_EPOCH)
                .unwrap_err()
                .code,
            400
        );
    }

    #[test]
    fn metadata_of_wrong_types_is_named() {
        for (metadata, named) in [
            (json!({"labels": {"a": 1}}), "metadata.labels"),
            (json!({"finalizers": "x"}), "metadata.finalizers"),
            (
                json!({"ownerReferences": [{"name": "x"}]}),
                "metadata.ownerReferences",
            ),
            (json!({"name": 5}), "metadata.name"),
            (json!([]), "metadata"),
        ] {
            let error = normalise(&mut json!({"metadata": metadata})).unwrap_err();
            assert!(error.message.contains(named), "{error}");
        }
        let mut object = json!({"metadata": {"name": "a", "nmae": 1, "selfLink": "/x", "labels": {"a": null}, "annotations": null}});
        assert_eq!(normalise(&mut object).unwrap(), ["metadata.nmae"]);
        assert_eq!(object, json!({"metadata": {"name": "a", "labels": {}}}));
    }
}
