use std::sync::Arc;

use futures::FutureExt as _;
use http::Response;

use super::*;
use crate::proxy::LocalService;
use crate::server::NODE;

/// A service of this process that answers with what a function makes of a request's path and body.
fn service(answer: fn(&str, &Value) -> Value) -> LocalService {
    Arc::new(move |request: Request<Body>| {
        async move {
            let path = request.uri().to_string();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            Response::new(Body::from(answer(&path, &body).to_string()))
        }
        .boxed()
    })
}

#[tokio::test]
async fn webhooks_change_and_refuse_what_is_written() {
    let fixture = Fixture::new().await;
    let hook = service(|_, review| {
        let request = &review["request"];
        let mut response = json!({"uid": request["uid"], "allowed": true});
        if request["object"]["spec"]["colour"] == "black" {
            response = json!({"uid": request["uid"], "allowed": false, "status": {"code": 422, "message": "no black"}});
        } else if request["operation"] == "CREATE" {
            // [{"op": "add", "path": "/spec/colour", "value": "blue"}, {"op": "add", "path": "/spec/odd", "value": 1}]
            let patch = "W3sib3AiOiJhZGQiLCJwYXRoIjoiL3NwZWMvY29sb3VyIiwidmFsdWUiOiJibHVlIn0seyJvcCI6ImFkZCIsInBhdGgiOiIvc3BlYy9vZGQiLCJ2YWx1ZSI6MX1d";
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(patch);
            response["warnings"] = json!(["it is blue now"]);
        }
        json!({"response": response})
    });
    fixture.server.services().insert("default", "painter", hook);
    let hooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let webhook = json!({
        "name": "paint.example.org", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": "default", "name": "painter", "path": "/paint"}},
        "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": ["example.org"], "apiVersions": ["*"], "resources": ["widgets"]}],
    });
    let body = json!({"metadata": {"name": "paint"}, "webhooks": [webhook]});
    fixture.create(hooks, &body).await;
    let answer = fixture.post(WIDGETS, &widget("a")).await;
    assert!(
        answer
            .warnings
            .contains(&r#"299 - "it is blue now""#.to_owned()),
        "{answer:?}"
    );
    assert_eq!(
        answer.ok()["spec"],
        json!({"replicas": 1, "colour": "blue"})
    );
    let refused = fixture
        .merge(
            &format!("{WIDGETS}/a"),
            &json!({"spec": {"colour": "black"}}),
        )
        .await;
    assert!(refused.text.contains("no black"), "{}", refused.text);
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn the_node_answers_for_containers() {
    let fixture = Fixture::new().await;
    fixture.create(PODS, &pod("a")).await;
    let log = format!("{PODS}/a/log?tailLines=5");
    let nothing = fixture.get(&log).await;
    assert_eq!(
        (nothing.status, nothing.text.as_str()),
        (StatusCode::OK, "")
    );
    fixture
        .get(&format!("{PODS}/a/exec?command=ls"))
        .await
        .failed(400, "BadRequest");
    fixture
        .create(
            &format!("{PODS}/a/binding"),
            &json!({"target": {"name": "n"}}),
        )
        .await;
    fixture.get(&log).await.failed(503, "ServiceUnavailable");
    fixture
        .server
        .services()
        .insert(NODE.0, NODE.1, service(|path, _| json!(path)));
    assert_eq!(
        fixture.get(&log).await.ok(),
        "/containerLogs/default/a/main?tailLines=5"
    );
    let exec = format!("{PODS}/a/exec?command=ls&command=-l&stdout=true");
    assert_eq!(
        fixture.get(&exec).await.ok(),
        "/exec/default/a/main?command=ls&command=-l&output=1"
    );
    fixture
        .get(&format!("{PODS}/a/log?container=none"))
        .await
        .failed(400, "BadRequest");
    fixture
        .get(&format!("{PODS}/none/log"))
        .await
        .failed(404, "NotFound");
}

#[tokio::test]
async fn replicas_are_scaled_apart_from_the_rest() {
    let fixture = Fixture::new().await;
    fixture.create(WIDGETS, &widget("a")).await;
    let path = format!("{WIDGETS}/a/scale");
    let scale = fixture.get(&path).await.ok();
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"]),
        (&json!("Scale"), &json!(1))
    );
    let patched = fixture
        .merge(&path, &json!({"spec": {"replicas": 4}}))
        .await
        .ok();
    assert_eq!(patched["spec"]["replicas"], 4);
    let mut put = scale.clone();
    put["spec"]["replicas"] = json!(6);
    fixture.put(&path, &put).await.failed(409, "Conflict");
    put["metadata"]["resourceVersion"] = patched["metadata"]["resourceVersion"].clone();
    fixture.put(&path, &put).await.ok();
    put["spec"]["replicas"] = json!(-1);
    fixture.put(&path, &put).await.failed(422, "Invalid");
    let widget = fixture.get(&format!("{WIDGETS}/a")).await.ok();
    assert_eq!(
        (
            &widget["spec"]["replicas"],
            &widget["metadata"]["generation"]
        ),
        (&json!(6), &json!(3))
    );
    fixture
        .delete(&path, &Value::Null)
        .await
        .failed(405, "MethodNotAllowed");
}

