//! What the aggregated API offers: group, versions, resources, and the version of the program.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Refusal, json_response};
use super::objects::Kind;
use super::request::Desk;
use super::{GROUP, VERSIONS, instance, port_forward};

/// Subresources that are listed, by resource; `PUT` is `update`, all else `get`.
const UPDATES: [(&str, &[&str]); 2] = [
    (
        "virtualmachines",
        &[
            "start",
            "stop",
            "restart",
            "migrate",
            "addvolume",
            "removevolume",
            "memorydump",
            "removememorydump",
            "evacuate/cancel",
        ],
    ),
    (
        "virtualmachineinstances",
        &[
            "pause",
            "unpause",
            "freeze",
            "unfreeze",
            "reset",
            "softreboot",
            "addvolume",
            "removevolume",
            "evacuate/cancel",
            "backup",
            "redefine-checkpoint",
            "sev/setupsession",
            "sev/injectlaunchsecret",
        ],
    ),
];
const GETS: [(&str, &[&str]); 2] = [
    (
        "virtualmachines",
        &["expand-spec", "portforward", "objectgraph"],
    ),
    (
        "virtualmachineinstances",
        &[
            "console",
            "vnc",
            "vnc/screenshot",
            "usbredir",
            "vsock",
            "portforward",
            "guestosinfo",
            "userlist",
            "filesystemlist",
            "objectgraph",
            "sev/fetchcertchain",
            "sev/querylaunchmeasurement",
        ],
    ),
];

/// Returns all subresources: resource, path below an object, verb.
pub(super) fn subresources() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let flat = |verb: &'static str| {
        move |(resource, paths): (&'static str, &'static [&'static str])| {
            paths.iter().map(move |path| (resource, *path, verb))
        }
    };
    let gets = GETS.into_iter().flat_map(flat("get"));
    gets.chain(UPDATES.into_iter().flat_map(flat("update")))
}

/// Returns who answers which path below a version of the group.
pub(super) fn version_routes(version: &'static str) -> Vec<(&'static str, MethodRouter<Desk>)> {
    let list = move || async move { Json(resource_list(version)) };
    vec![
        ("", get(list)),
        ("/", get(list)),
        ("/version", get(program_version)),
        ("/healthz", get(health)),
        ("/guestfs", get(no_guestfs)),
        ("/start-cluster-profiler", get(no_profiler)),
        ("/stop-cluster-profiler", get(no_profiler)),
        ("/dump-cluster-profiler", get(no_profiler)),
    ]
}

/// Returns who answers which path outside of the group's versions.
pub(super) fn routes() -> Vec<(&'static str, MethodRouter<Desk>)> {
    vec![
        ("/apis", get(|| async { Json(group_list()) })),
        ("/apis/", get(|| async { Json(group_list()) })),
        (
            "/apis/subresources.kubevirt.io",
            get(|| async { Json(group()) }),
        ),
        (
            "/apis/subresources.kubevirt.io/",
            get(|| async { Json(group()) }),
        ),
        ("/healthz", get(health)),
        ("/openapi/v2", get(|| async { Json(openapi("2.0")) })),
        ("/openapi/v3", get(|| async { Json(json!({"paths": {}})) })),
        ("/metrics", get(metrics)),
    ]
}

fn group() -> Value {
    let version =
        |version| json!({"groupVersion": format!("{GROUP}/{version}"), "version": version});
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": GROUP,
        "versions": VERSIONS.map(version), "preferredVersion": version(VERSIONS[0]),
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
    })
}

fn group_list() -> Value {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]})
}

fn resource_list(version: &str) -> Value {
    let resource = |name: String, verb: &str| json!({"name": name, "singularName": "", "namespaced": true, "kind": "", "verbs": [verb]});
    let mut resources = vec![resource("expand-vm-spec".to_owned(), "update")];
    resources.extend(subresources().map(|(of, path, verb)| resource(format!("{of}/{path}"), verb)));
    json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{version}"), "resources": resources,
    })
}

fn openapi(version: &str) -> Value {
    let info = json!({"title": "KubeVirt API", "version": api::version::TEXT});
    json!({"swagger": version, "info": info, "paths": {}})
}

/// The version of this program in KubeVirt's form, which `virtctl version` shows.
async fn program_version() -> Json<Value> {
    Json(api::version::info())
}

/// Whether the API server is reached.
async fn health(State(desk): State<Desk>) -> Response {
    match desk.objects.list(Kind::KubeVirt, "", "limit=1").await {
        Ok(_) => json_response(
            StatusCode::OK,
            &json!({"apiserver": {"connectivity": "ok"}}),
        ),
        Err(refusal) => {
            let answer =
                json!({"apiserver": {"connectivity": "failed", "error": refusal.message()}});
            json_response(StatusCode::INTERNAL_SERVER_ERROR, &answer)
        }
    }
}

/// Plain text: of an answer in JSON, clients would show but its status.
async fn no_guestfs() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_IMPLEMENTED,
        "there is no image with libguestfs tools: name one with `virtctl guestfs --image`",
    )
}

async fn no_profiler() -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "the components have no profiler: use the tools of the node",
    )
}

async fn metrics() -> String {
    format!(
        "# HELP kubevirt_console_active_connections Consoles and displays that are open.\n\
         # TYPE kubevirt_console_active_connections gauge\n\
         kubevirt_console_active_connections {}\n\
         # HELP kubevirt_portforward_active_tunnels Ports that are forwarded.\n\
         # TYPE kubevirt_portforward_active_tunnels gauge\n\
         kubevirt_portforward_active_tunnels {}\n",
        instance::open_streams(),
        port_forward::open_tunnels()
    )
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http::header;

    use super::super::resources;
    use super::{no_guestfs, subresources};

    /// Go's clients show the words of an unexpected answer only if they are text.
    #[tokio::test]
    async fn why_there_is_no_guestfs_is_told_as_text() {
        let response = no_guestfs().await.into_response();
        assert_eq!(response.status(), 501);
        let content = &response.headers()[header::CONTENT_TYPE];
        assert!(content.to_str().unwrap().starts_with("text/"));
    }

    #[test]
    fn every_listed_subresource_is_served_and_the_other_way_round() {
        let mut listed: Vec<_> = subresources().map(|(of, path, _)| (of, path)).collect();
        let mut served: Vec<_> = resources()
            .into_iter()
            .flat_map(|(of, routes)| routes.into_iter().map(move |(path, _)| (of, path)))
            .map(|(of, path)| (of, path.split("/{").next().unwrap()))
            .collect();
        listed.sort_unstable();
        served.sort_unstable();
        served.dedup();
        assert_eq!(listed, served);
    }
}
