use jiff::Timestamp;
use serde_json::{Value, json};

use super::rbac::Rbac;
use super::tokens::Tokens;
use super::{Attributes, User, reviews, user_of_certificate};

fn wanted(verb: &str, resource: &str, namespace: &str) -> Attributes {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        verb: verb.to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        ..Attributes::default()
    }
}

fn roles() -> Vec<Value> {
    vec![
        json!({"metadata": {"name": "reader"}, "rules": [
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]},
            {"verbs": ["get"], "nonResourceURLs": ["/metrics", "/debug/*"]},
        ]}),
        json!({"metadata": {"name": "one", "namespace": "a"}, "rules": [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale", "secrets"], "resourceNames": ["s"]},
        ]}),
        json!({"metadata": {"name": "broken"}, "rules": "none"}),
    ]
}

fn rbac() -> Rbac {
    let bindings = [
        json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "reader"},
            "subjects": [{"kind": "Group", "name": "staff"}]}),
        json!({"metadata": {"name": "c", "namespace": "a"}, "roleRef": {"kind": "ClusterRole", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "robot"}]}),
        json!({"metadata": {"name": "d", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "one"},
            "subjects": [{"kind": "User", "name": "ann"}]}),
        json!({"metadata": {"name": "e", "namespace": "b"}, "roleRef": {"kind": "Role", "name": "one"},
            "subjects": [{"kind": "User", "name": "ann"}]}),
        json!({"metadata": {"name": "f"}, "roleRef": {"kind": "ClusterRole", "name": "broken"},
            "subjects": [{"kind": "User", "name": "ann"}]}),
    ];
    let roles = roles();
    Rbac::new(
        &roles.iter().collect::<Vec<_>>(),
        &bindings.iter().collect::<Vec<_>>(),
    )
}

#[test]
fn a_cluster_binding_counts_everywhere_and_another_in_its_namespace() {
    let rbac = rbac();
    let staff = User::authenticated("bob", vec!["staff".to_owned()]);
    assert!(rbac.allows(&staff, &wanted("get", "pods", "x")));
    assert!(rbac.allows(&staff, &wanted("list", "pods", "")));
    assert!(rbac.allows(&staff, &wanted("get", "pods/log", "x")));
    assert!(!rbac.allows(&staff, &wanted("get", "pods/exec", "x")));
    assert!(!rbac.allows(&staff, &wanted("delete", "pods", "x")));
    let robot = User::service_account("a", "robot", "");
    assert!(rbac.allows(&robot, &wanted("get", "pods", "a")));
    assert!(!rbac.allows(&robot, &wanted("get", "pods", "b")));
    assert!(!rbac.allows(
        &User::service_account("b", "robot", ""),
        &wanted("get", "pods", "a")
    ));
}

#[test]
fn names_subresources_and_paths_are_told_apart() {
    let rbac = rbac();
    let ann = User::authenticated("ann", Vec::new());
    let named = |name: &str, resource: &str| Attributes {
        name: name.to_owned(),
        ..wanted("update", resource, "a")
    };
    assert!(rbac.allows(&ann, &named("s", "secrets")));
    assert!(!rbac.allows(&ann, &named("t", "secrets")));
    assert!(rbac.allows(&ann, &named("s", "deployments/scale")));
    assert!(!rbac.allows(&ann, &named("s", "deployments")));
    let in_b = Attributes {
        namespace: "b".to_owned(),
        ..named("s", "secrets")
    };
    assert!(
        !rbac.allows(&ann, &in_b),
        "the role is in another namespace"
    );
    let path = |path: &str| Attributes {
        verb: "get".to_owned(),
        path: path.to_owned(),
        ..Attributes::default()
    };
    let staff = User::authenticated("bob", vec!["staff".to_owned()]);
    assert!(rbac.allows(&staff, &path("/debug/x")));
    assert!(!rbac.allows(&staff, &path("/logs")));
    assert!(rbac.allows(&User::master("root"), &path("/logs")));
}

