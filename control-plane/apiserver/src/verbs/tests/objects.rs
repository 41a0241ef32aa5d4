use super::*;

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let fixture = Fixture::new().await;
    let created = fixture.create(MAPS, &map("a")).await;
    let metadata = &created["metadata"];
    assert_eq!(
        (
            &metadata["namespace"],
            metadata["uid"].as_str().unwrap().len()
        ),
        (&json!("default"), 36)
    );
    let path = format!("{MAPS}/a");
    assert_eq!(fixture.get(&path).await.ok(), created);
    let mut changed = created.clone();
    changed["data"]["a"] = json!("2");
    let updated = fixture.put(&path, &changed).await.ok();
    assert_eq!(updated["data"]["a"], "2");
    assert_eq!(updated["metadata"]["uid"], metadata["uid"]);
    let message = fixture.put(&path, &changed).await.failed(409, "Conflict");
    assert_eq!(
        message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let deleted = fixture.delete(&path, &Value::Null).await.ok();
    assert_eq!(
        (&deleted["status"], &deleted["details"]["uid"]),
        (&json!("Success"), &metadata["uid"])
    );
    assert_eq!(
        fixture.get(&path).await.failed(404, "NotFound"),
        "configmaps \"a\" not found"
    );
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    let fixture = Fixture::new().await;
    let created = fixture.create(MAPS, &map("a")).await;
    let revision = fixture.server.store().revision();
    let path = format!("{MAPS}/a");
    let updated = fixture.put(&path, &created).await.ok();
    assert_eq!(
        updated["metadata"]["resourceVersion"],
        created["metadata"]["resourceVersion"]
    );
    fixture
        .merge(&path, &json!({"data": {"a": "1"}}))
        .await
        .ok();
    assert_eq!(fixture.server.store().revision(), revision);
}

#[tokio::test]
async fn what_cannot_be_created_says_why() {
    let fixture = Fixture::new().await;
    fixture.create(MAPS, &map("a")).await;
    let failed = |answer: Answer, code, reason| answer.failed(code, reason);
    let again = fixture.post(MAPS, &map("a")).await;
    assert_eq!(
        failed(again, 409, "AlreadyExists"),
        "configmaps \"a\" already exists"
    );
    let nameless = fixture.post(MAPS, &json!({"metadata": {}})).await;
    assert!(failed(nameless, 422, "Invalid").contains("name or generateName is required"));
    let nowhere = fixture
        .post("/api/v1/namespaces/none/configmaps", &map("a"))
        .await;
    assert_eq!(
        failed(nowhere, 404, "NotFound"),
        "namespaces \"none\" not found"
    );
    let other = json!({"metadata": {"name": "b", "namespace": "other"}});
    let message = failed(fixture.post(MAPS, &other).await, 400, "BadRequest");
    assert!(
        message.contains("does not match the namespace"),
        "{message}"
    );
    let versioned = json!({"metadata": {"name": "b", "resourceVersion": "5"}});
    failed(fixture.post(MAPS, &versioned).await, 400, "BadRequest");
    let kind = json!({"kind": "Secret", "metadata": {"name": "b"}});
    failed(fixture.post(MAPS, &kind).await, 400, "BadRequest");
}

