use std::time::Duration;

use axum::body::BodyDataStream;
use futures::StreamExt as _;
use tokio::time::timeout;

use super::*;

/// What a watch says, event by event.
struct Events {
    body: BodyDataStream,
    text: Vec<u8>,
}

impl Events {
    async fn of(fixture: &Fixture, path: &str) -> Self {
        Self::of_as(fixture, path, "application/json").await
    }

    async fn of_as(fixture: &Fixture, path: &str, accept: &str) -> Self {
        let mut request = Request::get(path)
            .header("accept", accept)
            .body(Body::empty())
            .unwrap();
        request.extensions_mut().insert(User::master("tests"));
        let response = fixture.server.call(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Self {
            body: response.into_body().into_data_stream(),
            text: Vec::new(),
        }
    }

    /// Returns the next event; nothing at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.text.iter().position(|it| *it == b'\n') {
                let line: Vec<_> = self.text.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = timeout(Duration::from_secs(20), self.body.next())
                .await
                .expect("an event in time");
            self.text.extend(chunk?.unwrap());
        }
    }

    /// Checks the next event's type and name, and returns its object.
    async fn expect(&mut self, kind: &str, name: &str) -> Value {
        let event = self.next().await.expect("another event");
        let found = (&event["type"], &event["object"]["metadata"]["name"]);
        assert_eq!(found, (&json!(kind), &json!(name)), "{event}");
        event["object"].clone()
    }
}

#[tokio::test]
async fn a_watch_without_a_revision_begins_with_what_there_is() {
    let fixture = Fixture::new().await;
    fixture.create(MAPS, &map("a")).await;
    let mut events = Events::of(&fixture, &format!("{MAPS}?watch=true")).await;
    events.expect("ADDED", "a").await;
    fixture.create(MAPS, &map("b")).await;
    events.expect("ADDED", "b").await;
    fixture
        .merge(&format!("{MAPS}/a"), &json!({"data": {"a": "2"}}))
        .await
        .ok();
    assert_eq!(events.expect("MODIFIED", "a").await["data"]["a"], "2");
    fixture
        .delete(&format!("{MAPS}/a"), &Value::Null)
        .await
        .ok();
    let gone = events.expect("DELETED", "a").await;
    assert_eq!(
        gone["metadata"]["resourceVersion"],
        fixture.server.store().revision().to_string()
    );
}

#[tokio::test]
async fn a_watch_goes_on_from_a_revision() {
    let fixture = Fixture::new().await;
    fixture.create(MAPS, &map("a")).await;
    let list = fixture.get(MAPS).await.ok();
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    fixture.create(MAPS, &map("b")).await;
    let mut events = Events::of(
        &fixture,
        &format!("{MAPS}?watch=1&resourceVersion={revision}"),
    )
    .await;
    events.expect("ADDED", "b").await;
}

#[tokio::test]
async fn a_revision_that_is_unknown_is_gone() {
    let fixture = Fixture::new().await;
    for path in [format!("{MAPS}?watch=1&resourceVersion=99999")] {
        let mut events = Events::of(&fixture, &path).await;
        let event = events.next().await.unwrap();
        assert_eq!(
            (
                &event["type"],
                &event["object"]["code"],
                &event["object"]["reason"]
            ),
            (&json!("ERROR"), &json!(410), &json!("Expired"))
        );
        assert_eq!(events.next().await, None);
    }
}

