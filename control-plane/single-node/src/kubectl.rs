//! What of kubectl is needed to use a node where there is no kubectl: apply, get, delete.

mod kinds;
mod table;

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use http::{Method, Request, StatusCode};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use self::kinds::{Kind, Kinds};
use crate::cli::StateArgs;
use crate::state::State;

/// Who writes fields, for server-side apply.
const MANAGER: &str = "ferrovirt-apply";
/// Longest manifest that is read, bytes.
const MANIFEST_LEN_MAX: u64 = 8 << 20;
/// Tables instead of objects, as the API server makes them.
const AS_TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Which objects.
#[derive(Clone, Debug, Args)]
pub struct Scope {
    /// Where the node's state is
    #[command(flatten)]
    pub state: StateArgs,

    /// Configuration of the client [default: $KUBECONFIG, or that of the state folder]
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    pub namespace: String,
}

/// Creates objects or changes them.
#[derive(Clone, Debug, Args)]
pub struct ApplyArgs {
    /// Which objects
    #[command(flatten)]
    pub scope: Scope,

    /// Manifests, YAML or JSON; - for standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

/// Shows objects.
#[derive(Clone, Debug, Args)]
pub struct GetArgs {
    /// Which objects
    #[command(flatten)]
    pub scope: Scope,

    /// Kind of the objects: vm, vmi, pods, ..., with the name after a slash or a space
    #[arg(value_name = "KIND")]
    pub kind: String,

    /// Name of one object
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// How they are shown
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// How objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line each
    Table,
    /// A longer line each
    Wide,
    /// All fields
    Json,
    /// Kind and name
    Name,
}

/// Deletes objects.
#[derive(Clone, Debug, Args)]
pub struct DeleteArgs {
    /// Which objects
    #[command(flatten)]
    pub scope: Scope,

    /// Kind of the object
    #[arg(value_name = "KIND", required_unless_present = "files")]
    pub kind: Option<String>,

    /// Names of the objects
    #[arg(value_name = "NAME", required_unless_present = "files")]
    pub names: Vec<String>,

    /// Manifests of the objects; - for standard input
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with_all = ["kind", "names"])]
    pub files: Vec<PathBuf>,
}

/// Runs `ferrovirt apply`. Blocks.
///
/// # Errors
///
/// Fails with the first object that is refused.
pub fn apply(args: &ApplyArgs) -> anyhow::Result<()> {
    let objects = manifests(&args.files)?;
    block_on(async {
        let api = Api::new(&args.scope).await?;
        for object in &objects {
            let (kind, path, name) = api.place(object, &args.scope.namespace)?;
            let target = format!("{path}/{name}?fieldManager={MANAGER}&force=true");
            let (status, _) = api
                .send(
                    Method::PATCH,
                    &target,
                    "application/apply-patch+yaml",
                    "",
                    Some(object),
                )
                .await?;
            let done = if status == StatusCode::CREATED {
                "created"
            } else {
                "configured"
            };
            print(&format!("{}/{name} {done}", kind.full_name()))?;
        }
        Ok(())
    })
}

/// Runs `ferrovirt get`. Blocks.
///
/// # Errors
///
/// Fails when there is no such kind or object.
pub fn get(args: &GetArgs) -> anyhow::Result<()> {
    let (kind, name) = match args.kind.split_once('/') {
        Some((kind, name)) => (kind, Some(name)),
        None => (args.kind.as_str(), args.name.as_deref()),
    };
    block_on(async {
        let api = Api::new(&args.scope).await?;
        let kind = api.kinds.named(kind)?;
        let namespace = (!args.all_namespaces).then_some(args.scope.namespace.as_str());
        let mut path = kind.path(namespace);
        if let Some(name) = name {
            path = format!("{path}/{name}");
        }
        let is_table = matches!(args.output, Format::Table | Format::Wide);
        let accept = if is_table { AS_TABLE } else { "" };
        let (_, answer) = api.send(Method::GET, &path, "", accept, None).await?;
        match args.output {
            Format::Json => print(&serde_json::to_string_pretty(&answer)?),
            Format::Name => print(&names(kind, &answer).join("\n")),
            Format::Table | Format::Wide => {
                let with_namespace = args.all_namespaces && kind.is_namespaced;
                let text = table::text(&answer, args.output == Format::Wide, with_namespace);
                print(&text.unwrap_or_else(|| "No resources found".to_owned()))
            }
        }
    })
}

/// Runs `ferrovirt delete`. Blocks.
///
/// # Errors
///
/// Fails with the first object that cannot be deleted.
pub fn delete(args: &DeleteArgs) -> anyhow::Result<()> {
    let objects = manifests(&args.files)?;
    block_on(async {
        let api = Api::new(&args.scope).await?;
        let mut wanted = Vec::new();
        for object in &objects {
            wanted.push(api.place(object, &args.scope.namespace)?);
        }
        if let Some(kind) = &args.kind {
            let kind = api.kinds.named(kind)?;
            let path = kind.path(Some(&args.scope.namespace));
            wanted.extend(
                args.names
                    .iter()
                    .map(|name| (kind, path.clone(), name.clone())),
            );
        }
        for (kind, path, name) in wanted {
            api.send(Method::DELETE, &format!("{path}/{name}"), "", "", None)
                .await?;
            print(&format!("{} \"{name}\" deleted", kind.full_name()))?;
        }
        Ok(())
    })
}

