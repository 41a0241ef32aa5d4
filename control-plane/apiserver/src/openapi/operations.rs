//! Paths of a document and what can be done there.

use serde_json::{Map, Value, json};

use super::Kind;
use super::components::group_version_kind;
use crate::catalog::DEFINITIONS;

/// Adds the paths of a kind, whose schema has a name.
pub(super) fn add(kind: &Kind<'_>, name: &str, paths: &mut Map<String, Value>) {
    let (resource, version) = kind;
    let root = super::place(&resource.group, &version.name);
    let all = format!("/{root}/{}", resource.plural);
    let collection = if resource.is_namespaced {
        format!("/{root}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        all.clone()
    };
    let operations = Operations { kind, name };
    if !resource.is_stored() {
        let parameters = parameters(resource.is_namespaced, false);
        let create = operations.with_body("post", &["application/json"]);
        paths.insert(
            collection,
            json!({"post": create, "parameters": parameters}),
        );
        return;
    }
    if resource.is_namespaced {
        paths.insert(all, json!({"get": operations.without_body("list")}));
    }
    let one = format!("{collection}/{{name}}");
    paths.insert(
        collection,
        json!({
            "get": operations.without_body("list"),
            "post": operations.with_body("post", &["application/json"]),
            "delete": operations.without_body("deletecollection"),
            "parameters": parameters(resource.is_namespaced, false),
        }),
    );
    let below = [
        ("status", version.has_status),
        ("scale", version.scale.is_some()),
    ];
    for (name, _) in below.into_iter().filter(|(_, is_there)| *is_there) {
        paths.insert(format!("{one}/{name}"), operations.of_one(false));
    }
    paths.insert(one, operations.of_one(true));
}

struct Operations<'a> {
    kind: &'a Kind<'a>,
    name: &'a str,
}

impl Operations<'_> {
    fn of_one(&self, has_delete: bool) -> Value {
        let mut all = json!({
            "get": self.without_body("get"),
            "put": self.with_body("put", &["application/json"]),
            "patch": self.with_body("patch", self.patches()),
            "parameters": parameters(self.kind.0.is_namespaced, true),
        });
        if has_delete {
            all["delete"] = self.without_body("delete");
        }
        all
    }

    /// Kinds of patches; custom kinds have no strategic ones.
    fn patches(&self) -> &'static [&'static str] {
        if self.kind.0.is_custom {
            &[
                "application/apply-patch+yaml",
                "application/json-patch+json",
                "application/merge-patch+json",
            ]
        } else {
            &[
                "application/apply-patch+yaml",
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
            ]
        }
    }

    fn without_body(&self, action: &str) -> Value {
        json!({
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": group_version_kind(self.kind),
            "responses": self.responses(action == "get"),
        })
    }

    fn with_body(&self, action: &str, media: &[&str]) -> Value {
        let mut query = vec!["dryRun", "fieldManager", "fieldValidation"];
        if action == "patch" {
            query.push("force");
        }
        let query = query.into_iter().map(|name| {
            let kind = if name == "force" { "boolean" } else { "string" };
            json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
        });
        let schema = if action == "patch" {
            json!({"type": "object"})
        } else {
            self.reference()
        };
        let media = media
            .iter()
            .map(|it| ((*it).to_owned(), json!({"schema": schema})));
        let mut operation = self.without_body(action);
        operation["parameters"] = query.collect();
        operation["requestBody"] =
            json!({"required": true, "content": media.collect::<Map<_, _>>()});
        operation["responses"] = self.responses(true);
        operation
    }

    fn responses(&self, has_object: bool) -> Value {
        if has_object {
            let content = json!({"application/json": {"schema": self.reference()}});
            json!({"200": {"description": "OK", "content": content}})
        } else {
            json!({"200": {"description": "OK"}})
        }
    }

    fn reference(&self) -> Value {
        json!({"$ref": format!("#{DEFINITIONS}/{}", self.name)})
    }
}

fn parameters(is_namespaced: bool, has_name: bool) -> Value {
    let parameter = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}});
    let namespace = is_namespaced.then(|| parameter("namespace"));
    let name = has_name.then(|| parameter("name"));
    name.into_iter().chain(namespace).collect()
}
