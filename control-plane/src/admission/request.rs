//! What is asked: `request` of an `AdmissionReview`.

use serde_json::Value;

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Update,
    Other,
}

/// A question about one object. Objects that are not given are `null`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'r> {
    pub(super) operation: Operation,
    pub(super) namespace: &'r str,
    pub(super) user: &'r str,
    pub(super) is_dry: bool,
    pub(super) object: &'r Value,
    pub(super) old_object: &'r Value,
}

impl<'r> Request<'r> {
    /// Reads a review.
    pub(super) fn read(review: &'r Value) -> Result<Self, String> {
        let request = &review["request"];
        let text = |pointer: &str| {
            let found = request.pointer(pointer).and_then(Value::as_str);
            found.unwrap_or_default()
        };
        if text("/uid").is_empty() {
            let message = "request.uid: required in an AdmissionReview of admission.k8s.io/v1";
            return Err(message.to_owned());
        }
        for field in ["object", "oldObject"] {
            check_shape(field, &request[field])?;
        }
        let operation = match text("/operation") {
            "CREATE" => Operation::Create,
            "UPDATE" => Operation::Update,
            _ => Operation::Other,
        };
        Ok(Self {
            operation,
            namespace: text("/namespace"),
            user: text("/userInfo/username"),
            is_dry: request["dryRun"] == true,
            object: &request["object"],
            old_object: &request["oldObject"],
        })
    }

    /// Whether the object is being deleted: then only finalizers matter, and nothing may stand in their way.
    pub(super) fn is_deleting(&self) -> bool {
        let deleted = self.object.pointer("/metadata/deletionTimestamp");
        deleted.is_some_and(|time| !time.is_null())
    }

    /// Whether a field has changed; one that is left out equals an empty one.
    pub(super) fn has_changed(&self, field: &str) -> bool {
        let empty = |value: &Value| match value {
            Value::Null => true,
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        let (new, old) = (&self.object[field], &self.old_object[field]);
        new != old && !(empty(new) && empty(old))
    }
}

/// Refuses what is no object of an API: the parts of one are objects themselves, where they are there.
fn check_shape(field: &str, object: &Value) -> Result<(), String> {
    let is_map = |value: &Value| value.is_object() || value.is_null();
    if !is_map(object) {
        return Err(format!("request.{field}: it must be an object"));
    }
    for part in ["metadata", "spec", "status"] {
        if !is_map(&object[part]) {
            return Err(format!("request.{field}.{part}: it must be an object"));
        }
    }
    Ok(())
}
