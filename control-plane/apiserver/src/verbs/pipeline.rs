//! The one way in which objects change.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::metadata;
use super::{Call, refused};
use crate::admission::Operation;
use crate::catalog::{default_builtin, validate_builtin};
use crate::failure::{About, Cause, Failure};
use crate::patch;
use crate::store::{Expect, StoreError, Stored};

/// How often a change is made again on what somebody else wrote meanwhile.
const ATTEMPTS: usize = 16;
/// Depth of objects, with room for what reviews, lists and events put around them below the 128 that readers take.
const DEPTH_MAX: usize = 112;

/// A change of one object.
#[derive(Clone, Copy)]
pub(super) struct Edit<'e> {
    pub(super) name: &'e str,
    pub(super) expects: Expects,
    /// Part of the object that is written: empty, `status`, `scale`, …
    pub(super) part: &'e str,
    /// Whether field owners are noted already, as apply does itself.
    pub(super) is_tracked: bool,
    /// Whether the server makes the change, which then may touch all fields.
    pub(super) is_own: bool,
}

/// What must be there before a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expects {
    /// Nothing.
    Absent,
    /// The object.
    Present,
    /// Either.
    Any,
}

/// Makes the new object from the old one, both in the version of the request.
pub(super) type Make<'m> = dyn Fn(Option<&Value>) -> Result<Value, Failure> + Send + Sync + 'm;

/// What came of a change.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A new object.
    Created(Arc<Stored>),
    /// The object is as it was wanted.
    Updated(Arc<Stored>),
    /// The object had waited for its last finalizer, and is gone.
    Removed(Arc<Stored>),
    /// What would be there, if the request were no dry run; whether it would be new.
    Dry(Value, bool),
}

/// Changes an object: reads it, makes the new one, prunes, defaults, asks admission, validates, and writes it provided
/// that nobody else did meanwhile; otherwise all of it again.
pub(super) async fn change(
    call: &Call,
    edit: Edit<'_>,
    make: &Make<'_>,
) -> Result<Outcome, Failure> {
    for _ in 0..ATTEMPTS {
        let current = call.find(edit.name);
        check_presence(call, edit, current.as_deref())?;
        let old = current.as_deref().map(|it| call.value(it));
        let made = make(old.as_ref())?;
        let new = prepare(call, edit, old.as_ref(), made).await?;
        if let Some(outcome) = commit(call, edit, current, old, new).await? {
            return Ok(outcome);
        }
    }
    Err(call.conflict(edit.name))
}

fn check_presence(call: &Call, edit: Edit<'_>, current: Option<&Stored>) -> Result<(), Failure> {
    match (edit.expects, current) {
        (Expects::Absent, Some(_)) => Err(Failure::already_exists(call.about(edit.name))),
        (Expects::Present, None) => Err(Failure::not_found(call.about(edit.name))),
        _ => Ok(()),
    }
}

async fn prepare(
    call: &Call,
    edit: Edit<'_>,
    old: Option<&Value>,
    made: Value,
) -> Result<Value, Failure> {
    let mut new = made;
    if !edit.is_own {
        shape(call, edit, old, &mut new)?;
    }
    let mut new = admit(call, edit, old, new).await?;
    if !edit.is_own {
        metadata::normalise(&mut new)?;
        // Webhooks may know fields that the kind does not have here.
        call.version().schema.prune(&mut new);
        if let Some(old) = old {
            metadata::carry_over(old, &mut new);
        }
        metadata::count_generation(call.kind(), old, &mut new);
        validate(call, old, &new)?;
    }
    if !edit.is_tracked {
        let now = Timestamp::now();
        patch::track(
            &call.version().schema,
            old,
            &mut new,
            call.manager(),
            edit.part,
            now,
        );
    }
    check_depth(&new)?;
    Ok(new)
}

/// Refuses what could not be read back: JSON's reader bounds the depth.
fn check_depth(object: &Value) -> Result<(), Failure> {
    if is_within(object, DEPTH_MAX) {
        return Ok(());
    }
    Err(Failure::bad_request(format!(
        "the object is nested deeper than {DEPTH_MAX} levels; make it flatter"
    )))
}

fn is_within(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth > 0 && items.iter().all(|it| is_within(it, depth - 1)),
        Value::Object(fields) => depth > 0 && fields.values().all(|it| is_within(it, depth - 1)),
        _ => true,
    }
}

/// Brings what a client sent into the form of its kind, and undoes what it may not change.
fn shape(call: &Call, edit: Edit<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), Failure> {
    let (resource, version) = call.kind();
    super::body::check_kind(new, &call.target.api_version(), &resource.kind)?;
    let mut unknown = metadata::normalise(new)?;
    match old {
        None => {
            metadata::begin(new, call.namespace().unwrap_or_default(), Timestamp::now())?;
            if version.has_status && call.store_name.as_ref() != "nodes" {
                metadata::remove(new, "status");
            }
        }
        Some(old) => {
            check_identity(call, edit.name, old, new)?;
            metadata::carry_over(old, new);
            keep_apart(call, edit.part, old, new);
        }
    }
    unknown.extend(version.schema.prune(new));
    report_unknown(call, &unknown)?;
    version.schema.fill_defaults(new);
    default_builtin(resource, new);
    Ok(())
}

