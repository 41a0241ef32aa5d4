//! Delete: at once, with grace, or after finalizers.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::pipeline::{self, Edit, Expects, Outcome};
use super::{Call, body, metadata};
use crate::answer;
use crate::failure::{Cause, Failure};
use crate::selector::Selector;
use crate::store::{Expect, StoreError, Stored};

/// How often a deletion is planned again on what somebody else wrote meanwhile.
const ATTEMPTS: usize = 16;
/// Grace of a pod that does not say.
const GRACE_SECONDS: i64 = 30;
/// Finalizers by which the collector of dependents is waited for.
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// `meta/v1 DeleteOptions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DeleteOptions {
    pub(super) grace_period_seconds: Option<i64>,
    pub(super) preconditions: Option<Preconditions>,
    pub(super) orphan_dependents: Option<bool>,
    pub(super) propagation_policy: Option<String>,
    pub(super) dry_run: Option<Vec<String>>,
}

/// What the object must be like.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// What a deletion does.
#[derive(Debug, PartialEq)]
enum Step {
    /// Removes the object.
    Remove,
    /// Writes it with the time of its deletion.
    Mark(Value),
    /// Nothing: it is being deleted already.
    Keep,
}

/// What came of a deletion.
pub(super) enum Deletion {
    /// The object is gone.
    Removed(Arc<Stored>),
    /// It waits for its node or its finalizers.
    Waits(Arc<Stored>),
}

pub(super) async fn delete(call: &Call, sent: Body) -> Result<Response<Body>, Failure> {
    let options = options(call, sent).await?;
    Ok(match remove(call, &call.target.name, &options).await? {
        Deletion::Removed(object) => {
            let status = answer::success(&call.resource, &object.name, &object.uid);
            answer::value(StatusCode::OK, &call.accept, &status)
        }
        Deletion::Waits(object) => call.answer(StatusCode::OK, &object),
    })
}

pub(super) async fn delete_collection(call: &Call, sent: Body) -> Result<Response<Body>, Failure> {
    let options = options(call, sent).await?;
    let selector = Selector::parse(&call.query, &call.store_name)?;
    let listing = call.server.store().list(&call.store_name, call.namespace());
    let mut deleted = Vec::new();
    for object in listing.objects.iter().filter(|it| selector.matches(it)) {
        // All of them means all namespaces too, where the request names none.
        match remove_in(call, &object.namespace, &object.name, &options).await {
            Ok(_) => deleted.push(call.value(object)),
            Err(failure) if failure.code == 404 => {}
            Err(failure) => return Err(failure),
        }
    }
    let list = json!({
        "kind": call.resource.list_kind, "apiVersion": call.target.api_version(),
        "metadata": {"resourceVersion": call.server.store().revision().to_string()}, "items": deleted,
    });
    Ok(answer::value(StatusCode::OK, &call.accept, &list))
}

/// Reads the options from the body, or else from the query.
async fn options(call: &Call, sent: Body) -> Result<DeleteOptions, Failure> {
    let bytes = body::read(call, sent).await?;
    let mut options = if bytes.is_empty() {
        DeleteOptions::default()
    } else {
        let value = body::decode(body::media_type(&call.headers), &bytes)?;
        serde_json::from_value(value).map_err(|error| {
            Failure::bad_request(format!("the body is no DeleteOptions: {error}"))
        })?
    };
    let query = &call.query;
    if let Some(grace) = query.number("gracePeriodSeconds")? {
        options.grace_period_seconds = i64::try_from(grace).ok();
    }
    if let Some(policy) = query.get("propagationPolicy") {
        options.propagation_policy = Some(policy.to_owned());
    }
    if query.get("orphanDependents").is_some() {
        options.orphan_dependents = Some(query.is_set("orphanDependents"));
    }
    if call.is_dry_run()? {
        options.dry_run = Some(vec!["All".to_owned()]);
    }
    options.check(call)?;
    Ok(options)
}

impl DeleteOptions {
    fn check(&self, call: &Call) -> Result<(), Failure> {
        let cause = |field: &str, message: &str| {
            let cause = Cause {
                reason: "FieldValueInvalid",
                message: message.to_owned(),
                field: field.to_owned(),
            };
            Failure::invalid(call.about_kind(&call.target.name), vec![cause])
        };
        match self.propagation_policy.as_deref() {
            Some("Orphan" | "Background" | "Foreground") if self.orphan_dependents.is_some() => {
                return Err(cause(
                    "propagationPolicy",
                    "orphanDependents and deletionPropagation cannot be both set",
                ));
            }
            None | Some("Orphan" | "Background" | "Foreground") => {}
            Some(_) => {
                return Err(cause(
                    "propagationPolicy",
                    "supported values: \"Orphan\", \"Background\", \"Foreground\"",
                ));
            }
        }
        if self.grace_period_seconds.is_some_and(|it| it < 0) {
            return Err(cause("gracePeriodSeconds", "must be 0 or more"));
        }
        match self.dry_run.as_deref() {
            None | Some([]) => Ok(()),
            Some([all]) if all == "All" => Ok(()),
            Some(_) => Err(cause("dryRun", "the only supported value is \"All\"")),
        }
    }