#[tokio::test]
async fn a_pod_is_bound_to_one_node_once() {
    let fixture = Fixture::new().await;
    fixture.create(PODS, &pod("a")).await;
    let path = format!("{PODS}/a/binding");
    let to = |node: &str| json!({"target": {"kind": "Node", "name": node}});
    assert_eq!(fixture.create(&path, &to("n1")).await["status"], "Success");
    let bound = fixture.get(&format!("{PODS}/a")).await.ok();
    assert_eq!(
        (
            &bound["spec"]["nodeName"],
            &bound["status"]["conditions"][0]["type"]
        ),
        (&json!("n1"), &json!("PodScheduled"))
    );
    let message = fixture.post(&path, &to("n2")).await.failed(409, "Conflict");
    assert!(
        message.contains("pod a is already assigned to node \"n1\""),
        "{message}"
    );
    fixture
        .post(&path, &json!({"target": {}}))
        .await
        .failed(422, "Invalid");
    fixture
        .post(&format!("{PODS}/none/binding"), &to("n1"))
        .await
        .failed(404, "NotFound");
}

#[tokio::test]
async fn a_pod_on_a_node_waits_for_it_when_it_is_deleted() {
    let fixture = Fixture::new().await;
    fixture.create(PODS, &pod("a")).await;
    fixture
        .create(
            &format!("{PODS}/a/binding"),
            &json!({"target": {"name": "n"}}),
        )
        .await;
    let path = format!("{PODS}/a");
    let waits = fixture.delete(&path, &Value::Null).await.ok();
    assert_eq!(waits["metadata"]["deletionGracePeriodSeconds"], 30);
    fixture.get(&path).await.ok();
    let now = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": waits["metadata"]["uid"]}});
    fixture.delete(&path, &now).await.ok();
    fixture.get(&path).await.failed(404, "NotFound");
}

#[tokio::test]
async fn an_eviction_deletes_unless_a_budget_forbids() {
    let fixture = Fixture::new().await;
    let mut body = pod("a");
    body["metadata"]["labels"] = json!({"app": "web"});
    fixture.create(PODS, &body).await;
    fixture
        .ask(
            "PATCH",
            &format!("{PODS}/a/status"),
            "application/merge-patch+json",
            &json!({"status": {"phase": "Running"}}),
        )
        .await
        .ok();
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    fixture.create(budgets, &budget).await;
    let path = format!("{PODS}/a/eviction");
    let refused = fixture
        .post(&path, &json!({"metadata": {"name": "a"}}))
        .await;
    assert_eq!(
        refused.body["details"]["causes"][0]["reason"],
        "DisruptionBudget"
    );
    refused.failed(429, "TooManyRequests");
    fixture
        .delete(&format!("{budgets}/b"), &Value::Null)
        .await
        .ok();
    fixture
        .create(&path, &json!({"metadata": {"name": "a"}}))
        .await;
    fixture
        .get(&format!("{PODS}/a"))
        .await
        .failed(404, "NotFound");
}

#[tokio::test]
async fn tokens_and_reviews_are_answered_and_not_kept() {
    let fixture = Fixture::new().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    fixture
        .create(accounts, &json!({"metadata": {"name": "robot"}}))
        .await;
    let issued = fixture
        .create(
            &format!("{accounts}/robot/token"),
            &json!({"spec": {"expirationSeconds": 3600}}),
        )
        .await;
    let token = issued["status"]["token"].as_str().unwrap();
    let question = json!({"spec": {"token": token}});
    let answer = fixture
        .create("/apis/authentication.k8s.io/v1/tokenreviews", &question)
        .await;
    assert_eq!(
        answer["status"]["user"]["username"],
        "system:serviceaccount:default:robot"
    );
    let question = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let answer = fixture
        .create(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            &question,
        )
        .await;
    assert_eq!(answer["status"]["allowed"], true);
}

#[tokio::test]
async fn those_who_may_not_are_refused() {
    let fixture = Fixture::new().await;
    let mut request = Request::get(MAPS).body(Body::empty()).unwrap();
    request
        .extensions_mut()
        .insert(User::authenticated("jane", vec![]));
    let response = fixture.server.call(request).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let request = Request::get(MAPS).body(Body::empty()).unwrap();
    assert_eq!(
        fixture.server.call(request).await.status(),
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn a_rule_with_names_allows_lists_of_those_names_alone() {
    let fixture = Fixture::new().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"], "verbs": ["*"]}]);
    fixture
        .create(
            &format!("{rbac}/roles"),
            &json!({"metadata": {"name": "r"}, "rules": rules}),
        )
        .await;
    let binding = json!({
        "metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    fixture
        .create(&format!("{rbac}/rolebindings"), &binding)
        .await;
    let named = "fieldSelector=metadata.name%3Da";
    for (method, path, expected) in [
        ("GET", format!("{MAPS}?{named}"), StatusCode::OK),
        ("GET", MAPS.to_owned(), StatusCode::FORBIDDEN),
        (
            "GET",
            format!("{MAPS}?fieldSelector=metadata.name!%3Da"),
            StatusCode::FORBIDDEN,
        ),
        ("POST", format!("{MAPS}?{named}"), StatusCode::FORBIDDEN),
        ("DELETE", format!("{MAPS}?{named}"), StatusCode::FORBIDDEN),
    ] {
        let body = Body::from(map("b").to_string());
        let mut request = Request::builder()
            .method(method)
            .uri(&path)
            .body(body)
            .unwrap();
        request
            .extensions_mut()
            .insert(User::authenticated("jane", vec![]));
        let status = fixture.server.call(request).await.status();
        assert_eq!(status, expected, "{method} {path}");
    }
}
