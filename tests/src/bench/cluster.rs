//! What a whole node in one process costs and how fast it is: `ferrovirt up`, instances by the API, the API itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use futures::{StreamExt, pin_mut};
use http::Request;
use kube::api::{Api, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::time::{interval, timeout};

use super::node::proportional_mib;
use super::{BenchError, Goal, LIMIT, Peers, Row};
use crate::single_node::SingleNode;

/// Instances that are created one after the other, at a steady rate.
const INSTANCES: usize = 100;
/// Time between two of them.
const BETWEEN: Duration = Duration::from_millis(100);
/// Clients of the API at the same time, and for how long.
const CLIENTS: usize = 16;
const WINDOW: Duration = Duration::from_secs(5);

/// Measures the node's start and its memory, then one instance.
pub(super) fn one(_: &Peers) -> Result<Vec<Row>, BenchError> {
    let Some(mut node) = SingleNode::new("soft") else {
        return Ok(Vec::new());
    };
    let first = node.start()?.as_secs_f64();
    node.import_demo_images()?;
    let memory = proportional_mib(node.pid())?;
    let mut rows = vec![
        row(
            "ready in an empty folder after, s",
            first,
            Goal::AtMost(2.0),
        ),
        row("memory at rest, MiB", memory, Goal::AtMost(60.0)),
    ];
    let mut launched = Vec::new();
    block_on(async {
        let api = instances(&client(&node).await?);
        for index in 0..3 {
            let times = run_all(&api, &[format!("one{index}")], Duration::ZERO).await?;
            launched.extend(times.into_values());
        }
        Ok(())
    })?;
    launched.sort_unstable();
    rows.push(row(
        "from creation to Running, s",
        launched[1].as_secs_f64(),
        Goal::AtMost(1.5),
    ));
    node.kill()?;
    let again = node.start()?.as_secs_f64();
    rows.push(row(
        "ready again with 3 machines after a kill, s",
        again,
        Goal::AtMost(2.0),
    ));
    Ok(rows)
}

/// Measures a hundred instances that are created at a steady rate.
pub(super) fn many(_: &Peers) -> Result<Vec<Row>, BenchError> {
    let Some(mut node) = SingleNode::new("soft") else {
        return Ok(Vec::new());
    };
    node.start()?;
    node.import_demo_images()?;
    let names: Vec<_> = (0..INSTANCES).map(|index| format!("many{index}")).collect();
    let (mut times, writes) = block_on(async {
        let client = client(&node).await?;
        let before = writes(&client).await?;
        let times = run_all(&instances(&client), &names, BETWEEN).await?;
        let writes = writes(&client).await? - before;
        Ok((times.into_values().collect::<Vec<_>>(), writes))
    })?;
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64();
    let many = |figure: &str, ours, goal| {
        row(
            &format!("{INSTANCES} instances at 10/s: {figure}"),
            ours,
            goal,
        )
    };
    Ok(vec![
        many("creation to Running, median s", at(50), Goal::AtMost(5.0)),
        many("creation to Running, 95 % s", at(95), Goal::AtMost(10.0)),
        many(
            "API writes for each",
            writes / as_f64(INSTANCES),
            Goal::AtMost(6.0),
        ),
        many(
            "memory of the node, MiB",
            proportional_mib(node.pid())?,
            Goal::Printed,
        ),
    ])
}

/// Measures the API alone.
pub(super) fn api(_: &Peers) -> Result<Vec<Row>, BenchError> {
    let Some(mut node) = SingleNode::new("soft") else {
        return Ok(Vec::new());
    };
    node.start()?;
    let (written, read) = block_on(async {
        let clients: Vec<Client> = try_join_all((0..CLIENTS).map(|_| client(&node))).await?;
        let written = rate(
            clients
                .iter()
                .enumerate()
                .map(|(at, client)| create_maps(client, at)),
        )
        .await?;
        let read = rate(clients.iter().map(read_maps)).await?;
        Ok((written, read))
    })?;
    Ok(vec![
        row(
            "API writes/s, 16 clients on loopback",
            written,
            Goal::AtLeast(2000.0),
        ),
        row(
            "API reads/s, 16 clients on loopback",
            read,
            Goal::AtLeast(20000.0),
        ),
    ])
}

fn row(figure: &str, ours: f64, goal: Goal) -> Row {
    Row::alone(&format!("ferrovirt up: {figure}"), ours, goal)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a benchmark are far below 2^52"
)]
fn as_f64(count: usize) -> f64 {
    count as f64
}

fn block_on<T>(work: impl Future<Output = Result<T, BenchError>>) -> Result<T, BenchError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

