//! Get and list.

use std::sync::Arc;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Call, refused};
use crate::answer::{self, Projection};
use crate::failure::{Cause, Failure};
use crate::request::api_version;
use crate::selector::Selector;
use crate::store::{Listing, StoreError, Stored};
use crate::table;

pub(super) fn get(call: &Call, name: &str) -> Result<Response<Body>, Failure> {
    Ok(call.answer(StatusCode::OK, &*call.existing(name)?))
}

/// Where a list that was cut goes on.
#[derive(Debug, PartialEq, Eq)]
struct Continue {
    revision: u64,
    /// Namespace and name of the last object that was shown.
    after: (String, String),
}

impl Continue {
    fn token(&self) -> String {
        let (namespace, name) = &self.after;
        URL_SAFE_NO_PAD.encode(json!([self.revision, namespace, name]).to_string())
    }

    fn parse(token: &str) -> Result<Self, Failure> {
        let wrong =
            || Failure::bad_request("continue key is not valid: start a new list without it");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
        let (revision, namespace, name) = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        Ok(Self {
            revision,
            after: (namespace, name),
        })
    }
}

/// A part of a list.
struct Page {
    objects: Vec<Arc<Stored>>,
    revision: u64,
    next: Option<Continue>,
    remaining: Option<usize>,
}

pub(super) fn list(call: &Call) -> Result<Response<Body>, Failure> {
    let selector = Selector::parse(&call.query, &call.store_name)?;
    let page = page(call, &selector)?;
    Ok(show(call, &page))
}

fn page(call: &Call, selector: &Selector) -> Result<Page, Failure> {
    let limit = call.query.number("limit")?.unwrap_or(0);
    let begun = call
        .query
        .get("continue")
        .map(Continue::parse)
        .transpose()?;
    let is_any = begun.is_none() && call.query.get("resourceVersion") == Some("0");
    let limit = if is_any {
        0
    } else {
        usize::try_from(limit).unwrap_or(usize::MAX)
    };
    let listing = snapshot(call, begun.as_ref(), limit > 0)?;
    let mut objects = listing.objects;
    if let Some(begun) = &begun {
        let (namespace, name) = (begun.after.0.as_str(), begun.after.1.as_str());
        objects.retain(|it| (it.namespace.as_str(), it.name.as_str()) > (namespace, name));
    }
    if !selector.is_everything() {
        objects.retain(|it| selector.matches(it));
    }
    let revision = listing.revision;
    let cut = objects
        .len()
        .saturating_sub(if limit == 0 { usize::MAX } else { limit });
    objects.truncate(objects.len() - cut);
    let last = objects.last().filter(|_| cut > 0);
    let next = last.map(|it| Continue {
        revision,
        after: (it.namespace.clone(), it.name.clone()),
    });
    let remaining = (cut > 0 && selector.is_everything()).then_some(cut);
    Ok(Page {
        objects,
        revision,
        next,
        remaining,
    })
}