/// Refuses an object of another name, identity or revision.
fn check_identity(call: &Call, name: &str, old: &Value, new: &mut Value) -> Result<(), Failure> {
    let own = new["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if own != name {
        return Err(Failure::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        )));
    }
    metadata::in_namespace(&mut new["metadata"], call.namespace().unwrap_or_default())?;
    let (old, new) = (&old["metadata"], &new["metadata"]);
    if let (Some(wanted), Some(found)) = (new["uid"].as_str(), old["uid"].as_str())
        && wanted != found
    {
        let why = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
        );
        return Err(Failure::conflict(call.about(name), &why));
    }
    match new["resourceVersion"].as_str() {
        Some(wanted) if wanted != "0" && old["resourceVersion"] != *wanted => {
            Err(call.conflict(name))
        }
        None if call.resource.is_custom => Err(Failure::invalid(
            call.about_kind(name),
            vec![Cause {
                reason: "FieldValueInvalid",
                message: "Invalid value: 0: must be specified for an update".to_owned(),
                field: "metadata.resourceVersion".to_owned(),
            }],
        )),
        _ => Ok(()),
    }
}

/// Keeps status and the rest apart: each is written through its own path.
fn keep_apart(call: &Call, part: &str, old: &Value, new: &mut Value) {
    if part == "status" {
        let status = new.get("status").cloned();
        let written = std::mem::replace(new, old.clone());
        match status {
            Some(status) => new["status"] = status,
            None => metadata::remove(new, "status"),
        }
        let metadata = &written["metadata"];
        let shared: &[&str] = if call.resource.is_custom {
            &["managedFields"]
        } else {
            &["managedFields", "labels", "annotations"]
        };
        for name in shared {
            match metadata.get(*name) {
                Some(value) => new["metadata"][*name] = value.clone(),
                None => metadata::remove(&mut new["metadata"], name),
            }
        }
    } else if call.version().has_status {
        match old.get("status") {
            Some(status) => new["status"] = status.clone(),
            None => metadata::remove(new, "status"),
        }
    }
}

/// Warns of fields that were dropped, or refuses them (`fieldValidation`).
fn report_unknown(call: &Call, unknown: &[String]) -> Result<(), Failure> {
    let texts: Vec<_> = unknown
        .iter()
        .map(|it| format!("unknown field \"{it}\""))
        .collect();
    match call.query.get("fieldValidation") {
        Some("Ignore") => Ok(()),
        Some("Warn") | None => {
            texts.into_iter().for_each(|it| call.warnings.add(it));
            Ok(())
        }
        Some("Strict") if texts.is_empty() => Ok(()),
        Some("Strict") => {
            let (kind, version) = (&call.resource.kind, &call.target.version);
            Err(Failure::bad_request(format!(
                "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {}",
                texts.join(", ")
            )))
        }
        Some(other) => Err(Failure::bad_request(format!(
            "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
        ))),
    }
}

/// Asks admission webhooks.
async fn admit(
    call: &Call,
    edit: Edit<'_>,
    old: Option<&Value>,
    new: Value,
) -> Result<Value, Failure> {
    let (verb, options) = match old {
        None => ("CREATE", "CreateOptions"),
        Some(_) => ("UPDATE", "UpdateOptions"),
    };
    let name = new["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let namespace = call.namespace().unwrap_or_default();
    let operation = operation(call, verb, options, edit.part, (namespace, &name))?;
    let old = old.unwrap_or(&Value::Null);
    let admission = call.server.admission();
    let admitted = admission.mutate(&operation, new, old).await?;
    admitted
        .warnings
        .into_iter()
        .for_each(|it| call.warnings.add(it));
    let warnings = admission
        .validate(&operation, &admitted.object, old)
        .await?;
    warnings.into_iter().for_each(|it| call.warnings.add(it));
    Ok(admitted.object)
}

/// Asks admission webhooks about a deletion.
pub(super) async fn admit_deletion(
    call: &Call,
    namespace: &str,
    name: &str,
    old: &Value,
) -> Result<(), Failure> {
    let operation = operation(call, "DELETE", "DeleteOptions", "", (namespace, name))?;
    let warnings = call
        .server
        .admission()
        .validate(&operation, &Value::Null, old)
        .await?;
    warnings.into_iter().for_each(|it| call.warnings.add(it));
    Ok(())
}

pub(super) fn operation<'c>(
    call: &'c Call,
    verb: &'static str,
    options: &str,
    part: &'c str,
    (namespace, name): (&'c str, &'c str),
) -> Result<Operation<'c>, Failure> {
    Ok(Operation {
        verb,
        group: &call.resource.group,
        version: &call.target.version,
        resource: &call.resource.plural,
        subresource: part,
        kind: &call.resource.kind,
        object_kind: None,
        namespace,
        name,
        user: &call.user,
        is_dry_run: call.is_dry_run()?,
        options: json!({"apiVersion": "meta.k8s.io/v1", "kind": options}),
    })
}