#[test]
fn a_token_stands_for_its_account_until_it_expires() {
    let tokens = Tokens::new(vec![7; 32]);
    let now = Timestamp::from_second(1_000_000).unwrap();
    let account = json!({"metadata": {"namespace": "a", "name": "robot", "uid": "u"}});
    let request = json!({"spec": {"expirationSeconds": 1200, "boundObjectRef": {"kind": "Pod", "name": "p", "uid": "pu"}}});
    let issued = tokens.issue(&account, &request, now);
    assert_eq!(
        issued["status"]["expirationTimestamp"],
        "1970-01-12T14:06:40Z"
    );
    let token = issued["status"]["token"].as_str().unwrap();
    let claims = tokens.check(token, now).unwrap();
    assert_eq!(claims.user().name, "system:serviceaccount:a:robot");
    assert_eq!(claims.pod, Some(("p".to_owned(), "pu".to_owned())));
    let later = Timestamp::from_second(1_001_200).unwrap();
    assert_eq!(tokens.check(token, later), None);
    assert_eq!(Tokens::new(vec![8; 32]).check(token, now), None);
    let (head, rest) = token.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    assert_eq!(tokens.check(&format!("{head}.e30.{signature}"), now), None);
    for nonsense in ["", ".", "..", "a.b.c", "a.b"] {
        assert_eq!(tokens.check(nonsense, now), None);
    }
}

#[test]
fn a_certificate_names_user_and_groups() {
    let mut parameters = rcgen::CertificateParams::default();
    let name = &mut parameters.distinguished_name;
    name.push(rcgen::DnType::CommonName, "admin");
    name.push(rcgen::DnType::OrganizationName, "system:masters");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let user = user_of_certificate(certificate.der()).unwrap();
    assert_eq!(user, User::master("admin"));
    assert!(user_of_certificate(b"\x30\x03abc").is_err());
    let nameless = rcgen::CertificateParams::default();
    let mut nameless = nameless;
    nameless.distinguished_name = rcgen::DistinguishedName::new();
    let nameless = nameless.self_signed(&key).unwrap();
    assert!(user_of_certificate(nameless.der()).is_err());
}

fn review(resource: &str, spec: &Value) -> Value {
    let question = json!({"apiVersion": "authorization.k8s.io/v1", "spec": spec});
    let asker = User::authenticated("bob", vec!["staff".to_owned()]);
    let tokens = Tokens::new(vec![7; 32]);
    reviews::answer(
        resource,
        "a",
        &question,
        &asker,
        &rbac(),
        &tokens,
        Timestamp::UNIX_EPOCH,
    )
    .unwrap()["status"]
        .clone()
}

#[test]
fn reviews_tell_who_may_what() {
    let pods = json!({"verb": "get", "resource": "pods", "namespace": "a"});
    let mine = review(
        "selfsubjectaccessreviews",
        &json!({"resourceAttributes": pods}),
    );
    assert_eq!(mine["allowed"], true);
    let theirs = json!({"user": "eve", "resourceAttributes": pods});
    assert_eq!(review("subjectaccessreviews", &theirs)["allowed"], false);
    assert_eq!(
        review("localsubjectaccessreviews", &theirs)["allowed"],
        false
    );
    let me = review("selfsubjectreviews", &json!({}));
    assert_eq!(me["userInfo"]["username"], "bob");
    let rules = review("selfsubjectrulesreviews", &json!({"namespace": "a"}));
    assert_eq!(rules["resourceRules"][0]["resources"][1], "pods/log");
    assert_eq!(
        rules["nonResourceRules"][0]["nonResourceURLs"][0],
        "/metrics"
    );
    let token = review("tokenreviews", &json!({"token": "x"}));
    assert_eq!(token["authenticated"], false);
}

#[test]
fn a_review_about_nothing_is_refused() {
    let tokens = Tokens::new(vec![7; 32]);
    let asker = User::anonymous();
    let ask = |resource: &str, spec: Value| {
        let question = json!({"spec": spec});
        reviews::answer(
            resource,
            "a",
            &question,
            &asker,
            &rbac(),
            &tokens,
            Timestamp::UNIX_EPOCH,
        )
    };
    assert_eq!(
        ask("selfsubjectaccessreviews", json!({})).unwrap_err().code,
        400
    );
    let elsewhere =
        json!({"resourceAttributes": {"namespace": "b", "verb": "get", "resource": "pods"}});
    assert_eq!(
        ask("localsubjectaccessreviews", elsewhere)
            .unwrap_err()
            .code,
        400
    );
}