#[tokio::test]
async fn names_are_generated() {
    let fixture = Fixture::new().await;
    let body = json!({"metadata": {"generateName": "web-"}});
    let (one, two) = (
        fixture.create(MAPS, &body).await,
        fixture.create(MAPS, &body).await,
    );
    let name = one["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9);
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
}

#[tokio::test]
async fn paths_and_methods_that_there_are_not_are_answered_with_a_status() {
    let fixture = Fixture::new().await;
    for path in [
        "/api/v1/nonsense",
        "/apis/none/v1/things",
        "/apis/example.org/v2/widgets",
        "/nonsense",
    ] {
        let message = fixture.get(path).await.failed(404, "NotFound");
        assert_eq!(
            message, "the server could not find the requested resource",
            "{path}"
        );
    }
    fixture
        .put(MAPS, &map("a"))
        .await
        .failed(405, "MethodNotAllowed");
    fixture
        .post(&format!("{MAPS}/a"), &map("a"))
        .await
        .failed(405, "MethodNotAllowed");
    fixture
        .get(&format!("{MAPS}/a/nonsense"))
        .await
        .failed(404, "NotFound");
    fixture
        .get("/api/v1/namespaces/..%2f/configmaps")
        .await
        .failed(400, "BadRequest");
}

#[tokio::test]
async fn bodies_have_bounds_and_known_forms() {
    let fixture = Fixture::new().await;
    let mut large = map("a");
    large["data"]["a"] = "x".repeat(BODY_MAX).into();
    fixture
        .post(MAPS, &large)
        .await
        .failed(413, "RequestEntityTooLarge");
    fixture
        .ask("POST", MAPS, "text/plain", &map("a"))
        .await
        .failed(415, "UnsupportedMediaType");
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yaml\ndata:\n  a: b\n";
    let request = Request::post(MAPS)
        .header("content-type", "application/yaml")
        .body(Body::from(yaml));
    assert_eq!(fixture.send(request.unwrap()).await.ok()["data"]["a"], "b");
}

const BODY_MAX: usize = crate::verbs::BODY_MAX_BYTES;

#[tokio::test]
async fn unknown_fields_are_dropped_and_said_as_the_client_wants() {
    let fixture = Fixture::new().await;
    let mut body = widget("a");
    body["spec"]["colur"] = json!("red");
    body["spec"]["parts"] = json!([{"name": "x", "nmae": "y"}]);
    let strict = fixture
        .post(&format!("{WIDGETS}?fieldValidation=Strict"), &body)
        .await;
    let message = strict.failed(400, "BadRequest");
    assert!(
        message.contains("strict decoding error: unknown field \"spec.colur\""),
        "{message}"
    );
    assert!(
        message.contains("unknown field \"spec.parts[0].nmae\""),
        "{message}"
    );
    let warned = fixture
        .post(&format!("{WIDGETS}?fieldValidation=Warn"), &body)
        .await;
    assert!(
        warned
            .warnings
            .contains(&r#"299 - "unknown field \"spec.colur\"""#.to_owned()),
        "{warned:?}"
    );
    let created = warned.ok();
    assert_eq!(
        created["spec"],
        json!({"replicas": 1, "colour": "grey", "parts": [{"name": "x"}]})
    );
    body["metadata"]["name"] = json!("b");
    let ignored = fixture
        .post(&format!("{WIDGETS}?fieldValidation=Ignore"), &body)
        .await;
    assert!(ignored.warnings.is_empty());
    body["metadata"]["name"] = json!("c");
    fixture
        .post(&format!("{WIDGETS}?fieldValidation=Maybe"), &body)
        .await
        .failed(400, "BadRequest");
}

#[tokio::test]
async fn fields_that_are_wrong_are_named() {
    let fixture = Fixture::new().await;
    let mut body = widget("a");
    body["spec"]["replicas"] = json!("many");
    let answer = fixture.post(WIDGETS, &body).await;
    assert_eq!(
        answer.body["details"]["causes"][0]["field"], "spec.replicas",
        "{}",
        answer.text
    );
    assert!(
        answer
            .failed(422, "Invalid")
            .starts_with("Widget.example.org \"a\" is invalid")
    );
}

#[tokio::test]
async fn status_is_written_through_its_own_path_alone() {
    let fixture = Fixture::new().await;
    let mut body = widget("a");
    body["status"] = json!({"phase": "Forged"});
    let created = fixture.create(WIDGETS, &body).await;
    assert_eq!(
        (&created["status"], &created["metadata"]["generation"]),
        (&Value::Null, &json!(1))
    );
    let (path, status) = (format!("{WIDGETS}/a"), format!("{WIDGETS}/a/status"));
    let written = json!({"status": {"phase": "Running"}, "spec": {"replicas": 9}, "metadata": {"labels": {"a": "b"}}});
    let written = fixture.merge(&status, &written).await.ok();
    assert_eq!(
        (&written["status"]["phase"], &written["spec"]["replicas"]),
        (&json!("Running"), &json!(1))
    );
    assert_eq!(
        (
            &written["metadata"]["generation"],
            &written["metadata"]["labels"]
        ),
        (&json!(1), &Value::Null)
    );
    let changed = json!({"status": {"phase": "Forged"}, "spec": {"replicas": 2}});
    let changed = fixture.merge(&path, &changed).await.ok();
    assert_eq!(
        (&changed["status"]["phase"], &changed["spec"]["replicas"]),
        (&json!("Running"), &json!(2))
    );
    assert_eq!(changed["metadata"]["generation"], 2);
    let labelled = fixture
        .merge(&path, &json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .ok();
    assert_eq!(
        (
            &labelled["metadata"]["generation"],
            &labelled["metadata"]["labels"]["a"]
        ),
        (&json!(2), &json!("b"))
    );
    fixture
        .get(&format!("{MAPS}/a/status"))
        .await
        .failed(404, "NotFound");
}

#[tokio::test]
async fn custom_objects_are_updated_with_a_revision_only() {
    let fixture = Fixture::new().await;
    fixture.create(WIDGETS, &widget("a")).await;
    let message = fixture
        .put(&format!("{WIDGETS}/a"), &widget("a"))
        .await
        .failed(422, "Invalid");
    assert!(
        message.contains("metadata.resourceVersion")
            && message.contains("must be specified for an update")
    );
    fixture.create(MAPS, &map("a")).await;
    let mut unconditional = map("a");
    unconditional["data"]["b"] = json!("2");
    assert_eq!(
        fixture.put(&format!("{MAPS}/a"), &unconditional).await.ok()["data"]["b"],
        "2"
    );
}

#[tokio::test]
async fn a_kind_is_served_in_all_its_versions() {
    let fixture = Fixture::new().await;
    let old = "/apis/example.org/v1beta1/namespaces/default/widgets";
    let mut body = widget("a");
    body["apiVersion"] = json!("example.org/v1beta1");
    assert_eq!(
        fixture.create(old, &body).await["apiVersion"],
        "example.org/v1beta1"
    );
    assert_eq!(
        fixture.get(&format!("{WIDGETS}/a")).await.ok()["apiVersion"],
        "example.org/v1"
    );
    let patched = fixture
        .merge(&format!("{old}/a"), &json!({"spec": {"replicas": 3}}))
        .await
        .ok();
    assert_eq!(patched["apiVersion"], "example.org/v1beta1");
    let list = fixture.get(old).await.ok();
    assert_eq!(
        (&list["apiVersion"], &list["items"][0]["apiVersion"]),
        (&json!("example.org/v1beta1"), &json!("example.org/v1beta1"))
    );
    let stored = fixture
        .server
        .store()
        .get("widgets.example.org", "default", "a")
        .unwrap();
    assert_eq!(stored.value()["apiVersion"], "example.org/v1");
}

#[tokio::test]
async fn patches_of_all_kinds_apply() {
    let fixture = Fixture::new().await;
    fixture.create(MAPS, &map("a")).await;
    let path = format!("{MAPS}/a");
    let operations = json!([{"op": "test", "path": "/data/a", "value": "1"}, {"op": "add", "path": "/data/b", "value": "2"}]);
    let patched = fixture
        .ask("PATCH", &path, "application/json-patch+json", &operations)
        .await
        .ok();
    assert_eq!(patched["data"], json!({"a": "1", "b": "2"}));
    let failing = json!([{"op": "test", "path": "/data/a", "value": "9"}]);
    fixture
        .ask("PATCH", &path, "application/json-patch+json", &failing)
        .await
        .failed(422, "Invalid");
    fixture
        .ask(
            "PATCH",
            &path,
            "application/json-patch+json",
            &json!({"a": 1}),
        )
        .await
        .failed(400, "BadRequest");
    fixture
        .merge(&path, &json!([1]))
        .await
        .failed(400, "BadRequest");
    let merged = fixture
        .merge(&path, &json!({"data": {"a": null}}))
        .await
        .ok();
    assert_eq!(merged["data"], json!({"b": "2"}));
    let strategic = "application/strategic-merge-patch+json";
    let labelled = json!({"metadata": {"labels": {"x": "y"}}});
    assert_eq!(
        fixture.ask("PATCH", &path, strategic, &labelled).await.ok()["metadata"]["labels"]["x"],
        "y"
    );
    fixture.create(WIDGETS, &widget("w")).await;
    fixture
        .ask("PATCH", &format!("{WIDGETS}/w"), strategic, &labelled)
        .await
        .failed(415, "UnsupportedMediaType");
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"a": "7"}});
    fixture.merge(&path, &stale).await.failed(409, "Conflict");
    fixture
        .merge(&format!("{MAPS}/none"), &labelled)
        .await
        .failed(404, "NotFound");
}