async fn client(node: &SingleNode) -> Result<Client, BenchError> {
    let wrong = |error: &dyn std::fmt::Display| BenchError::Answer(error.to_string());
    let file = Kubeconfig::read_from(node.kubeconfig()).map_err(|error| wrong(&error))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    Client::try_from(config.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn refused(error: kube::Error) -> BenchError {
    BenchError::Answer(error.to_string())
}

fn instances(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("kubevirt.io", "v1", "VirtualMachineInstance");
    let resource = ApiResource::from_gvk_with_plural(&kind, "virtualmachineinstances");
    Api::namespaced_with(client.clone(), "default", &resource)
}

/// A machine that boots a kernel: Debian's does not fit into 64 MiB, by 4 MiB.
fn instance(name: &str) -> Result<DynamicObject, BenchError> {
    let object = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "domain": {
                "memory": {"guest": "72Mi"},
                "firmware": {"kernelBoot": {
                    "kernelArgs": "console=ttyS0 cryptomgr.notests",
                    "container": {
                        "image": "registry.example/ferrovirt/demo-kernel:latest",
                        "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd",
                    },
                }},
                "devices": {"autoattachPodInterface": false, "autoattachGraphicsDevice": false},
            },
        },
    });
    serde_json::from_value(object).map_err(|error| BenchError::Answer(error.to_string()))
}

/// Creates instances one after the other and returns how long each took until it was running.
async fn run_all(
    api: &Api<DynamicObject>,
    names: &[String],
    between: Duration,
) -> Result<BTreeMap<String, Duration>, BenchError> {
    let events = watcher(api.clone(), watcher::Config::default()).applied_objects();
    pin_mut!(events);
    let mut began = BTreeMap::new();
    let mut took = BTreeMap::new();
    let mut waiting = names.iter();
    let mut ticks = interval(between.max(Duration::from_millis(1)));
    while took.len() < names.len() {
        tokio::select! {
            _ = ticks.tick(), if waiting.len() > 0 => {
                if let Some(name) = waiting.next() {
                    began.insert(name.clone(), Instant::now());
                    api.create(&PostParams::default(), &instance(name)?).await.map_err(refused)?;
                }
            }
            event = timeout(LIMIT, events.next()) => {
                let event = event.map_err(|_| BenchError::Late("instances that run"))?;
                let Some(Ok(object)) = event else { continue };
                let name = object.metadata.name.unwrap_or_default();
                if object.data["status"]["phase"] == "Running" && let Some(began) = began.get(&name) {
                    took.entry(name).or_insert(began.elapsed());
                }
            }
        }
    }
    Ok(took)
}

/// Returns how many writes the API server has answered well.
async fn writes(client: &Client) -> Result<f64, BenchError> {
    let request = Request::get("/metrics").body(Vec::new());
    let request = request.map_err(|error| BenchError::Answer(error.to_string()))?;
    let text = client.request_text(request).await.map_err(refused)?;
    let is_write = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && !line.contains("\"GET\"")
            && line.contains("\"2xx\"")
    };
    let counts = text
        .lines()
        .filter(is_write)
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(counts.sum())
}

/// Sums how many requests clients got answered in a window, per second.
async fn rate(
    clients: impl Iterator<Item = impl Future<Output = Result<usize, BenchError>>>,
) -> Result<f64, BenchError> {
    let began = Instant::now();
    let counts = join_all(clients)
        .await
        .into_iter()
        .sum::<Result<usize, _>>()?;
    Ok(as_f64(counts) / began.elapsed().as_secs_f64())
}

async fn create_maps(client: &Client, at: usize) -> Result<usize, BenchError> {
    let (began, mut done) = (Instant::now(), 0);
    while began.elapsed() < WINDOW {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("map-{at}-{done}")}, "data": {"value": "x".repeat(200)},
        });
        let request = Request::post("/api/v1/namespaces/default/configmaps")
            .header("content-type", "application/json")
            .body(map.to_string().into_bytes());
        let request = request.map_err(|error| BenchError::Answer(error.to_string()))?;
        let _made: Value = client.request(request).await.map_err(refused)?;
        done += 1;
    }
    Ok(done)
}

async fn read_maps(client: &Client) -> Result<usize, BenchError> {
    let (began, mut done) = (Instant::now(), 0);
    while began.elapsed() < WINDOW {
        let request =
            Request::get("/api/v1/namespaces/default/configmaps/map-0-0").body(Vec::new());
        let request = request.map_err(|error| BenchError::Answer(error.to_string()))?;
        client.request_text(request).await.map_err(refused)?;
        done += 1;
    }
    Ok(done)
}
