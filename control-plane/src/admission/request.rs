//! What is asked: `request` of an `AdmissionReview`.

use serde_json::Value;

/// Key of a user's extra information with the node that the token is bound to.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Update,
    Delete,
    Other,
}

/// A question about one object. Objects that are not given are `null`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'r> {
    pub(super) operation: Operation,
    pub(super) namespace: &'r str,
    pub(super) user: &'r str,
    /// The node that the user's token is bound to.
    pub(super) node: Option<&'r str>,
    /// Whether the user may do everything anyway.
    pub(super) is_master: bool,
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
            "DELETE" => Operation::Delete,
            _ => Operation::Other,
        };
        Ok(Self {
            operation,
            namespace: text("/namespace"),
            user: text("/userInfo/username"),
            node: request["userInfo"]["extra"][NODE_NAME][0].as_str(),
            is_master: is_master(&request["userInfo"]["groups"]),
            is_dry: request["dryRun"] == true,
            object: &request["object"],
            old_object: &request["oldObject"],
        })
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

fn is_master(groups: &Value) -> bool {
    let mut groups = groups.as_array().into_iter().flatten();
    groups.any(|group| group == "system:masters")
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
