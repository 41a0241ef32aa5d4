//! Questions about access: who am I, may I, may they (`authentication.k8s.io`, `authorization.k8s.io`).

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::rbac::Rbac;
use super::tokens::{ISSUER, Tokens};
use super::{Attributes, MASTERS, User};
use crate::failure::Failure;

/// Answers a review: the question with its `status`. `resource` is the plural, `namespace` that of the path.
///
/// # Errors
///
/// 400 when the question lacks what it is about.
pub fn answer(
    resource: &str,
    namespace: &str,
    question: &Value,
    asker: &User,
    rbac: &Rbac,
    tokens: &Tokens,
    now: Timestamp,
) -> Result<Value, Failure> {
    let spec = &question["spec"];
    let status = match resource {
        "selfsubjectreviews" => json!({"userInfo": user_info(asker)}),
        "tokenreviews" => token(spec, tokens, now),
        "selfsubjectaccessreviews" => decision(rbac, asker, &attributes(spec, "")?),
        "subjectaccessreviews" => decision(rbac, &subject(spec), &attributes(spec, "")?),
        "localsubjectaccessreviews" => {
            decision(rbac, &subject(spec), &attributes(spec, namespace)?)
        }
        "selfsubjectrulesreviews" => {
            let namespace = spec["namespace"].as_str().unwrap_or_default();
            rules(rbac, asker, namespace)
        }
        other => return Err(Failure::bad_request(format!("{other} is no review"))),
    };
    let mut answer = question.clone();
    answer["status"] = status;
    Ok(answer)
}

/// Returns a user as reviews write it (`UserInfo`).
#[must_use]
pub fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn token(spec: &Value, tokens: &Tokens, now: Timestamp) -> Value {
    let token = spec["token"].as_str().unwrap_or_default();
    let Some(claims) = tokens.check(token, now) else {
        return json!({"authenticated": false, "error": "the token is not valid or has expired"});
    };
    let wanted = spec["audiences"].as_array().filter(|it| !it.is_empty());
    let wanted: Vec<String> = wanted.map_or_else(|| vec![ISSUER.to_owned()], |it| texts(it));
    let common: Vec<_> = claims
        .audiences
        .iter()
        .filter(|it| wanted.contains(it))
        .collect();
    if common.is_empty() {
        return json!({"authenticated": false, "error": "the token is for another audience"});
    }
    json!({"authenticated": true, "user": user_info(&claims.user()), "audiences": common})
}

fn texts(list: &[Value]) -> Vec<String> {
    list.iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn subject(spec: &Value) -> User {
    let text = |name: &str| spec[name].as_str().unwrap_or_default().to_owned();
    let groups = spec["groups"]
        .as_array()
        .map(|it| texts(it))
        .unwrap_or_default();
    User {
        name: text("user"),
        uid: text("uid"),
        groups,
        ..User::default()
    }
}

fn attributes(spec: &Value, namespace: &str) -> Result<Attributes, Failure> {
    let text = |from: &Value, name: &str| from[name].as_str().unwrap_or_default().to_owned();
    let resource = &spec["resourceAttributes"];
    let path = &spec["nonResourceAttributes"];
    if resource.is_object() {
        let named = text(resource, "namespace");
        if !namespace.is_empty() && named != namespace {
            return Err(Failure::bad_request(format!(
                "spec.resourceAttributes.namespace: must be {namespace}, the namespace of the request"
            )));
        }
        return Ok(Attributes {
            verb: text(resource, "verb"),
            group: text(resource, "group"),
            version: text(resource, "version"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            namespace: named,
            name: text(resource, "name"),
            path: String::new(),
        });
    }
    if path.is_object() {
        return Ok(Attributes {
            verb: text(path, "verb"),
            path: text(path, "path"),
            ..Attributes::default()
        });
    }
    Err(Failure::bad_request(
        "spec: exactly one of resourceAttributes and nonResourceAttributes must be given",
    ))
}

fn decision(rbac: &Rbac, user: &User, wanted: &Attributes) -> Value {
    let is_allowed = rbac.allows(user, wanted);
    let mut status = Map::new();
    status.insert("allowed".to_owned(), is_allowed.into());
    if user.is_in(MASTERS) {
        status.insert("reason".to_owned(), "member of system:masters".into());
    }
    Value::Object(status)
}

fn rules(rbac: &Rbac, user: &User, namespace: &str) -> Value {
    let all = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
    let all_paths = json!({"verbs": ["*"], "nonResourceURLs": ["*"]});
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    if user.is_in(MASTERS) {
        resources.push(all);
        paths.push(all_paths);
    }
    for rule in rbac.rules_of(user, namespace) {
        if rule.paths.is_empty() {
            resources.push(json!(rule));
        } else {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}));
        }
    }
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
