//! What was acknowledged survives `kill -9`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::wire::{Client, MAPS, config_map, serve};

/// Tells this program that it is the server that will be killed, and where its state is.
const CHILD: &str = "FERROVIRT_TEST_CHILD_STATE";
/// Objects of the storm, and clients that write to their share of them.
const OBJECTS: usize = 200;
const CLIENTS: usize = 8;
/// Writes that are acknowledged before the server is killed, in each of the rounds.
const ROUNDS: [usize; 3] = [1, 150, 700];

/// What is known of an object: its text, or nothing when there is none.
type Text = Option<String>;

/// What a client knows of one object.
#[derive(Clone, Debug, Default)]
struct Known {
    acknowledged: Text,
    /// What was asked for without an answer.
    pending: Option<Text>,
}

/// Is the server, when this program was started to be it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_of_the_storm_serves_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD) else {
        return;
    };
    let (_server, address) = serve(directory.as_ref()).await;
    let mut output = std::io::stdout();
    writeln!(output, "\nlistening on {address}").unwrap();
    output.flush().unwrap();
    std::future::pending::<()>().await;
}

fn start(directory: &std::path::Path) -> (Child, SocketAddr) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "crash::the_server_of_the_storm_serves_until_it_is_killed",
            "--exact",
            "--nocapture",
        ])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| {
        Some(
            line.unwrap()
                .strip_prefix("listening on ")?
                .parse()
                .unwrap(),
        )
    });
    (child, address.expect("the server says where it listens"))
}

/// Writes to a share of the objects until the server is gone.
async fn storm(
    address: SocketAddr,
    share: usize,
    mut known: BTreeMap<String, Known>,
    acknowledged: Arc<AtomicUsize>,
    wake: Arc<Notify>,
) -> BTreeMap<String, Known> {
    let mut client = Client::connect(address).await;
    let names: Vec<_> = (share..OBJECTS)
        .step_by(CLIENTS)
        .map(|it| format!("object-{it}"))
        .collect();
    for step in 0.. {
        let name = &names[step % names.len()];
        let object = known.entry(name.clone()).or_default();
        let text = format!("{share}-{step}");
        let path = format!("{MAPS}/{name}");
        let (method, path, body, wanted) = match (&object.acknowledged, step % 5) {
            (None, _) => ("POST", MAPS, Some(config_map(name, &text)), Some(text)),
            (Some(_), 4) => ("DELETE", path.as_str(), None, None),
            (Some(_), _) => (
                "PATCH",
                path.as_str(),
                Some(json!({"data": {"text": text}})),
                Some(text),
            ),
        };
        object.pending = Some(wanted.clone());
        let Some((status, answer)) = client.send(method, path, body.as_ref()).await else {
            return known;
        };
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
        *object = Known {
            acknowledged: wanted,
            pending: None,
        };
        acknowledged.fetch_add(1, Ordering::Relaxed);
        wake.notify_one();
    }
    known
}

async fn round(
    directory: &std::path::Path,
    known: BTreeMap<String, Known>,
    writes: usize,
) -> BTreeMap<String, Known> {
    let (mut child, address) = start(directory);
    let (acknowledged, wake) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|share| {
            let mine = known.iter().filter(|(name, _)| {
                name.rsplit('-')
                    .next()
                    .and_then(|it| it.parse::<usize>().ok())
                    .is_some_and(|it| it % CLIENTS == share)
            });
            let mine = mine.map(|(name, it)| (name.clone(), it.clone())).collect();
            tokio::spawn(storm(
                address,
                share,
                mine,
                Arc::clone(&acknowledged),
                Arc::clone(&wake),
            ))
        })
        .collect();
    while acknowledged.load(Ordering::Relaxed) < writes {
        wake.notified().await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut all = BTreeMap::new();
    for client in clients {
        all.extend(client.await.unwrap());
    }
    all
}

/// Returns the texts of all objects of the storm after the server was opened again, and the last revision.
async fn found(directory: &std::path::Path) -> (BTreeMap<String, String>, u64) {
    let (mut child, address) = start(directory);
    let mut client = Client::connect(address).await;
    let (status, list) = client.send("GET", MAPS, None).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pair = |it: &Value| (text(&it["metadata"]["name"]), text(&it["data"]["text"]));
    let found = list["items"].as_array().unwrap().iter().map(pair).collect();
    let revision = text(&list["metadata"]["resourceVersion"]).parse().unwrap();
    watch_over_the_restart(&mut client, revision).await;
    child.kill().unwrap();
    child.wait().unwrap();
    (found, revision)
}

/// A watch from the last revision goes on, one from before is told that it is too old.
async fn watch_over_the_restart(client: &mut Client, revision: u64) {
    let old = format!("{MAPS}?watch=true&resourceVersion=1&timeoutSeconds=1");
    let (status, event) = client.send("GET", &old, None).await.unwrap();
    assert_eq!(
        (status, &event["object"]["code"]),
        (StatusCode::OK, &json!(410)),
        "{event}"
    );
    let new = format!(
        "{MAPS}?watch=true&resourceVersion={revision}&timeoutSeconds=1&allowWatchBookmarks=true"
    );
    let (status, event) = client.send("GET", &new, None).await.unwrap();
    assert_eq!(
        (status, &event["type"]),
        (StatusCode::OK, &json!("BOOKMARK")),
        "{event}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let (mut known, mut last_revision) = (BTreeMap::new(), 0);
    for writes in ROUNDS {
        known = round(directory.path(), known, writes).await;
        let (found, revision) = found(directory.path()).await;
        assert!(
            revision > last_revision,
            "revisions grow: {revision} after {last_revision}"
        );
        last_revision = revision;
        for (name, known) in &mut known {
            let found = found.get(name).cloned();
            let is_fine = found == known.acknowledged || known.pending.as_ref() == Some(&found);
            assert!(is_fine, "{name} is {found:?} and should be {known:?}");
            *known = Known {
                acknowledged: found,
                pending: None,
            };
        }
        assert!(
            found.keys().all(|it| known.contains_key(it)),
            "there is an object that nobody made"
        );
    }
}
