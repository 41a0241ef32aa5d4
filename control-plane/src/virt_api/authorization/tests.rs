use http::Method;
use serde_json::Value;

use super::{attributes, unescape};

#[track_caller]
fn check(path: &str, resource: &str, name: &str, subresource: &str) {
    let path = format!("/apis/subresources.kubevirt.io/v1/namespaces/ns/{path}");
    let found = attributes(&Method::GET, &path).unwrap().unwrap();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    let found = (text("resource"), text("name"), text("subresource"));
    assert_eq!(
        found,
        (resource.to_owned(), name.to_owned(), subresource.to_owned())
    );
}

#[test]
fn ports_and_protocols_are_no_part_of_what_is_reviewed() {
    let vmis = "virtualmachineinstances";
    check(
        "virtualmachineinstances/a/portforward/22",
        vmis,
        "a",
        "portforward",
    );
    check(
        "virtualmachineinstances/a/portforward/53/udp",
        vmis,
        "a",
        "portforward",
    );
    check(
        "virtualmachines/a/portforward/22",
        "virtualmachines",
        "a",
        "portforward",
    );
}

#[test]
fn subresources_of_several_parts_are_reviewed_whole() {
    let vmis = "virtualmachineinstances";
    check(
        "virtualmachineinstances/a/vnc/screenshot",
        vmis,
        "a",
        "vnc/screenshot",
    );
    check(
        "virtualmachineinstances/a/sev/fetchcertchain",
        vmis,
        "a",
        "sev/fetchcertchain",
    );
    check("expand-vm-spec", "expand-vm-spec", "", "");
}

#[test]
fn verbs_follow_methods() {
    let path = "/apis/subresources.kubevirt.io/v1/namespaces/ns/virtualmachines/a/start";
    let verb = |method| attributes(&method, path).unwrap().unwrap()["verb"].clone();
    assert_eq!(verb(Method::GET), "get");
    assert_eq!(verb(Method::PUT), "update");
    assert_eq!(verb(Method::DELETE), "delete");
    assert!(attributes(&Method::TRACE, path).is_err());
}

#[test]
fn paths_that_nobody_knows_are_not_let_through() {
    for path in [
        "/apis/subresources.kubevirt.io/v2/namespaces/ns/virtualmachines/a/start",
        "/apis/subresources.kubevirt.io/v1/namespaces/ns/pods/a/exec",
        "/apis/subresources.kubevirt.io/v1/namespaces/ns/virtualmachines",
        "/apis/other.io/v1/namespaces",
    ] {
        assert!(attributes(&Method::GET, path).is_err(), "{path}");
    }
    let open = attributes(&Method::GET, "/apis/subresources.kubevirt.io/v1/version");
    assert_eq!(open, Ok(None::<Value>));
}

#[test]
fn percent_signs_that_encode_nothing_stay() {
    assert_eq!(unescape("a%2Fb"), "a/b");
    assert_eq!(unescape("100%"), "100%");
    assert_eq!(unescape("%zz%2"), "%zz%2");
}