#[tokio::test]
async fn an_object_that_leaves_the_selector_is_deleted_for_its_watcher() {
    let fixture = Fixture::new().await;
    let mut body = map("a");
    body["metadata"]["labels"] = json!({"tier": "x"});
    fixture.create(MAPS, &body).await;
    fixture.create(MAPS, &map("other")).await;
    let mut events = Events::of(
        &fixture,
        &format!("{MAPS}?watch=true&labelSelector=tier%3Dx"),
    )
    .await;
    events.expect("ADDED", "a").await;
    let path = format!("{MAPS}/a");
    let left = fixture
        .merge(&path, &json!({"metadata": {"labels": {"tier": "y"}}}))
        .await
        .ok();
    let gone = events.expect("DELETED", "a").await;
    assert_eq!(gone["metadata"]["labels"]["tier"], "x");
    assert_eq!(
        gone["metadata"]["resourceVersion"],
        left["metadata"]["resourceVersion"]
    );
    fixture
        .merge(&path, &json!({"data": {"a": "3"}}))
        .await
        .ok();
    fixture
        .merge(&path, &json!({"metadata": {"labels": {"tier": "x"}}}))
        .await
        .ok();
    assert_eq!(events.expect("ADDED", "a").await["data"]["a"], "3");
}

#[tokio::test]
async fn fields_select_in_watches_too() {
    let fixture = Fixture::new().await;
    let mut events = Events::of(
        &fixture,
        &format!("{PODS}?watch=true&fieldSelector=spec.nodeName%3Dn1"),
    )
    .await;
    fixture.create(PODS, &pod("a")).await;
    fixture.create(PODS, &pod("b")).await;
    fixture
        .create(
            &format!("{PODS}/b/binding"),
            &json!({"target": {"name": "n1"}}),
        )
        .await;
    events.expect("ADDED", "b").await;
}

#[tokio::test]
async fn the_beginning_is_marked_for_streaming_lists() {
    let fixture = Fixture::new().await;
    fixture.create(MAPS, &map("a")).await;
    let asked = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = Events::of(&fixture, &format!("{MAPS}?{asked}")).await;
    events.expect("ADDED", "a").await;
    let mark = events.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(
        mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(mark["object"]["kind"], "ConfigMap");
    let revision = fixture.server.store().revision().to_string();
    assert_eq!(mark["object"]["metadata"]["resourceVersion"], revision);
    let wrong = fixture
        .get(&format!("{MAPS}?watch=true&sendInitialEvents=true"))
        .await;
    wrong.failed(422, "Invalid");
}

#[tokio::test]
async fn a_watch_ends_in_time_with_a_bookmark() {
    let fixture = Fixture::new().await;
    let list = fixture.get(MAPS).await.ok();
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    fixture.create(WIDGETS, &widget("elsewhere")).await;
    let asked = format!(
        "{MAPS}?watch=true&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion={revision}"
    );
    let mut events = Events::of(&fixture, &asked).await;
    let last = events.next().await.unwrap();
    assert_eq!(last["type"], "BOOKMARK");
    assert_eq!(
        last["object"]["metadata"]["resourceVersion"],
        fixture.server.store().revision().to_string()
    );
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_watch_ends_with_the_server() {
    let fixture = Fixture::new().await;
    let mut events = Events::of(&fixture, &format!("{MAPS}?watch=true")).await;
    fixture.server.stop().cancel();
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn tables_are_watched_with_columns_once() {
    let fixture = Fixture::new().await;
    fixture.create(MAPS, &map("a")).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut events = Events::of_as(&fixture, &format!("{MAPS}?watch=true"), table).await;
    let first = events.next().await.unwrap();
    assert_eq!(
        (&first["type"], &first["object"]["kind"]),
        (&json!("ADDED"), &json!("Table"))
    );
    assert!(first["object"]["columnDefinitions"].is_array());
    fixture.create(MAPS, &map("b")).await;
    let second = events.next().await.unwrap();
    assert!(second["object"]["columnDefinitions"].is_null());
    assert_eq!(second["object"]["rows"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn one_object_is_watched_by_name() {
    let fixture = Fixture::new().await;
    fixture.create(MAPS, &map("a")).await;
    let selector = "fieldSelector=metadata.name%3Db";
    let mut events = Events::of(&fixture, &format!("{MAPS}?watch=true&{selector}")).await;
    fixture.create(MAPS, &map("b")).await;
    events.expect("ADDED", "b").await;
}