/// Returns the objects as of the revision that the request wants.
fn snapshot(call: &Call, begun: Option<&Continue>, is_limited: bool) -> Result<Listing, Failure> {
    let store = call.server.store();
    let wanted = call
        .query
        .get("resourceVersion")
        .map(revision)
        .transpose()?;
    let matching = call.query.get("resourceVersionMatch");
    if let Some(begun) = begun {
        if wanted.is_some_and(|it| it > 0) || matching.is_some() {
            return Err(Failure::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        return store
            .list_at(&call.store_name, call.namespace(), begun.revision)
            .map_err(|error| too_old(&error));
    }
    check_match(matching, wanted)?;
    let wanted = wanted.unwrap_or(0);
    let is_exact = matching == Some("Exact") || (matching.is_none() && is_limited && wanted > 0);
    let current = store.revision();
    if wanted > current {
        return Err(too_large(wanted, current));
    }
    if is_exact {
        return store
            .list_at(&call.store_name, call.namespace(), wanted)
            .map_err(|error| refused(&error));
    }
    Ok(store.list(&call.store_name, call.namespace()))
}

pub(super) fn revision(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| {
        Failure::bad_request(format!(
            "Invalid value: {text:?}: resourceVersion must be a number that the server gave"
        ))
    })
}

fn check_match(matching: Option<&str>, wanted: Option<u64>) -> Result<(), Failure> {
    let why = match (matching, wanted) {
        (None | Some("NotOlderThan"), Some(_)) | (None, None) => return Ok(()),
        (Some("Exact"), Some(revision)) if revision > 0 => return Ok(()),
        (Some("Exact"), Some(_)) => "Exact needs a resourceVersion above 0",
        (Some("Exact" | "NotOlderThan"), None) => {
            "resourceVersionMatch is forbidden unless resourceVersion is provided"
        }
        (Some(_), _) => "supported values: \"Exact\", \"NotOlderThan\"",
    };
    Err(Failure::bad_request(format!(
        "resourceVersionMatch: Forbidden: {why}"
    )))
}

fn too_old(error: &StoreError) -> Failure {
    match error {
        StoreError::Expired { .. } => Failure::new(
            410,
            "Expired",
            "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.",
        ),
        other => refused(other),
    }
}

/// 504: the client knows of a revision that was never reached here.
pub(super) fn too_large(wanted: u64, current: u64) -> Failure {
    Failure {
        causes: vec![Cause {
            reason: "ResourceVersionTooLarge",
            message: "Too large resource version".to_owned(),
            field: String::new(),
        }],
        retry_after: Some(1),
        ..Failure::new(
            504,
            "Timeout",
            format!("Too large resource version: {wanted}, current: {current}"),
        )
    }
}

fn show(call: &Call, page: &Page) -> Response<Body> {
    let mut meta = json!({"resourceVersion": page.revision.to_string()});
    if let Some(next) = &page.next {
        meta["continue"] = next.token().into();
    }
    if let Some(remaining) = page.remaining {
        meta["remainingItemCount"] = remaining.into();
    }
    if call.accept.is_verbatim() {
        return answer::bytes(
            StatusCode::OK,
            call.accept.content_type(),
            verbatim(call, page, &meta),
        );
    }
    let values: Vec<_> = page.objects.iter().map(|it| call.value(it)).collect();
    answer::value(StatusCode::OK, &call.accept, &project(call, &values, &meta))
}

fn project(call: &Call, values: &[Value], meta: &Value) -> Value {
    match call.accept.projection {
        Projection::Table(include) => {
            let values: Vec<_> = values.iter().collect();
            let (resource, version) = call.kind();
            table::render(resource, version, &values, include, meta, Timestamp::now())
        }
        Projection::Metadata => {
            let items: Vec<_> = values.iter().map(answer::partial).collect();
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": meta, "items": items})
        }
        Projection::Whole => json!({
            "apiVersion": call.target.api_version(), "kind": call.resource.list_kind, "metadata": meta, "items": values,
        }),
    }
}

/// Writes a list without reading its objects.
fn verbatim(call: &Call, page: &Page, meta: &Value) -> Vec<u8> {
    let version = api_version(&call.target.group, &call.target.version);
    let head = json!({"kind": call.resource.list_kind, "apiVersion": version, "metadata": meta})
        .to_string();
    let size: usize = page.objects.iter().map(|it| it.json.len() + 1).sum();
    let mut text = Vec::with_capacity(size + head.len() + 16);
    text.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
    text.extend_from_slice(b",\"items\":[");
    for (index, object) in page.objects.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        text.extend_from_slice(&answer::in_version(&object.json, &version));
    }
    text.extend_from_slice(b"]}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_are_read_back_and_others_refused() {
        let next = Continue {
            revision: 7,
            after: ("default".to_owned(), "a".to_owned()),
        };
        assert_eq!(Continue::parse(&next.token()).unwrap(), next);
        for token in ["x", "W10", "e30"] {
            assert_eq!(Continue::parse(token).unwrap_err().code, 400);
        }
    }
}
