//! Create, update and patch.

use axum::body::Body;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use super::pipeline::{self, Edit, Expects, Make, Outcome};
use super::{Call, body};
use crate::answer;
use crate::failure::Failure;
use crate::patch;

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// Generated names that are tried before a client hears that one exists.
const NAMES_TRIED: usize = 8;

pub(super) async fn create(call: &Call, sent: Body) -> Result<Response<Body>, Failure> {
    let object = body::object(call, sent).await?;
    if call.resource.is_namespaced && call.target.namespace.is_empty() {
        return Err(Failure::bad_request(
            "an empty namespace may not be set during creation",
        ));
    }
    let is_generated = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .is_empty();
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let edit = Edit {
        name: &name,
        expects: Expects::Absent,
        part: "",
        is_tracked: false,
        is_own: false,
    };
    let make = |_: Option<&Value>| Ok(object.clone());
    let mut tried = 1;
    loop {
        match pipeline::change(call, edit, &make).await {
            Err(failure)
                if failure.reason == "AlreadyExists" && is_generated && tried < NAMES_TRIED =>
            {
                tried += 1;
            }
            outcome => return Ok(show(call, outcome?)),
        }
    }
}

pub(super) async fn update(call: &Call, sent: Body) -> Result<Response<Body>, Failure> {
    let object = body::object(call, sent).await?;
    let edit = present(call);
    let outcome = pipeline::change(call, edit, &|_| Ok(object.clone())).await?;
    Ok(show(call, outcome))
}

pub(super) async fn patch(call: &Call, sent: Body) -> Result<Response<Body>, Failure> {
    let media = body::media_type(&call.headers).to_owned();
    let bytes = body::read(call, sent).await?;
    if media == APPLY_PATCH {
        return apply(call, &body::yaml(&bytes)?).await;
    }
    check_media(call, &media)?;
    let change = body::json(&bytes)?;
    let outcome = pipeline::change(call, present(call), &*patching(call, &media, &change)).await?;
    Ok(show(call, outcome))
}

fn present(call: &Call) -> Edit<'_> {
    Edit {
        name: &call.target.name,
        expects: Expects::Present,
        part: &call.target.subresource,
        is_tracked: false,
        is_own: false,
    }
}

pub(super) fn check_media(call: &Call, media: &str) -> Result<(), Failure> {
    let is_known = matches!(media, JSON_PATCH | MERGE_PATCH)
        || (media == STRATEGIC_PATCH && !call.resource.is_custom);
    if is_known {
        return Ok(());
    }
    let all = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH, STRATEGIC_PATCH];
    Err(body::unsupported(
        media,
        if call.resource.is_custom {
            &all[..3]
        } else {
            &all
        },
    ))
}

/// Returns what applies a patch to an object.
fn patching<'p>(call: &'p Call, media: &str, change: &'p Value) -> Box<Make<'p>> {
    let missing = || Failure::not_found(call.about(&call.target.name));
    match media {
        JSON_PATCH => Box::new(move |old| patch::json(old.ok_or_else(missing)?, change)),
        STRATEGIC_PATCH => Box::new(move |old| {
            patch::strategic(&call.version().schema, old.ok_or_else(missing)?, change)
        }),
        _ => Box::new(move |old| merge(old.ok_or_else(missing)?, change)),
    }
}

/// Applies a JSON patch or a merge patch to any document.
pub(super) fn patch_document(
    media: &str,
    document: &Value,
    change: &Value,
) -> Result<Value, Failure> {
    match media {
        JSON_PATCH => patch::json(document, change),
        _ => merge(document, change),
    }
}

fn merge(document: &Value, change: &Value) -> Result<Value, Failure> {
    if !change.is_object() {
        return Err(Failure::bad_request("a merge patch must be an object"));
    }
    Ok(patch::merge(document, change))
}

/// Server-side apply: makes the object or changes it.
async fn apply(call: &Call, applied: &Value) -> Result<Response<Body>, Failure> {
    let manager = call.query.get("fieldManager").ok_or_else(|| {
        Failure::bad_request(
            "fieldManager is required for apply patch: add the query parameter fieldManager",
        )
    })?;
    let applied = complete(call, applied)?;
    let is_forced = call.query.is_set("force");
    let part = call.target.subresource.as_str();
    let make = |old: Option<&Value>| {
        let schema = &call.version().schema;
        patch::apply(
            schema,
            old,
            &applied,
            manager,
            is_forced,
            part,
            Timestamp::now(),
        )
    };
    let expects = if part.is_empty() {
        Expects::Any
    } else {
        Expects::Present
    };
    let edit = Edit {
        expects,
        is_tracked: true,
        ..present(call)
    };
    Ok(show(call, pipeline::change(call, edit, &make).await?))
}

/// Checks what is applied, and fills in the name of the path.
fn complete(call: &Call, applied: &Value) -> Result<Value, Failure> {
    let mut applied = applied.clone();
    for name in ["apiVersion", "kind"] {
        if !applied[name].is_string() {
            return Err(Failure::bad_request(format!(
                "{name} must be set in what is applied"
            )));
        }
    }
    body::check_kind(
        &mut applied,
        &call.target.api_version(),
        &call.resource.kind,
    )?;
    let name = call.target.name.as_str();
    match applied["metadata"]["name"].as_str() {
        Some(own) if own != name => {
            return Err(Failure::bad_request(format!(
                "the name of the object ({own}) does not match the name on the URL ({name})"
            )));
        }
        _ => applied["metadata"]["name"] = name.into(),
    }
    if let Some(namespace) = call.namespace() {
        super::metadata::in_namespace(&mut applied["metadata"], namespace)?;
    }
    Ok(applied)
}

/// Answers with what came of a change.
pub(super) fn show(call: &Call, outcome: Outcome) -> Response<Body> {
    match outcome {
        Outcome::Created(object) => call.answer(StatusCode::CREATED, &object),
        Outcome::Updated(object) | Outcome::Removed(object) => call.answer(StatusCode::OK, &object),
        Outcome::Dry(object, is_new) => {
            let status = if is_new {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            answer::object(status, &call.accept, call.kind(), answer::to_bytes(&object))
        }
    }
}