#[tokio::test]
async fn server_side_apply_creates_and_notes_owners() {
    let fixture = Fixture::new().await;
    let apply = "application/apply-patch+yaml";
    let path = format!("{WIDGETS}/a");
    fixture
        .ask("PATCH", &path, apply, &widget("a"))
        .await
        .failed(400, "BadRequest");
    let mine = format!("{path}?fieldManager=me");
    let created = fixture.ask("PATCH", &mine, apply, &widget("a")).await;
    assert_eq!(created.status, StatusCode::CREATED);
    assert_eq!(
        created.ok()["metadata"]["managedFields"][0]["manager"],
        "me"
    );
    let mut theirs = widget("a");
    theirs["spec"]["replicas"] = json!(5);
    let other = format!("{path}?fieldManager=they");
    let conflict = fixture.ask("PATCH", &other, apply, &theirs).await;
    assert_eq!(
        conflict.body["details"]["causes"][0]["reason"],
        "FieldManagerConflict"
    );
    conflict.failed(409, "Conflict");
    let forced = fixture
        .ask("PATCH", &format!("{other}&force=true"), apply, &theirs)
        .await
        .ok();
    assert_eq!(
        (
            &forced["spec"]["replicas"],
            &forced["metadata"]["generation"]
        ),
        (&json!(5), &json!(2))
    );
}

