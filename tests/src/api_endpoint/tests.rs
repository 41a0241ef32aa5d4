use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ApiEndpoint, Resource, Which};

/// Sends one request and returns the status code and a reader of the body, as sent.
fn request(endpoint: &ApiEndpoint, head: &str, body: &str) -> (u16, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(endpoint.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    write!(
        stream,
        "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json-patch+json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let code = line.split(' ').nth(1).unwrap().parse().unwrap();
    while line.trim() != "" {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    (code, reader)
}

fn json_of(mut reader: BufReader<TcpStream>) -> Value {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

const VMIS: &str = "/apis/kubevirt.io/v1/virtualmachineinstances";
const VM: &str = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances/vm";

fn with_vm(node: &str) -> ApiEndpoint {
    let endpoint = ApiEndpoint::start().unwrap();
    let vm = json!({"metadata": {"name": "vm", "namespace": "default", "labels": {"n": node}}, "status": {"phase": "A"}});
    endpoint.put(&Resource::vmis(), vm);
    endpoint
}

#[test]
fn lists_select_by_label() {
    let endpoint = with_vm("here");
    for (selector, count) in [("n%3Dhere", 1), ("n%3Dthere", 0), ("n", 1)] {
        let (code, body) = request(
            &endpoint,
            &format!("GET {VMIS}?labelSelector={selector}"),
            "",
        );
        assert_eq!(code, 200);
        assert_eq!(
            json_of(body)["items"].as_array().unwrap().len(),
            count,
            "{selector}"
        );
    }
}

#[test]
fn a_patch_whose_test_fails_changes_nothing() {
    let endpoint = with_vm("here");
    let patch = |old: &str| {
        json!([{"op": "test", "path": "/status/phase", "value": old}, {"op": "replace", "path": "/status/phase", "value": "B"}]).to_string()
    };
    assert_eq!(
        request(&endpoint, &format!("PATCH {VM}"), &patch("Z")).0,
        422
    );
    let key = Resource::vmis().key("default", "vm");
    assert_eq!(endpoint.get(&key).unwrap()["status"]["phase"], "A");
    assert_eq!(
        request(&endpoint, &format!("PATCH {VM}"), &patch("A")).0,
        200
    );
    assert_eq!(endpoint.get(&key).unwrap()["status"]["phase"], "B");
}

#[test]
fn a_watch_follows_an_object_into_and_out_of_a_selection() {
    let endpoint = with_vm("here");
    let head = format!("GET {VMIS}?watch=true&resourceVersion=1&labelSelector=n%3Dthere");
    let (code, body) = request(&endpoint, &head, "");
    assert_eq!(code, 200);
    let key = Resource::vmis().key("default", "vm");
    for node in ["there", "there", "here"] {
        let count = endpoint.requests().0;
        endpoint.change(&key, |vm| {
            vm["metadata"]["labels"]["n"] = json!(node);
            vm["spec"] = json!(format!(
                "{node}{count}{}",
                vm["metadata"]["resourceVersion"]
            ));
        });
    }
    let events = body.lines().map_while(Result::ok);
    let kinds: Vec<String> = events
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .filter_map(|event| Some(event.get("type")?.as_str()?.to_owned()))
        .take(3)
        .collect();
    assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED"]);
}

#[test]
fn faults_are_answered_and_then_over() {
    let endpoint = with_vm("here");
    endpoint.answer(500, Which::Writes, 1);
    assert_eq!(request(&endpoint, &format!("GET {VM}"), "").0, 200);
    assert_eq!(request(&endpoint, &format!("PATCH {VM}"), "[]").0, 500);
    assert_eq!(request(&endpoint, &format!("PATCH {VM}"), "[]").0, 200);
    endpoint.go_away();
    assert!(TcpStream::connect(endpoint.address).is_err());
    endpoint.come_back().unwrap();
    assert_eq!(request(&endpoint, &format!("GET {VM}"), "").0, 200);
}

#[test]
fn a_watch_from_a_forgotten_version_is_told_so() {
    let endpoint = with_vm("here");
    endpoint.compact();
    let (_, body) = request(
        &endpoint,
        &format!("GET {VMIS}?watch=true&resourceVersion=0&x=y"),
        "",
    );
    drop(body);
    endpoint.put(&Resource::nodes(), json!({"metadata": {"name": "n"}}));
    endpoint.compact();
    let (_, body) = request(
        &endpoint,
        &format!("GET {VMIS}?watch=true&resourceVersion=1"),
        "",
    );
    let line = body
        .lines()
        .map_while(Result::ok)
        .find(|line| line.starts_with('{'));
    let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
}

#[test]
fn an_object_with_finalizers_is_marked_and_goes_with_the_last() {
    let endpoint = with_vm("here");
    let key = Resource::vmis().key("default", "vm");
    endpoint.change(&key, |vm| vm["metadata"]["finalizers"] = json!(["f"]));
    assert_eq!(request(&endpoint, &format!("DELETE {VM}"), "").0, 200);
    assert!(endpoint.get(&key).unwrap()["metadata"]["deletionTimestamp"].is_string());
    endpoint.change(&key, |vm| vm["metadata"]["finalizers"] = json!([]));
    assert_eq!(endpoint.get(&key), None);
}