/// Tells how many machines a node has, and how they are. Blocks.
///
/// # Errors
///
/// Fails when the node does not answer.
pub(crate) fn summary(state: &State, out: &mut impl Write) -> anyhow::Result<()> {
    let scope = Scope {
        state: StateArgs {
            state_dir: Some(state.path().to_path_buf()),
        },
        kubeconfig: Some(state.kubeconfig()),
        namespace: "default".to_owned(),
    };
    let lists = block_on(async {
        let api = Api::new(&scope).await?;
        let mut lists = Vec::new();
        for kind in [
            "virtualmachines.kubevirt.io",
            "virtualmachineinstances.kubevirt.io",
            "pods",
        ] {
            let path = api.kinds.named(kind)?.path(None);
            lists.push(api.send(Method::GET, &path, "", "", None).await?.1);
        }
        Ok(lists)
    })?;
    for (title, list, field) in [
        ("machines", &lists[0], "printableStatus"),
        ("instances", &lists[1], "phase"),
        ("pods", &lists[2], "phase"),
    ] {
        writeln!(out, "{title:<12}{}", counts(list, field))?;
    }
    Ok(())
}

fn counts(list: &Value, field: &str) -> String {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for object in list["items"].as_array().into_iter().flatten() {
        *counts
            .entry(object["status"][field].as_str().unwrap_or("Unknown"))
            .or_default() += 1;
    }
    let each: Vec<_> = counts
        .iter()
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    if each.is_empty() {
        "none".to_owned()
    } else {
        each.join(", ")
    }
}

fn names(kind: &Kind, answer: &Value) -> Vec<String> {
    let one = std::slice::from_ref(answer);
    let all = answer["items"].as_array().map_or(one, Vec::as_slice);
    let names = all.iter().filter_map(|it| it["metadata"]["name"].as_str());
    names
        .map(|name| format!("{}/{name}", kind.full_name()))
        .collect()
}

fn manifests(files: &[PathBuf]) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    for file in files {
        let mut text = String::new();
        let read = if file.as_os_str() == "-" {
            std::io::stdin()
                .lock()
                .take(MANIFEST_LEN_MAX)
                .read_to_string(&mut text)
        } else {
            std::fs::File::open(file)
                .and_then(|it| it.take(MANIFEST_LEN_MAX).read_to_string(&mut text))
        };
        read.with_context(|| format!("read {}", file.display()))?;
        for object in api::manifest::documents(&text).with_context(|| file.display().to_string())? {
            match object["items"].as_array() {
                Some(items) if object["kind"] == "List" => objects.extend(items.iter().cloned()),
                _ => objects.push(object),
            }
        }
    }
    Ok(objects)
}

fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("write to standard output")
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.context("start the runtime")?.block_on(work)
}

/// The API server with the kinds that it has.
struct Api {
    client: Client,
    kinds: Kinds,
}

impl Api {
    async fn new(scope: &Scope) -> anyhow::Result<Self> {
        let own = scope.state.state().kubeconfig();
        let path = scope.kubeconfig.clone().unwrap_or(own);
        let file = Kubeconfig::read_from(&path).with_context(|| {
            format!(
                "read {}: start the node with `ferrovirt up`, or name a file with --kubeconfig",
                path.display()
            )
        })?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.context("kubeconfig")?).context("kubeconfig")?;
        let mut api = Self {
            client,
            kinds: Kinds::default(),
        };
        api.kinds = kinds::discover(&api).await?;
        Ok(api)
    }

    /// Returns kind, collection and name of a manifest's object.
    fn place(&self, object: &Value, namespace: &str) -> anyhow::Result<(&Kind, String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let Some(found) = self.kinds.of_object(&version, &kind) else {
            bail!("no matches for kind {kind:?} in version {version:?}");
        };
        let own = object["metadata"]["namespace"].as_str();
        let name = text(&object["metadata"]["name"]);
        if name.is_empty() {
            bail!("metadata.name: required in every object of a manifest ({kind})");
        }
        Ok((found, found.path(Some(own.unwrap_or(namespace))), name))
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        content: &str,
        accept: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = Request::builder().method(method).uri(target);
        if !content.is_empty() {
            request = request.header("content-type", content);
        }
        let accept = if accept.is_empty() {
            "application/json"
        } else {
            accept
        };
        let body = body.map_or_else(Vec::new, |it| it.to_string().into_bytes());
        let request = request
            .header("accept", accept)
            .body(kube::client::Body::from(body))?;
        let response = self
            .client
            .send(request)
            .await
            .context("reach the API server")?;
        let status = response.status();
        let bytes = http_body_util::BodyExt::collect(response.into_body())
            .await?
            .to_bytes();
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if !status.is_success() {
            bail!(
                "Error from server ({}): {}",
                answer["reason"].as_str().unwrap_or("Unknown"),
                answer["message"]
                    .as_str()
                    .unwrap_or_else(|| status.as_str())
            );
        }
        Ok((status, answer))
    }
}