#[tokio::test]
async fn a_dry_run_answers_and_writes_nothing() {
    let fixture = Fixture::new().await;
    let revision = fixture.server.store().revision();
    fixture
        .create(&format!("{MAPS}?dryRun=All"), &map("a"))
        .await;
    fixture
        .get(&format!("{MAPS}/a"))
        .await
        .failed(404, "NotFound");
    assert_eq!(fixture.server.store().revision(), revision);
    fixture
        .post(&format!("{MAPS}?dryRun=Some"), &map("a"))
        .await
        .failed(400, "BadRequest");
    fixture.create(MAPS, &map("a")).await;
    let path = format!("{MAPS}/a?dryRun=All");
    assert_eq!(
        fixture
            .merge(&path, &json!({"data": {"a": "2"}}))
            .await
            .ok()["data"]["a"],
        "2"
    );
    fixture.delete(&path, &Value::Null).await.ok();
    assert_eq!(
        fixture.get(&format!("{MAPS}/a")).await.ok()["data"]["a"],
        "1"
    );
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let fixture = Fixture::new().await;
    let mut body = map("a");
    body["metadata"]["finalizers"] = json!(["example.org/hold"]);
    fixture.create(MAPS, &body).await;
    let path = format!("{MAPS}/a");
    let waits = fixture.delete(&path, &Value::Null).await.ok();
    assert!(
        waits["metadata"]["deletionTimestamp"].is_string()
            && waits["metadata"]["deletionGracePeriodSeconds"] == 0
    );
    let more = json!({"metadata": {"finalizers": ["example.org/hold", "example.org/more"]}});
    let message = fixture.merge(&path, &more).await.failed(422, "Invalid");
    assert!(message.contains("no new finalizers"), "{message}");
    fixture.delete(&path, &Value::Null).await.ok();
    fixture
        .merge(&path, &json!({"metadata": {"finalizers": null}}))
        .await
        .ok();
    fixture.get(&path).await.failed(404, "NotFound");
}

