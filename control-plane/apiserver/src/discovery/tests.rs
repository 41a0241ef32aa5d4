use serde_json::{Value, json};

use super::{ApiService, answer};
use crate::catalog::{Catalog, built_in};

const KUBECTL: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                       application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

fn subresources() -> ApiService {
    let list = json!({"kind": "APIResourceList", "groupVersion": "subresources.kubevirt.io/v1", "resources": [
        {"name": "virtualmachines/start", "namespaced": true, "kind": "VirtualMachine", "verbs": ["update"]},
        {"name": "virtualmachines/stop", "namespaced": true, "kind": "VirtualMachine", "verbs": ["update"]},
        {"name": "version", "namespaced": false, "kind": "Version", "verbs": ["get"]},
    ]});
    ApiService {
        group: "subresources.kubevirt.io".to_owned(),
        version: "v1".to_owned(),
        resources: Some(list),
    }
}

fn get(path: &str, accept: &str) -> (&'static str, Value) {
    answer(&built_in(), &[subresources()], path, accept).unwrap()
}

fn found<'a>(list: &'a Value, field: &str, name: &str) -> &'a Value {
    let mut items = list.as_array().unwrap().iter();
    items.find(|it| it[field] == name).unwrap()
}

#[test]
fn the_plain_form_lists_groups_versions_and_resources() {
    assert_eq!(get("/api", "application/json").1["versions"], json!(["v1"]));
    let (media, groups) = get("/apis", "");
    assert_eq!(
        (media, &groups["kind"]),
        ("application/json", &json!("APIGroupList"))
    );
    assert_eq!(
        *found(&groups["groups"], "name", "apps"),
        json!({"name": "apps", "preferredVersion": {"groupVersion": "apps/v1", "version": "v1"},
            "versions": [{"groupVersion": "apps/v1", "version": "v1"}]})
    );
    found(&groups["groups"], "name", "subresources.kubevirt.io");
    assert_eq!(get("/apis/apps", "*/*").1["kind"], "APIGroup");
    let core = get("/api/v1", "application/json").1;
    assert_eq!(core["groupVersion"], "v1");
    let pods = found(&core["resources"], "name", "pods");
    assert_eq!(pods["shortNames"], json!(["po"]));
    assert_eq!(pods["categories"], json!(["all"]));
    let eviction = found(&core["resources"], "name", "pods/eviction");
    assert_eq!(
        (&eviction["group"], &eviction["kind"]),
        (&json!("policy"), &json!("Eviction"))
    );
    found(&core["resources"], "name", "pods/status");
    let apps = get("/apis/apps/v1", "").1;
    assert_eq!(
        found(&apps["resources"], "name", "deployments/scale")["group"],
        "autoscaling"
    );
    let reviews = get("/apis/authentication.k8s.io/v1", "").1;
    assert_eq!(
        found(&reviews["resources"], "name", "tokenreviews")["verbs"],
        json!(["create"])
    );
}

#[test]
fn the_aggregated_form_is_answered_with_its_exact_content_type() {
    let (media, core) = get("/api", KUBECTL);
    assert_eq!(
        media,
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    assert_eq!(core["apiVersion"], "apidiscovery.k8s.io/v2");
    assert_eq!(core["items"].as_array().unwrap().len(), 1);
    let resources = &core["items"][0]["versions"][0]["resources"];
    let pods = found(resources, "resource", "pods");
    assert_eq!(
        pods["responseKind"],
        json!({"group": "", "version": "v1", "kind": "Pod"})
    );
    assert_eq!(
        (&pods["scope"], &pods["singularResource"]),
        (&json!("Namespaced"), &json!("pod"))
    );
    let eviction = found(&pods["subresources"], "subresource", "eviction");
    assert_eq!(eviction["responseKind"]["group"], "policy");
    let old = "application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io,application/json";
    let (media, groups) = get("/apis", old);
    assert_eq!(
        media,
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
    );
    assert_eq!(groups["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    assert_eq!(
        get("/apis", &format!("application/json,{KUBECTL}")).0,
        "application/json"
    );
}

#[test]
fn other_servers_are_part_of_the_aggregated_form() {
    let mut services = vec![subresources()];
    services[0].version = "v1alpha3".to_owned();
    services[0].resources = None;
    services.push(subresources());
    let (_, groups) = answer(&built_in(), &services, "/apis", KUBECTL).unwrap();
    let items = groups["items"].as_array().unwrap();
    let group = items
        .iter()
        .find(|it| it["metadata"]["name"] == "subresources.kubevirt.io")
        .unwrap();
    let versions = &group["versions"];
    assert_eq!(
        (&versions[0]["version"], &versions[0]["freshness"]),
        (&json!("v1"), &json!("Current"))
    );
    assert_eq!(
        (&versions[1]["version"], &versions[1]["freshness"]),
        (&json!("v1alpha3"), &json!("Stale"))
    );
    let machines = found(&versions[0]["resources"], "resource", "virtualmachines");
    let start = found(&machines["subresources"], "subresource", "start");
    assert_eq!(
        start["responseKind"],
        json!({"group": "subresources.kubevirt.io", "version": "v1", "kind": "VirtualMachine"})
    );
}

#[test]
fn what_there_is_not_is_not_answered() {
    for path in [
        "/apis/none",
        "/apis/none/v1",
        "/apis/apps/v2",
        "/api/v2",
        "/",
        "/apis//v1",
        "/apis/a/b/c",
        "/foo",
    ] {
        assert_eq!(answer(&built_in(), &[], path, ""), None, "{path}");
    }
    assert!(answer(&Catalog::default(), &[], "/apis/", "").is_some());
}

#[test]
fn versions_that_are_not_served_are_not_listed() {
    let mut catalog = Catalog::default();
    let resource = built_in()
        .get("apps", "deployments")
        .unwrap()
        .as_ref()
        .clone();
    let mut versions = vec![resource.versions[0].clone(), resource.versions[0].clone()];
    versions[1].name = "v1beta1".to_owned();
    versions[1].is_served = false;
    let resource = crate::catalog::Resource {
        versions,
        ..resource
    };
    catalog.resources.insert(
        ("apps".to_owned(), "deployments".to_owned()),
        resource.into(),
    );
    assert_eq!(answer(&catalog, &[], "/apis/apps/v1beta1", ""), None);
    assert!(answer(&catalog, &[], "/apis/apps/v1", "").is_some());
}
