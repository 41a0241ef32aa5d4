//! What the node answers for its containers: logs, exec, attach, port-forward, on the paths of a kubelet's server.

use axum::body::Body;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri, header};
use serde_json::Value;

use super::ApiServer;
use crate::answer;
use crate::failure::{About, Failure};
use crate::proxy::LocalServices;
use crate::request::{Query, Target};

/// Name under which [`LocalServices`] has the node: namespace and name.
pub const NODE: (&str, &str) = ("kube-system", "kubelet");

/// Lists of containers in a pod's spec.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
/// Says which container is meant when a request does not.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Streams as clients name them, and as a kubelet does.
const STREAMS: [(&str, &str); 3] = [
    ("stdin", "input"),
    ("stdout", "output"),
    ("stderr", "error"),
];

/// Whether the node answers: it has the containers.
pub(super) fn is_its_matter(target: &Target) -> bool {
    target.group.is_empty()
        && target.resource == "pods"
        && matches!(
            target.subresource.as_str(),
            "log" | "exec" | "attach" | "portforward"
        )
}

/// Hands a request on to the node. Upgrades go through it.
pub(super) async fn answer(
    server: &ApiServer,
    target: &Target,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let found = server.store().get("pods", &target.namespace, &target.name);
    let missing = || {
        let name = target.name.clone();
        Failure::not_found(About {
            kind: "pods".to_owned(),
            name,
            ..About::default()
        })
    };
    let pod = found.ok_or_else(missing)?.value();
    if pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
        return unassigned(target);
    }
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    let path = path(target, &pod, &query)?;
    let raw = request.uri().query().map(rename).unwrap_or_default();
    let service = node(server.services(), target)?;
    Ok(service(redirect(request, &format!("{path}?{raw}"))?).await)
}

fn unassigned(target: &Target) -> Result<Response<Body>, Failure> {
    if target.subresource == "log" {
        return Ok(answer::plain(StatusCode::OK, ""));
    }
    let name = &target.name;
    Err(Failure::bad_request(format!(
        "pod {name} does not have a host assigned"
    )))
}

fn node(services: &LocalServices, target: &Target) -> Result<crate::LocalService, Failure> {
    services.get(NODE.0, NODE.1).ok_or_else(|| {
        let name = &target.name;
        let message =
            format!("no node of this server answers for the containers of pod \"{name}\"");
        Failure::new(503, "ServiceUnavailable", message)
    })
}

/// Returns the path at the node.
fn path(target: &Target, pod: &Value, query: &Query) -> Result<String, Failure> {
    let (namespace, name) = (&target.namespace, &target.name);
    let verb = match target.subresource.as_str() {
        "portforward" => return Ok(format!("/portForward/{namespace}/{name}")),
        "log" => "containerLogs",
        other => other,
    };
    let container = container(pod, name, query.get("container"))?;
    Ok(format!("/{verb}/{namespace}/{name}/{container}"))
}

/// Returns the container that is meant.
fn container<'p>(pod: &'p Value, name: &str, wanted: Option<&str>) -> Result<&'p str, Failure> {
    let of = |list: &str| -> Vec<&'p str> {
        let all = pod["spec"][list].as_array().into_iter().flatten();
        all.filter_map(|it| it["name"].as_str()).collect()
    };
    let all: Vec<_> = CONTAINERS.into_iter().flat_map(of).collect();
    let wanted = wanted.or_else(|| pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str());
    if let Some(wanted) = wanted {
        let found = all.iter().find(|it| **it == wanted).copied();
        return found.ok_or_else(|| {
            Failure::bad_request(format!("container {wanted} is not valid for pod {name}"))
        });
    }
    match of("containers").as_slice() {
        [one] => Ok(one),
        many => Err(Failure::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            many.join(" ")
        ))),
    }
}

/// Names streams as a kubelet does, in a query that stays encoded.
fn rename(query: &str) -> String {
    let renamed = query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let stream = STREAMS.iter().find(|(client, _)| *client == name);
        match stream {
            Some((_, node)) if matches!(value, "true" | "1") => format!("{node}=1"),
            Some((_, node)) => format!("{node}=0"),
            None => pair.to_owned(),
        }
    });
    renamed.collect::<Vec<_>>().join("&")
}

fn redirect(mut request: Request<Body>, path: &str) -> Result<Request<Body>, Failure> {
    let path: PathAndQuery = path
        .trim_end_matches('?')
        .parse()
        .map_err(|error| Failure::bad_request(format!("the query cannot be handed on: {error}")))?;
    *request.uri_mut() = Uri::from(path);
    request.headers_mut().remove(header::AUTHORIZATION);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path_of(path: &str, query: &str, pod: &Value) -> Result<String, Failure> {
        let target = Target::parse(path).unwrap().unwrap();
        super::path(&target, pod, &Query::parse(query).unwrap())
    }

    #[test]
    fn paths_are_those_of_a_kubelet() {
        let pod = json!({"spec": {"containers": [{"name": "main"}], "initContainers": [{"name": "init"}]}});
        let base = "/api/v1/namespaces/default/pods/web";
        let check = |part: &str, query: &str, expected: &str| {
            assert_eq!(
                path_of(&format!("{base}/{part}"), query, &pod).unwrap(),
                expected
            );
        };
        check("log", "", "/containerLogs/default/web/main");
        check("log", "container=init", "/containerLogs/default/web/init");
        check("exec", "command=ls", "/exec/default/web/main");
        check("portforward", "ports=80", "/portForward/default/web");
    }

    #[test]
    fn the_container_is_named_where_there_are_several() {
        let mut pod =
            json!({"metadata": {}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let path = "/api/v1/namespaces/default/pods/web/log";
        let message = path_of(path, "", &pod).unwrap_err().message;
        assert_eq!(
            message,
            "a container name must be specified for pod web, choose one of: [a b]"
        );
        let message = path_of(path, "container=c", &pod).unwrap_err().message;
        assert_eq!(message, "container c is not valid for pod web");
        pod["metadata"]["annotations"] = json!({DEFAULT_CONTAINER: "b"});
        assert_eq!(
            path_of(path, "", &pod).unwrap(),
            "/containerLogs/default/web/b"
        );
    }

    #[test]
    fn streams_have_a_kubelets_names() {
        assert_eq!(
            rename("command=sh&command=-c&stdin=true&stdout=1&stderr=false&tty=true"),
            "command=sh&command=-c&input=1&output=1&error=0&tty=true"
        );
    }
}
