//! Parts of objects that are no objects: binding, eviction, tokens; and reviews, which are answered and not kept.

use axum::body::Body;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::delete::{self, DeleteOptions};
use super::pipeline::{self, Edit, Expects};
use super::{Call, body, metadata, no_such_path, not_allowed};
use crate::access::reviews;
use crate::answer;
use crate::failure::{Cause, Failure};
use crate::request::Verb;
use crate::selector;

pub(super) async fn answer(call: &Call, sent: Body) -> Result<Response<Body>, Failure> {
    let part = call.target.subresource.as_str();
    if !call.resource.subresources.iter().any(|it| it.name == part) {
        return Err(no_such_path());
    }
    match (call.store_name.as_ref(), part, call.verb) {
        ("pods", "binding", Verb::Create) => bind(call, sent).await,
        ("pods", "eviction", Verb::Create) => evict(call, sent).await,
        ("serviceaccounts", "token", Verb::Create) => issue_token(call, sent).await,
        ("namespaces", "finalize", Verb::Update) => delete::finalize(call, sent).await,
        _ => Err(not_allowed()),
    }
}

/// Answers a review (`authorization.k8s.io`, `authentication.k8s.io`).
pub(super) async fn review(call: &Call, sent: Body) -> Result<Response<Body>, Failure> {
    if call.verb != Verb::Create {
        return Err(not_allowed());
    }
    let question = body::object(call, sent).await?;
    let authorizer = call.server.authorizer();
    let (plural, namespace) = (&call.resource.plural, &call.target.namespace);
    let (rbac, now) = (authorizer.rbac(), Timestamp::now());
    let answered = reviews::answer(
        plural,
        namespace,
        &question,
        &call.user,
        &rbac,
        authorizer.tokens(),
        now,
    )?;
    Ok(answer::value(StatusCode::CREATED, &call.accept, &answered))
}

/// Puts a pod on a node.
async fn bind(call: &Call, sent: Body) -> Result<Response<Body>, Failure> {
    let binding = body::part(call, sent, ("", "v1"), "Binding").await?;
    let node = binding["target"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let name = call.target.name.as_str();
    if node.is_empty() {
        let cause = Cause {
            reason: "FieldValueRequired",
            message: "Required value: the node's name".to_owned(),
            field: "target.name".to_owned(),
        };
        return Err(Failure::invalid(call.about_kind(name), vec![cause]));
    }
    let make = |old: Option<&Value>| bound(call, old.unwrap_or(&Value::Null), &node);
    let edit = Edit {
        name,
        expects: Expects::Present,
        part: "binding",
        is_tracked: true,
        is_own: true,
    };
    pipeline::change(call, edit, &make).await?;
    Ok(answer::value(
        StatusCode::CREATED,
        &call.accept,
        &succeeded(),
    ))
}

fn bound(call: &Call, pod: &Value, node: &str) -> Result<Value, Failure> {
    let name = call.target.name.as_str();
    let refused = |why: String| Err(Failure::conflict(call.about(name), &why));
    if let Some(there) = pod["spec"]["nodeName"].as_str().filter(|it| !it.is_empty()) {
        return refused(format!(
            "pod {name} is already assigned to node \"{there}\""
        ));
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return refused(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    let mut bound = pod.clone();
    bound["spec"]["nodeName"] = node.into();
    let scheduled = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": metadata::seconds(Timestamp::now()),
    });
    if !bound["status"]["conditions"].is_array() {
        bound["status"]["conditions"] = json!([]);
    }
    if let Some(conditions) = bound["status"]["conditions"].as_array_mut() {
        conditions.retain(|it| it["type"] != "PodScheduled");
        conditions.push(scheduled);
    }
    Ok(bound)
}

/// Deletes a pod as far as admission and disruption budgets allow (`policy/v1` Eviction).
async fn evict(call: &Call, sent: Body) -> Result<Response<Body>, Failure> {
    let eviction = body::part(call, sent, ("policy", "v1"), "Eviction").await?;
    let name = call.target.name.as_str();
    let pod = call.existing(name)?;
    admit_part(call, ("policy", "v1", "Eviction"), &eviction).await?;
    let mut options: DeleteOptions = match eviction.get("deleteOptions") {
        None | Some(Value::Null) => DeleteOptions::default(),
        Some(options) => serde_json::from_value(options.clone())
            .map_err(|error| Failure::bad_request(format!("deleteOptions: {error}")))?,
    };
    if call.is_dry_run()? {
        options.dry_run = Some(vec!["All".to_owned()]);
    }
    if !is_over(&pod.value()) {
        check_budgets(call, &pod.labels)?;
    }
    delete::remove(call, name, &options).await?;
    Ok(answer::value(
        StatusCode::CREATED,
        &call.accept,
        &succeeded(),
    ))
}

fn is_over(pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str();
    matches!(phase, Some("Pending" | "Succeeded" | "Failed"))
        || !pod["metadata"]["deletionTimestamp"].is_null()
}

/// Refuses a disruption that a budget does not allow. Budgets that no controller has counted yet allow none, as in
/// Kubernetes.
fn check_budgets(
    call: &Call,
    labels: &std::collections::BTreeMap<String, String>,
) -> Result<(), Failure> {
    let budgets = call
        .server
        .store()
        .list("poddisruptionbudgets.policy", call.namespace())
        .objects;
    for budget in budgets {
        let value = budget.value();
        let wanted = selector::from_object(&value["spec"]["selector"]);
        let is_meant = wanted.is_some_and(|it| selector::matches_labels(&it, labels));
        let allowed = value["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
        if is_meant && allowed <= 0 {
            let cause = Cause {
                reason: "DisruptionBudget",
                message: format!(
                    "The disruption budget {} allows no disruption now",
                    budget.name
                ),
                field: String::new(),
            };
            let message = "Cannot evict pod as it would violate the pod's disruption budget.";
            return Err(Failure {
                causes: vec![cause],
                ..Failure::new(429, "TooManyRequests", message)
            });
        }
    }
    Ok(())
}

/// Asks admission webhooks about what is sent to a part of an object.
async fn admit_part(call: &Call, kind: (&str, &str, &str), object: &Value) -> Result<(), Failure> {
    let (part, name) = (call.target.subresource.as_str(), call.target.name.as_str());
    let place = (call.namespace().unwrap_or_default(), name);
    let mut operation = pipeline::operation(call, "CREATE", "CreateOptions", part, place)?;
    operation.object_kind = Some(kind);
    let warnings = call
        .server
        .admission()
        .validate(&operation, object, &Value::Null)
        .await?;
    warnings.into_iter().for_each(|it| call.warnings.add(it));
    Ok(())
}

async fn issue_token(call: &Call, sent: Body) -> Result<Response<Body>, Failure> {
    let request = body::part(call, sent, ("authentication.k8s.io", "v1"), "TokenRequest").await?;
    let account = call.existing(&call.target.name)?;
    let issued =
        call.server
            .authorizer()
            .tokens()
            .issue(&account.value(), &request, Timestamp::now());
    Ok(answer::value(StatusCode::CREATED, &call.accept, &issued))
}

fn succeeded() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}
