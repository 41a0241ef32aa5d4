//! Scale: the number of replicas apart from everything else (`autoscaling/v1`).

use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::pipeline::{self, Edit, Expects, Outcome};
use super::{Call, body, not_allowed, write};
use crate::answer;
use crate::catalog::ScalePaths;
use crate::failure::{Cause, Failure};
use crate::request::Verb;

const API_VERSION: (&str, &str) = ("autoscaling", "v1");

pub(super) async fn answer(call: &Call, sent: Body) -> Result<Response<Body>, Failure> {
    let paths = call
        .version()
        .scale
        .clone()
        .ok_or_else(super::no_such_path)?;
    let name = call.target.name.as_str();
    let scale = match call.verb {
        Verb::Get => scale_of(&paths, &call.value(&*call.existing(name)?)),
        Verb::Update => {
            let wanted = body::part(call, sent, API_VERSION, "Scale").await?;
            change(call, &paths, &|_| Ok(wanted.clone())).await?
        }
        Verb::Patch => {
            let media = body::media_type(&call.headers).to_owned();
            write::check_media(call, &media)?;
            let bytes = body::read(call, sent).await?;
            let patch = body::json(&bytes)?;
            change(call, &paths, &|scale| {
                write::patch_document(&media, scale, &patch)
            })
            .await?
        }
        Verb::List | Verb::Watch | Verb::Create | Verb::Delete | Verb::DeleteCollection => {
            return Err(not_allowed());
        }
    };
    Ok(answer::object(
        StatusCode::OK,
        &call.accept,
        call.kind(),
        answer::to_bytes(&scale),
    ))
}

type MakeScale<'m> = dyn Fn(&Value) -> Result<Value, Failure> + Send + Sync + 'm;

async fn change(call: &Call, paths: &ScalePaths, make: &MakeScale<'_>) -> Result<Value, Failure> {
    let name = call.target.name.as_str();
    let edit = Edit {
        name,
        expects: Expects::Present,
        part: "scale",
        is_tracked: false,
        is_own: false,
    };
    let make = |old: Option<&Value>| {
        let old = old.ok_or_else(|| Failure::not_found(call.about(name)))?;
        apply(call, paths, old, &make(&scale_of(paths, old))?)
    };
    Ok(match pipeline::change(call, edit, &make).await? {
        Outcome::Created(object) | Outcome::Updated(object) | Outcome::Removed(object) => {
            scale_of(paths, &call.value(&object))
        }
        Outcome::Dry(object, _) => scale_of(paths, &object),
    })
}

/// Puts the replicas of a scale into its object.
fn apply(call: &Call, paths: &ScalePaths, old: &Value, scale: &Value) -> Result<Value, Failure> {
    let replicas = match scale["spec"].get("replicas") {
        None => 0,
        Some(replicas) => replicas
            .as_i64()
            .filter(|it| (0..=i64::from(i32::MAX)).contains(it))
            .ok_or_else(|| {
                let cause = Cause {
                    reason: "FieldValueInvalid",
                    message: format!("Invalid value: {replicas}: must be a number of 0 or more"),
                    field: "spec.replicas".to_owned(),
                };
                Failure::invalid(call.about_kind(&call.target.name), vec![cause])
            })?,
    };
    let mut new = old.clone();
    let place = names(&paths.spec_replicas).fold(&mut new, |value, name| &mut value[name]);
    *place = replicas.into();
    if let Some(revision) = scale["metadata"]["resourceVersion"].as_str() {
        new["metadata"]["resourceVersion"] = revision.into();
    }
    Ok(new)
}

/// Returns the scale of an object.
fn scale_of(paths: &ScalePaths, object: &Value) -> Value {
    let at = |path: &str| names(path).fold(object, |value, name| &value[name]);
    let number = |path: &str| at(path).as_i64().unwrap_or(0);
    let own = &object["metadata"];
    let mut metadata = json!({});
    for name in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = own.get(name) {
            metadata[name] = value.clone();
        }
    }
    let mut scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata,
        "spec": {"replicas": number(&paths.spec_replicas)},
        "status": {"replicas": number(&paths.status_replicas)},
    });
    let selector = paths.label_selector.as_deref().map(at);
    if let Some(selector) = selector.and_then(selector_text) {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// Returns a selector as text, from text or from a `LabelSelector` of labels.
fn selector_text(selector: &Value) -> Option<String> {
    match selector {
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) => {
            let labels = fields.get("matchLabels")?.as_object()?;
            let pairs = labels
                .iter()
                .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
            Some(pairs.collect::<Vec<_>>().join(","))
        }
        _ => None,
    }
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').filter(|it| !it.is_empty())
}
