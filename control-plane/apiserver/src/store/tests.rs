use std::time::Duration;

use serde_json::json;

use super::*;

fn key(name: &str) -> Key {
    Key {
        resource: "configmaps".into(),
        namespace: "default".into(),
        name: name.into(),
    }
}

fn object(name: &str, data: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {"a": data}})
}

fn open(directory: &Path) -> Store {
    Store::open(directory, Limits::default()).unwrap()
}

async fn create(store: &Store, name: &str) -> Arc<Stored> {
    store
        .put(key(name), Expect::Absent, object(name, "1"))
        .await
        .unwrap()
}

/// Opens again as soon as the writer of the store that was dropped has let go of the file.
async fn reopen(directory: &Path) -> Store {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        match Store::open(directory, Limits::default()) {
            Ok(store) => return store,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_object_survives_reopening_with_its_revision() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let written = create(&store, "a").await;
    drop(store);
    let store = reopen(directory.path()).await;
    let read = store.get("configmaps", "default", "a").unwrap();
    assert_eq!(read.json, written.json);
    assert_eq!(store.revision(), written.revision);
    assert!(create(&store, "b").await.revision > written.revision);
}

#[tokio::test]
async fn stale_writers_conflict() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let first = create(&store, "a").await;
    let second = store
        .put(key("a"), Expect::Revision(first.revision), object("a", "2"))
        .await
        .unwrap();
    let stale = store
        .put(key("a"), Expect::Revision(first.revision), object("a", "3"))
        .await;
    let Err(StoreError::Conflict(Some(found))) = stale else {
        panic!("{stale:?}")
    };
    assert_eq!(found.revision, second.revision);
    assert!(matches!(
        store.put(key("a"), Expect::Absent, object("a", "3")).await,
        Err(StoreError::Conflict(Some(_)))
    ));
    assert!(matches!(
        store.delete(key("x"), Expect::Revision(1)).await,
        Err(StoreError::Conflict(None))
    ));
}

#[tokio::test]
async fn a_watch_sees_each_change_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let first = create(&store, "a").await;
    let mut watch = store
        .watch("configmaps", Some("default"), first.revision)
        .unwrap();
    create(&store, "b").await;
    let deleted = store
        .delete(key("a"), Expect::Revision(first.revision))
        .await
        .unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(watch.next().await.unwrap().changes);
    }
    assert_eq!(seen[0].after.name, "b");
    assert!(seen[1].is_deletion);
    assert_eq!(seen[1].after.revision, deleted.revision);
    assert_eq!(seen[1].before.as_ref().unwrap().revision, first.revision);
    assert_eq!(watch.position(), deleted.revision);
}

#[tokio::test]
async fn a_watch_resumes_over_a_restart_from_the_last_change_and_not_from_before() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let first = create(&store, "a").await;
    let last = create(&store, "b").await;
    let other = Key {
        resource: "secrets".into(),
        ..key("s")
    };
    store
        .put(other, Expect::Absent, object("s", "1"))
        .await
        .unwrap();
    drop(store);
    let store = reopen(directory.path()).await;
    assert!(matches!(
        store.watch("configmaps", None, first.revision),
        Err(StoreError::Expired { .. })
    ));
    let mut watch = store.watch("configmaps", None, last.revision).unwrap();
    let next = create(&store, "c").await;
    let batch = watch.next().await.unwrap();
    assert_eq!(batch.changes[0].revision, next.revision);
}

#[tokio::test]
async fn a_reader_that_falls_behind_the_history_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        history_changes: 4,
        ..Limits::default()
    };
    let store = Store::open(directory.path(), limits).unwrap();
    let mut watch = store.watch("configmaps", None, 0).unwrap();
    for name in ["a", "b", "c", "d", "e", "f"] {
        create(&store, name).await;
    }
    assert!(matches!(
        watch.next().await,
        Err(StoreError::Expired { .. })
    ));
    assert!(matches!(
        store.watch("configmaps", None, 99),
        Err(StoreError::Expired { .. })
    ));
}

#[tokio::test]
async fn a_listing_of_the_past_shows_what_was() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let a = create(&store, "a").await;
    let b = create(&store, "b").await;
    store
        .delete(key("a"), Expect::Revision(a.revision))
        .await
        .unwrap();
    store
        .put(key("b"), Expect::Revision(b.revision), object("b", "2"))
        .await
        .unwrap();
    create(&store, "c").await;
    let then = store.list_at("configmaps", None, b.revision).unwrap();
    let names: Vec<_> = then
        .objects
        .iter()
        .map(|it| (it.name.as_str(), it.revision))
        .collect();
    assert_eq!(names, [("a", a.revision), ("b", b.revision)]);
    assert_eq!(then.revision, b.revision);
    assert_eq!(store.list("configmaps", Some("default")).objects.len(), 2);
    assert!(store.list("configmaps", Some("other")).objects.is_empty());
}

#[test]
fn a_damaged_database_and_one_of_another_kind_are_refused_with_the_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    std::fs::write(
        &path,
        b"this is no database at all, and longer than its header".repeat(200),
    )
    .unwrap();
    let error = Store::open(directory.path(), Limits::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("objects.redb") && error.contains("put back a copy"),
        "{error}"
    );
}

#[test]
fn a_second_opening_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _store = open(directory.path());
    let error = Store::open(directory.path(), Limits::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("another process"), "{error}");
}

#[tokio::test]
async fn concurrent_writers_all_get_their_own_revision() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let names: Vec<_> = (0..300).map(|number| format!("n{number}")).collect();
    let written = futures::future::join_all(names.iter().map(|name| create(&store, name))).await;
    let mut revisions: Vec<_> = written.iter().map(|it| it.revision).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 300);
    assert_eq!(store.resources(), [("configmaps".to_owned(), 300)]);
}