#[tokio::test]
async fn a_deletion_has_preconditions_and_policies() {
    let fixture = Fixture::new().await;
    let created = fixture.create(MAPS, &map("a")).await;
    let path = format!("{MAPS}/a");
    let message = fixture
        .delete(&path, &json!({"preconditions": {"uid": "other"}}))
        .await
        .failed(409, "Conflict");
    assert!(
        message.contains("Precondition failed: UID in precondition: other"),
        "{message}"
    );
    let stale = json!({"preconditions": {"resourceVersion": "1"}});
    fixture.delete(&path, &stale).await.failed(409, "Conflict");
    fixture
        .delete(&path, &json!({"propagationPolicy": "Sideways"}))
        .await
        .failed(422, "Invalid");
    let waits = fixture
        .delete(
            &format!("{path}?propagationPolicy=Foreground"),
            &Value::Null,
        )
        .await
        .ok();
    assert_eq!(
        waits["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    let orphan = json!({"propagationPolicy": "Orphan", "preconditions": {"uid": created["metadata"]["uid"]}});
    assert_eq!(
        fixture.delete(&path, &orphan).await.ok()["metadata"]["finalizers"],
        json!(["orphan"])
    );
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let fixture = Fixture::new().await;
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut body = map(name);
        body["metadata"]["labels"] = json!({"tier": tier});
        fixture.create(MAPS, &body).await;
    }
    let deleted = fixture
        .delete(&format!("{MAPS}?labelSelector=tier%3Dx"), &Value::Null)
        .await
        .ok();
    assert_eq!(names(&deleted), ["a", "c"]);
    assert_eq!(names(&fixture.get(MAPS).await.ok()), ["b"]);
}

#[tokio::test]
async fn lists_are_selected_and_cut_consistently() {
    let fixture = Fixture::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        fixture.create(MAPS, &map(name)).await;
    }
    assert_eq!(
        names(
            &fixture
                .get(&format!("{MAPS}?fieldSelector=metadata.name%3Dc"))
                .await
                .ok()
        ),
        ["c"]
    );
    fixture
        .get(&format!("{MAPS}?fieldSelector=data.a%3Dc"))
        .await
        .failed(400, "BadRequest");
    let first = fixture.get(&format!("{MAPS}?limit=2")).await.ok();
    assert_eq!(
        (names(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["a".to_owned(), "b".to_owned()], &json!(3))
    );
    fixture
        .delete(&format!("{MAPS}/c"), &Value::Null)
        .await
        .ok();
    fixture.create(MAPS, &map("bb")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = fixture
        .get(&format!("{MAPS}?limit=5&continue={token}"))
        .await
        .ok();
    assert_eq!(names(&rest), ["c", "d", "e"]);
    assert_eq!(
        rest["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    assert!(rest["metadata"]["continue"].is_null());
    fixture
        .get(&format!("{MAPS}?continue=nonsense"))
        .await
        .failed(400, "BadRequest");
    let all = fixture
        .get(&format!("{MAPS}?limit=2&resourceVersion=0"))
        .await
        .ok();
    assert_eq!(names(&all), ["a", "b", "bb", "d", "e"]);
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = fixture
        .get(&format!(
            "{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact"
        ))
        .await
        .ok();
    assert_eq!(names(&exact), ["a", "b", "c", "d", "e"]);
    fixture
        .get(&format!("{MAPS}?resourceVersion=99999"))
        .await
        .failed(504, "Timeout");
    fixture
        .get(&format!("{MAPS}?resourceVersionMatch=Exact"))
        .await
        .failed(400, "BadRequest");
}

#[tokio::test]
async fn objects_are_shown_in_the_form_that_was_asked_for() {
    let fixture = Fixture::new().await;
    fixture.create(MAPS, &map("a")).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let shown = fixture.get_as(MAPS, table).await.ok();
    assert_eq!(
        (&shown["kind"], shown["rows"].as_array().unwrap().len()),
        (&json!("Table"), 1)
    );
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let shown = fixture.get_as(MAPS, partial).await.ok();
    assert_eq!(
        (&shown["kind"], &shown["items"][0]["data"]),
        (&json!("PartialObjectMetadataList"), &Value::Null)
    );
    let one = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    assert_eq!(
        fixture.get_as(&format!("{MAPS}/a"), one).await.ok()["kind"],
        "PartialObjectMetadata"
    );
    let pretty = fixture.get(&format!("{MAPS}/a?pretty=true")).await;
    assert!(pretty.text.starts_with("{\n  \"apiVersion\""));
    fixture
        .get_as(MAPS, "application/vnd.kubernetes.protobuf")
        .await
        .failed(406, "NotAcceptable");
}

#[tokio::test]
async fn the_server_says_how_it_is() {
    let fixture = Fixture::new().await;
    for path in ["/healthz", "/livez", "/readyz", "/readyz/"] {
        assert_eq!(fixture.get(path).await.text, "ok");
    }
    assert_eq!(fixture.get("/version").await.ok()["minor"], "33");
    assert!(
        fixture
            .get("/metrics")
            .await
            .text
            .contains("apiserver_storage_objects{resource=\"namespaces\"} 1")
    );
}

#[tokio::test]
async fn a_namespace_ends_after_its_content() {
    let fixture = Fixture::new().await;
    let body = json!({"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]}});
    fixture.create("/api/v1/namespaces", &body).await;
    let path = "/api/v1/namespaces/x";
    let ending = fixture.delete(path, &Value::Null).await.ok();
    assert_eq!(ending["status"]["phase"], "Terminating");
    let refused = fixture
        .post("/api/v1/namespaces/x/configmaps", &map("a"))
        .await;
    assert_eq!(
        refused.body["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );
    refused.failed(403, "Forbidden");
    let done = json!({"metadata": {"name": "x"}, "spec": {"finalizers": []}});
    fixture.put(&format!("{path}/finalize"), &done).await.ok();
    fixture.get(path).await.failed(404, "NotFound");
}

#[tokio::test]
async fn an_object_cannot_grow_or_nest_without_bound() {
    let fixture = Fixture::new().await;
    fixture.create(WIDGETS, &widget("a")).await;
    let path = format!("{WIDGETS}/a");
    let text = "x".repeat(BODY_MAX / 2);
    fixture
        .merge(&path, &json!({"spec": {"colour": text}}))
        .await
        .ok();
    let grown = fixture
        .merge(&path, &json!({"spec": {"parts": [{"name": text}]}}))
        .await;
    grown.failed(413, "RequestEntityTooLarge");
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let nested = (0..120).fold(json!({"type": "object"}), |inner, _| json!({"x": inner}));
    let answer = fixture
        .post(
            crds,
            &json!({"metadata": {"name": "a"}, "spec": {"x": nested}}),
        )
        .await;
    assert!(answer.status.is_client_error(), "{}", answer.text);
}