fn validate(call: &Call, old: Option<&Value>, new: &Value) -> Result<(), Failure> {
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    let mut causes = Vec::new();
    if name.is_empty() {
        causes.push(Cause {
            reason: "FieldValueRequired",
            message: "Required value: name or generateName is required".to_owned(),
            field: "metadata.name".to_owned(),
        });
    }
    causes.extend(call.version().schema.validate(new));
    if !name.is_empty() {
        causes.extend(validate_builtin(&call.resource, old, new));
    }
    causes.extend(old.and_then(|old| new_finalizers(old, new)));
    if causes.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid(call.about_kind(name), causes))
}

/// An object that is being deleted takes no more finalizers.
fn new_finalizers(old: &Value, new: &Value) -> Option<Cause> {
    if old["metadata"]["deletionTimestamp"].is_null() {
        return None;
    }
    let empty = Vec::new();
    let before = old["metadata"]["finalizers"].as_array().unwrap_or(&empty);
    let after = new["metadata"]["finalizers"].as_array()?;
    let added = after.iter().find(|it| !before.contains(it))?;
    Some(Cause {
        reason: "FieldValueForbidden",
        message: format!(
            "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizer {added}"
        ),
        field: "metadata.finalizers".to_owned(),
    })
}

/// Writes the new object; nothing when somebody else wrote meanwhile.
async fn commit(
    call: &Call,
    edit: Edit<'_>,
    current: Option<Arc<Stored>>,
    old: Option<Value>,
    mut new: Value,
) -> Result<Option<Outcome>, Failure> {
    let is_new = current.is_none();
    check_namespace(call, is_new)?;
    if call.is_dry_run()? {
        return Ok(Some(Outcome::Dry(new, is_new)));
    }
    let name = new["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let store = call.server.store();
    if let Some(current) = current {
        if is_last_finalizer_gone(&new) {
            let deleted = store
                .delete(call.key(&name), Expect::Revision(current.revision))
                .await;
            return settle(deleted, Outcome::Removed);
        }
        if old.as_ref() == Some(&new) {
            return Ok(Some(Outcome::Updated(current)));
        }
        to_storage(call, &mut new);
        let written = store
            .put(call.key(&name), Expect::Revision(current.revision), new)
            .await;
        return settle(written, Outcome::Updated);
    }
    to_storage(call, &mut new);
    let written = store.put(call.key(&name), Expect::Absent, new).await;
    if edit.expects == Expects::Absent && matches!(written, Err(StoreError::Conflict(_))) {
        return Err(Failure::already_exists(call.about(&name)));
    }
    settle(written, Outcome::Created)
}

fn to_storage(call: &Call, object: &mut Value) {
    let version = &call.resource.storage().name;
    object["apiVersion"] = crate::request::api_version(&call.resource.group, version).into();
}

fn settle(
    written: Result<Arc<Stored>, StoreError>,
    outcome: fn(Arc<Stored>) -> Outcome,
) -> Result<Option<Outcome>, Failure> {
    match written {
        Ok(object) => Ok(Some(outcome(object))),
        Err(StoreError::Conflict(_)) => Ok(None),
        Err(error) => Err(refused(&error)),
    }
}

/// Whether an object that is being deleted waits for nothing any more.
pub(super) fn is_last_finalizer_gone(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let is_empty = |it: &Value| it.as_array().is_none_or(Vec::is_empty);
    let is_namespace = object["kind"] == "Namespace" && object["apiVersion"] == "v1";
    !metadata["deletionTimestamp"].is_null()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && is_empty(&metadata["finalizers"])
        && (!is_namespace || is_empty(&object["spec"]["finalizers"]))
}

/// New objects need a namespace that exists and stays.
fn check_namespace(call: &Call, is_new: bool) -> Result<(), Failure> {
    let Some(namespace) = call.namespace().filter(|_| is_new) else {
        return Ok(());
    };
    match call.server.store().get("namespaces", "", namespace) {
        Some(found) if found.is_deleting => Err(ending(call, namespace)),
        Some(_) => Ok(()),
        None => Err(Failure::not_found(About {
            kind: "namespaces".to_owned(),
            name: namespace.to_owned(),
            ..About::default()
        })),
    }
}

fn ending(call: &Call, namespace: &str) -> Failure {
    let why = format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    );
    let cause = Cause {
        reason: "NamespaceTerminating",
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".to_owned(),
    };
    let (plural, name) = (&call.resource.plural, &call.target.name);
    Failure {
        causes: vec![cause],
        ..Failure::new(
            403,
            "Forbidden",
            format!("{plural} \"{name}\" is forbidden: {why}"),
        )
        .about(call.about(name))
    }
}