    fn is_dry_run(&self) -> bool {
        self.dry_run.as_ref().is_some_and(|it| !it.is_empty())
    }
}

/// Deletes an object in the namespace of the request.
pub(super) async fn remove(
    call: &Call,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deletion, Failure> {
    remove_in(call, call.namespace().unwrap_or_default(), name, options).await
}

async fn remove_in(
    call: &Call,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deletion, Failure> {
    let store = call.server.store();
    let missing = || Failure::not_found(call.about(name));
    for attempt in 0..ATTEMPTS {
        let current = store
            .get(&call.store_name, namespace, name)
            .ok_or_else(missing)?;
        check_preconditions(call, &current, options)?;
        let old = current.value();
        if attempt == 0 {
            pipeline::admit_deletion(call, namespace, name, &call.value(&current)).await?;
        }
        let key = crate::store::Key {
            namespace: namespace.to_owned(),
            ..call.key(name)
        };
        let expect = Expect::Revision(current.revision);
        let is_pod = call.store_name.as_ref() == "pods";
        let written = match plan(&old, is_pod, options, Timestamp::now()) {
            Step::Remove if options.is_dry_run() => return Ok(Deletion::Removed(current)),
            Step::Mark(_) | Step::Keep if options.is_dry_run() => {
                return Ok(Deletion::Waits(current));
            }
            Step::Keep => return Ok(Deletion::Waits(current)),
            Step::Remove => store.delete(key, expect).await.map(Deletion::Removed),
            Step::Mark(object) => store.put(key, expect, object).await.map(Deletion::Waits),
        };
        match written {
            Err(StoreError::Conflict(_)) => {}
            other => return other.map_err(|error| super::refused(&error)),
        }
    }
    Err(call.conflict(name))
}

fn check_preconditions(
    call: &Call,
    current: &Stored,
    options: &DeleteOptions,
) -> Result<(), Failure> {
    let Some(wanted) = &options.preconditions else {
        return Ok(());
    };
    let revision = current.revision.to_string();
    for (what, wanted, found) in [
        ("UID", &wanted.uid, &current.uid),
        ("ResourceVersion", &wanted.resource_version, &revision),
    ] {
        if let Some(wanted) = wanted.as_ref().filter(|it| *it != found) {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            );
            return Err(Failure::conflict(call.about(&current.name), &why));
        }
    }
    Ok(())
}

/// Decides what a deletion does to an object.
fn plan(old: &Value, is_pod: bool, options: &DeleteOptions, now: Timestamp) -> Step {
    let mut new = old.clone();
    let finalizers = finalizers(old, options);
    let is_free = finalizers.is_empty() && !has_namespace_finalizers(old);
    set_finalizers(&mut new, finalizers);
    let grace = if is_pod { grace(old, options) } else { 0 };
    let (metadata, was) = (&mut new["metadata"], &old["metadata"]);
    let is_first = was["deletionTimestamp"].is_null();
    let pending = was["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if is_first || grace < pending {
        if grace == 0 && is_free {
            return Step::Remove;
        }
        let at = now
            .checked_add(SignedDuration::from_secs(grace))
            .unwrap_or(now);
        metadata["deletionTimestamp"] = metadata::seconds(at).into();
        metadata["deletionGracePeriodSeconds"] = grace.into();
        if let Some(generation) = was["generation"].as_i64().filter(|_| is_first) {
            metadata["generation"] = (generation + 1).into();
        }
        if is_namespace(old) {
            new["status"]["phase"] = "Terminating".into();
        }
    } else if is_free && pending == 0 {
        return Step::Remove;
    }
    if new == *old {
        Step::Keep
    } else {
        Step::Mark(new)
    }
}

/// Returns the finalizers that are left with a propagation policy.
fn finalizers(old: &Value, options: &DeleteOptions) -> Vec<Value> {
    let mut all = old["metadata"]["finalizers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let wanted = match (
        options.propagation_policy.as_deref(),
        options.orphan_dependents,
    ) {
        (Some("Orphan"), _) | (None, Some(true)) => Some(ORPHAN),
        (Some("Foreground"), _) => Some(FOREGROUND),
        (Some(_), _) | (None, Some(false)) => None,
        (None, None) => return all,
    };
    all.retain(|it| it != ORPHAN && it != FOREGROUND);
    all.extend(wanted.map(Value::from));
    all
}

fn set_finalizers(object: &mut Value, finalizers: Vec<Value>) {
    if finalizers.is_empty() {
        metadata::remove(&mut object["metadata"], "finalizers");
    } else {
        object["metadata"]["finalizers"] = finalizers.into();
    }
}

fn is_namespace(object: &Value) -> bool {
    object["kind"] == "Namespace" && object["apiVersion"] == "v1"
}

fn has_namespace_finalizers(object: &Value) -> bool {
    is_namespace(object)
        && object["spec"]["finalizers"]
            .as_array()
            .is_some_and(|it| !it.is_empty())
}

/// Returns the seconds that a pod's node has to end it: none before it has a node, and after it ended.
fn grace(pod: &Value, options: &DeleteOptions) -> i64 {
    let has_node = pod["spec"]["nodeName"]
        .as_str()
        .is_some_and(|it| !it.is_empty());
    let is_over = matches!(
        pod["status"]["phase"].as_str(),
        Some("Failed" | "Succeeded")
    );
    if !has_node || is_over {
        return 0;
    }
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64();
    options
        .grace_period_seconds
        .or(own)
        .unwrap_or(GRACE_SECONDS)
}

/// Takes finalizers from the spec of a namespace (`namespaces/finalize`).
pub(super) async fn finalize(call: &Call, sent: Body) -> Result<Response<Body>, Failure> {
    let object = body::object(call, sent).await?;
    let edit = Edit {
        name: &call.target.name,
        expects: Expects::Present,
        part: "finalize",
        is_tracked: true,
        is_own: true,
    };
    let make = |old: Option<&Value>| {
        let mut new = old.cloned().unwrap_or_default();
        new["spec"]["finalizers"] = object["spec"]
            .get("finalizers")
            .cloned()
            .unwrap_or_else(|| json!([]));
        Ok(new)
    };
    let outcome: Outcome = pipeline::change(call, edit, &make).await?;
    Ok(super::write::show(call, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(policy: &str) -> DeleteOptions {
        DeleteOptions {
            propagation_policy: Some(policy.to_owned()),
            ..DeleteOptions::default()
        }
    }

    fn mark(step: Step) -> Value {
        match step {
            Step::Mark(value) => value["metadata"].clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_object_without_finalizers_goes_at_once() {
        let object = json!({"metadata": {"name": "a"}});
        assert_eq!(
            plan(
                &object,
                false,
                &DeleteOptions::default(),
                Timestamp::UNIX_EPOCH
            ),
            Step::Remove
        );
        assert_eq!(
            plan(&object, false, &with("Background"), Timestamp::UNIX_EPOCH),
            Step::Remove
        );
    }

    #[test]
    fn finalizers_are_waited_for_and_policies_add_theirs() {
        let object = json!({"metadata": {"name": "a", "generation": 3, "finalizers": ["x/y"]}});
        let marked = mark(plan(
            &object,
            false,
            &with("Foreground"),
            Timestamp::UNIX_EPOCH,
        ));
        assert_eq!(marked["finalizers"], json!(["x/y", "foregroundDeletion"]));
        assert_eq!(marked["deletionTimestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(marked["generation"], 4);
        let again = json!({"metadata": marked});
        assert_eq!(
            plan(
                &again,
                false,
                &DeleteOptions::default(),
                Timestamp::UNIX_EPOCH
            ),
            Step::Keep
        );
        let orphaned = mark(plan(&again, false, &with("Orphan"), Timestamp::UNIX_EPOCH));
        assert_eq!(orphaned["finalizers"], json!(["x/y", "orphan"]));
        assert_eq!(orphaned["generation"], 4);
    }

    #[test]
    fn a_pod_on_a_node_gets_its_grace_which_can_be_shortened() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 60}});
        let marked = mark(plan(
            &pod,
            true,
            &DeleteOptions::default(),
            Timestamp::UNIX_EPOCH,
        ));
        assert_eq!(marked["deletionTimestamp"], "1970-01-01T00:01:00Z");
        assert_eq!(marked["deletionGracePeriodSeconds"], 60);
        let waits = json!({"metadata": marked, "spec": pod["spec"]});
        let of = |seconds| DeleteOptions {
            grace_period_seconds: Some(seconds),
            ..DeleteOptions::default()
        };
        assert_eq!(
            plan(&waits, true, &of(90), Timestamp::UNIX_EPOCH),
            Step::Keep
        );
        let shorter = mark(plan(&waits, true, &of(5), Timestamp::UNIX_EPOCH));
        assert_eq!(shorter["deletionGracePeriodSeconds"], 5);
        assert_eq!(
            plan(&waits, true, &of(0), Timestamp::UNIX_EPOCH),
            Step::Remove
        );
    }

    #[test]
    fn a_pod_without_a_node_or_that_ended_goes_at_once() {
        for pod in [
            json!({"metadata": {"name": "a"}, "spec": {}}),
            json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}, "status": {"phase": "Failed"}}),
        ] {
            assert_eq!(
                plan(&pod, true, &DeleteOptions::default(), Timestamp::UNIX_EPOCH),
                Step::Remove
            );
        }
    }

    #[test]
    fn a_namespace_waits_for_its_content() {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}});
        let Step::Mark(marked) = plan(
            &namespace,
            false,
            &DeleteOptions::default(),
            Timestamp::UNIX_EPOCH,
        ) else {
            panic!()
        };
        assert_eq!(marked["status"]["phase"], "Terminating");
    }
}
