//! The server does what a plain map would do: random requests, and after each the same answer; and what a watch tells
//! adds up to what there is.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module as a whole"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use apiserver::access::User;
use apiserver::{ApiServer, Options};
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FINALIZER: &str = "example.org/hold";
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const TIERS: [&str; 3] = ["x", "y", "z"];

/// A request.
#[derive(Clone, Debug)]
enum Step {
    Create {
        name: usize,
        text: u8,
        tier: usize,
        is_held: bool,
    },
    Put {
        name: usize,
        text: u8,
        revision: Revision,
    },
    Merge {
        name: usize,
        text: u8,
    },
    Label {
        name: usize,
        tier: usize,
    },
    Release {
        name: usize,
    },
    Delete {
        name: usize,
        is_stale: bool,
    },
    DeleteTier {
        tier: usize,
    },
    List {
        tier: usize,
    },
    ListInParts {
        limit: usize,
    },
    Reopen,
}

/// The revision that an update names.
#[derive(Clone, Copy, Debug)]
enum Revision {
    None,
    Current,
    Stale,
}

/// An object of the model.
#[derive(Clone, Debug, PartialEq)]
struct Object {
    text: String,
    tier: &'static str,
    is_held: bool,
    is_deleting: bool,
    revision: String,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (name, tier, text) = (0..NAMES.len(), 0..TIERS.len(), 0_u8..3);
    let revision = prop_oneof![
        Just(Revision::None),
        Just(Revision::Current),
        Just(Revision::Stale)
    ];
    let step = prop_oneof![
        6 => (name.clone(), text.clone(), tier.clone(), any::<bool>())
            .prop_map(|(name, text, tier, is_held)| Step::Create { name, text, tier, is_held }),
        4 => (name.clone(), text.clone(), revision)
            .prop_map(|(name, text, revision)| Step::Put { name, text, revision }),
        4 => (name.clone(), text).prop_map(|(name, text)| Step::Merge { name, text }),
        3 => (name.clone(), tier.clone()).prop_map(|(name, tier)| Step::Label { name, tier }),
        2 => name.clone().prop_map(|name| Step::Release { name }),
        4 => (name, any::<bool>()).prop_map(|(name, is_stale)| Step::Delete { name, is_stale }),
        1 => tier.clone().prop_map(|tier| Step::DeleteTier { tier }),
        2 => tier.prop_map(|tier| Step::List { tier }),
        2 => (1_usize..4).prop_map(|limit| Step::ListInParts { limit }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

struct Run {
    server: ApiServer,
    objects: BTreeMap<&'static str, Object>,
    /// What the watch has told, and the revision up to which.
    told: BTreeMap<String, String>,
    told_to: u64,
}

impl Run {
    async fn begin(directory: &Path) -> Self {
        let server = open(directory);
        let mut run = Self {
            server,
            objects: BTreeMap::new(),
            told: BTreeMap::new(),
            told_to: 0,
        };
        let namespace = json!({"metadata": {"name": "default"}});
        run.send("POST", "/api/v1/namespaces", &namespace).await;
        run.told_to = run.server.store().revision();
        run
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let media = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media);
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(User::master("tests"));
        let (parts, body) = self.server.call(request).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (
            parts.status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    async fn step(&mut self, step: &Step, directory: &Path) {
        match *step {
            Step::Create {
                name,
                text,
                tier,
                is_held,
            } => self.create(NAMES[name], text, TIERS[tier], is_held).await,
            Step::Put {
                name,
                text,
                revision,
            } => self.put(NAMES[name], text, revision).await,
            Step::Merge { name, text } => {
                let text = text.to_string();
                let change = json!({"data": {"text": text}});
                self.change(NAMES[name], &change, |object| object.text = text.clone())
                    .await;
            }
            Step::Label { name, tier } => {
                let change = json!({"metadata": {"labels": {"tier": TIERS[tier]}}});
                self.change(NAMES[name], &change, |object| object.tier = TIERS[tier])
                    .await;
            }
            Step::Release { name } => {
                let change = json!({"metadata": {"finalizers": null}});
                self.change(NAMES[name], &change, |object| object.is_held = false)
                    .await;
            }
            Step::Delete { name, is_stale } => self.delete(NAMES[name], is_stale).await,
            Step::DeleteTier { tier } => {
                let path = format!("{MAPS}?labelSelector=tier%3D{}", TIERS[tier]);
                let (status, _) = self.send("DELETE", &path, &Value::Null).await;
                assert_eq!(status, StatusCode::OK);
                self.objects
                    .retain(|_, it| it.tier != TIERS[tier] || it.is_held);
                self.objects
                    .values_mut()
                    .filter(|it| it.tier == TIERS[tier])
                    .for_each(|it| it.is_deleting = true);
                self.learn_revisions().await;
            }
            Step::List { tier } => {
                let (_, list) = self
                    .send(
                        "GET",
                        &format!("{MAPS}?labelSelector=tier%3D{}", TIERS[tier]),
                        &Value::Null,
                    )
                    .await;
                let wanted = self.objects.iter().filter(|(_, it)| it.tier == TIERS[tier]);
                assert_eq!(
                    names(&list),
                    wanted.map(|(name, _)| *name).collect::<Vec<_>>()
                );
            }
            Step::ListInParts { limit } => self.list_in_parts(limit).await,
            Step::Reopen => self.reopen(directory),
        }
        self.follow().await;
        self.compare().await;
    }

    async fn create(&mut self, name: &'static str, text: u8, tier: &'static str, is_held: bool) {
        let text = text.to_string();
        let finalizers = if is_held {
            json!([FINALIZER])
        } else {
            json!([])
        };
        let metadata = json!({"name": name, "labels": {"tier": tier}, "finalizers": finalizers});
        let (status, answer) = self
            .send(
                "POST",
                MAPS,
                &json!({"metadata": metadata, "data": {"text": text}}),
            )
            .await;
        if self.objects.contains_key(name) {
            assert_eq!(
                (status, &answer["reason"]),
                (StatusCode::CONFLICT, &json!("AlreadyExists"))
            );
            return;
        }
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        let revision = revision(&answer);
        self.objects.insert(
            name,
            Object {
                text,
                tier,
                is_held,
                is_deleting: false,
                revision,
            },
        );
    }

    async fn put(&mut self, name: &'static str, text: u8, wanted: Revision) {
        let text = text.to_string();
        let Some(object) = self.objects.get(name).cloned() else {
            let (status, _) = self
                .send(
                    "PUT",
                    &format!("{MAPS}/{name}"),
                    &json!({"metadata": {"name": name}}),
                )
                .await;
            assert_eq!(status, StatusCode::NOT_FOUND);
            return;
        };
        let finalizers = if object.is_held {
            json!([FINALIZER])
        } else {
            json!([])
        };
        let mut metadata =
            json!({"name": name, "labels": {"tier": object.tier}, "finalizers": finalizers});
        match wanted {
            Revision::None => {}
            Revision::Current => metadata["resourceVersion"] = object.revision.into(),
            Revision::Stale => metadata["resourceVersion"] = "1".into(),
        }
        let body = json!({"metadata": metadata, "data": {"text": text}});
        let (status, answer) = self.send("PUT", &format!("{MAPS}/{name}"), &body).await;
        if matches!(wanted, Revision::Stale) {
            assert_eq!(
                (status, &answer["reason"]),
                (StatusCode::CONFLICT, &json!("Conflict"))
            );
            return;
        }
        assert_eq!(status, StatusCode::OK, "{answer}");
        self.note(name, &answer, |object| object.text = text.clone());
    }

    async fn change(&mut self, name: &'static str, change: &Value, apply: impl Fn(&mut Object)) {
        let (status, answer) = self.send("PATCH", &format!("{MAPS}/{name}"), change).await;
        if !self.objects.contains_key(name) {
            assert_eq!(status, StatusCode::NOT_FOUND);
            return;
        }
        assert_eq!(status, StatusCode::OK, "{answer}");
        self.note(name, &answer, apply);
    }

    /// Does to the model what the server did, and checks that the revision changed if, and only if, the object did.
    fn note(&mut self, name: &'static str, answer: &Value, apply: impl Fn(&mut Object)) {
        let object = self.objects.get_mut(name).unwrap();
        let before = object.clone();
        apply(object);
        let is_changed = *object != before;
        let (was, now) = (before.revision, revision(answer));
        object.revision = now.clone();
        if object.is_deleting && !object.is_held {
            self.objects.remove(name);
        } else {
            assert_eq!(is_changed, was != now, "{name}: {was} -> {now}");
        }
    }

    async fn delete(&mut self, name: &'static str, is_stale: bool) {
        let options = if is_stale {
            json!({"preconditions": {"resourceVersion": "1"}})
        } else {
            Value::Null
        };
        let (status, answer) = self
            .send("DELETE", &format!("{MAPS}/{name}"), &options)
            .await;
        let Some(object) = self.objects.get_mut(name) else {
            assert_eq!(status, StatusCode::NOT_FOUND);
            return;
        };
        if is_stale {
            assert_eq!(status, StatusCode::CONFLICT);
            return;
        }
        assert_eq!(status, StatusCode::OK, "{answer}");
        if object.is_held {
            object.is_deleting = true;
            object.revision = revision(&answer);
        } else {
            self.objects.remove(name);
        }
    }

    async fn list_in_parts(&self, limit: usize) {
        let (mut found, mut next) = (Vec::new(), String::new());
        loop {
            let path = format!("{MAPS}?limit={limit}&continue={next}");
            let (status, list) = self.send("GET", &path, &Value::Null).await;
            assert_eq!(status, StatusCode::OK, "{list}");
            found.extend(names(&list).into_iter().map(str::to_owned));
            match list["metadata"]["continue"].as_str() {
                Some(token) => next = token.to_owned(),
                None => break,
            }
        }
        assert_eq!(found, self.objects.keys().copied().collect::<Vec<_>>());
    }

    /// Ends the server and opens it again as soon as the file is free.
    fn reopen(&mut self, directory: &Path) {
        let spare = tempfile::tempdir().unwrap();
        self.server = ApiServer::open(Options::new(spare.path(), vec![7; 32])).unwrap();
        self.server = open(directory);
    }

    /// Reads what a watch from the last told revision tells by now.
    async fn follow(&mut self) {
        let mut watch = self
            .server
            .store()
            .watch("configmaps", Some("default"), self.told_to)
            .unwrap();
        for change in watch.take().unwrap().changes {
            assert!(change.revision > self.told_to, "revisions grow");
            self.told_to = change.revision;
            let name = change.after.name.clone();
            assert_eq!(
                change.before.is_some(),
                self.told.contains_key(&name),
                "{name}"
            );
            if change.is_deletion {
                self.told.remove(&name);
            } else {
                self.told.insert(name, change.after.revision.to_string());
            }
        }
    }

    /// Checks that server, model and watch agree.
    async fn compare(&self) {
        let (_, list) = self.send("GET", MAPS, &Value::Null).await;
        let found: BTreeMap<_, _> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(object)
            .collect();
        let wanted: BTreeMap<_, _> = self
            .objects
            .iter()
            .map(|(name, it)| ((*name).to_owned(), it.clone()))
            .collect();
        assert_eq!(found, wanted);
        let told: BTreeMap<_, _> = wanted
            .iter()
            .map(|(name, it)| (name.clone(), it.revision.clone()))
            .collect();
        assert_eq!(self.told, told);
    }

    async fn learn_revisions(&mut self) {
        let (_, list) = self.send("GET", MAPS, &Value::Null).await;
        for (name, found) in list["items"].as_array().unwrap().iter().map(object) {
            self.objects.get_mut(name.as_str()).unwrap().revision = found.revision;
        }
    }
}

fn open(directory: &Path) -> ApiServer {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match ApiServer::open(Options::new(directory, vec![7; 32])) {
            Ok(server) => return server,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    }
}

fn revision(object: &Value) -> String {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|it| it["metadata"]["name"].as_str().unwrap())
        .collect()
}

fn object(found: &Value) -> (String, Object) {
    let metadata = &found["metadata"];
    let tier = TIERS
        .into_iter()
        .find(|it| metadata["labels"]["tier"] == **it)
        .unwrap();
    let object = Object {
        text: found["data"]["text"].as_str().unwrap().to_owned(),
        tier,
        is_held: metadata["finalizers"].is_array(),
        is_deleting: metadata["deletionTimestamp"].is_string(),
        revision: revision(found),
    };
    (metadata["name"].as_str().unwrap().to_owned(), object)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_server_does_what_a_map_would_do(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let mut run = Run::begin(directory.path()).await;
            for step in &steps {
                run.step(step, directory.path()).await;
            }
        });
    }
}
