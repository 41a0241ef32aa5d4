//! Objects at the API server, as JSON.

use std::time::Duration;

use api::error_chain::chain;
use http::{Method, Request, StatusCode, header};
use json_patch::Patch;
use kube::Client;
use serde_json::Value;
use tokio::time::timeout;

use super::answer::Refusal;

/// Time for an answer of the API server; admission by webhooks takes up to 10 s.
const ANSWER: Duration = Duration::from_secs(20);
/// Longest name of an object or namespace that is asked for (RFC 1123 subdomain).
const NAME_LEN_MAX: usize = 253;

/// Kinds of objects that are read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `VirtualMachine`.
    Machine,
    /// `VirtualMachineInstance`.
    Instance,
    /// `VirtualMachineInstanceMigration`.
    Migration,
    /// `VirtualMachineInstancePreset`.
    Preset,
    /// `VirtualMachineInstanceReplicaSet`.
    ReplicaSet,
    /// `KubeVirt`.
    KubeVirt,
    /// `Pod`.
    Pod,
    /// `ConfigMap`.
    ConfigMap,
    /// `SubjectAccessReview`.
    AccessReview,
}

impl Kind {
    /// Group, version, plural and the word in messages.
    const fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        const KUBEVIRT: &str = "kubevirt.io";
        match self {
            Self::Machine => (KUBEVIRT, "v1", "virtualmachines", "virtualmachine"),
            Self::Instance => (
                KUBEVIRT,
                "v1",
                "virtualmachineinstances",
                "virtualmachineinstance",
            ),
            Self::Migration => (
                KUBEVIRT,
                "v1",
                "virtualmachineinstancemigrations",
                "virtualmachineinstancemigration",
            ),
            Self::Preset => (
                KUBEVIRT,
                "v1",
                "virtualmachineinstancepresets",
                "virtualmachineinstancepreset",
            ),
            Self::ReplicaSet => (
                KUBEVIRT,
                "v1",
                "virtualmachineinstancereplicasets",
                "virtualmachineinstancereplicaset",
            ),
            Self::KubeVirt => (KUBEVIRT, "v1", "kubevirts", "kubevirt"),
            Self::Pod => ("", "v1", "pods", "pod"),
            Self::ConfigMap => ("", "v1", "configmaps", "configmap"),
            Self::AccessReview => (
                "authorization.k8s.io",
                "v1",
                "subjectaccessreviews",
                "subjectaccessreview",
            ),
        }
    }

    /// Returns the API group; empty for the core group.
    pub(crate) fn group(self) -> &'static str {
        self.names().0
    }

    /// Returns the word in messages.
    pub(crate) fn singular(self) -> &'static str {
        self.names().3
    }

    /// Returns the word in messages with the group.
    pub(crate) fn qualified(self) -> String {
        match self.group() {
            "" => self.singular().to_owned(),
            group => format!("{}.{group}", self.singular()),
        }
    }

    fn path(self, namespace: &str) -> String {
        let (group, version, plural, _) = self.names();
        let root = match group {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        match namespace {
            "" => format!("{root}/{plural}"),
            namespace => format!("{root}/namespaces/{namespace}/{plural}"),
        }
    }
}

/// One object; the namespace is empty where the kind has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectName {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl ObjectName {
    pub(crate) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn path(&self, part: &str) -> Result<String, Refusal> {
        for text in [&self.namespace, &self.name] {
            check_name(text)?;
        }
        let object = format!("{}/{}", self.kind.path(&self.namespace), self.name);
        Ok(match part {
            "" => object,
            part => format!("{object}/{part}"),
        })
    }
}

/// Refuses what would make another path of a path.
fn check_name(name: &str) -> Result<(), Refusal> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':');
    if name.len() <= NAME_LEN_MAX && name.bytes().all(is_fine) && !name.starts_with('.') {
        return Ok(());
    }
    let mut name = name.to_owned();
    name.truncate(name.floor_char_boundary(NAME_LEN_MAX));
    Err(Refusal::bad_request(format!(
        "{name:?} is no name of an object: it has lower-case letters, digits, '-' and '.'"
    )))
}

/// The objects of a cluster.
#[derive(Clone)]
pub(crate) struct Objects {
    client: Client,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").finish_non_exhaustive()
    }
}

impl Objects {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Reads an object.
    pub(crate) async fn get(&self, object: &ObjectName) -> Result<Value, Refusal> {
        match self.find(object).await? {
            Some(found) => Ok(found),
            None => Err(Refusal::not_found(object.kind, &object.name)),
        }
    }

    /// Reads an object; `None` when there is none.
    pub(crate) async fn find(&self, object: &ObjectName) -> Result<Option<Value>, Refusal> {
        match self.ask(Method::GET, object.path("")?, "", None).await {
            Ok(found) => Ok(Some(found)),
            Err(refusal) if refusal.is_not_found() => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Reads objects of a kind; all namespaces' when `namespace` is empty. `query` is put behind the path.
    pub(crate) async fn list(
        &self,
        kind: Kind,
        namespace: &str,
        query: &str,
    ) -> Result<Vec<Value>, Refusal> {
        check_name(namespace)?;
        let path = format!("{}?{query}", kind.path(namespace));
        let mut list = self.ask(Method::GET, path, "", None).await?;
        Ok(match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        })
    }

    /// Creates an object.
    pub(crate) async fn create(
        &self,
        kind: Kind,
        namespace: &str,
        object: &Value,
        is_dry: bool,
    ) -> Result<Value, Refusal> {
        check_name(namespace)?;
        let path = format!("{}?{}", kind.path(namespace), query(is_dry));
        self.ask(Method::POST, path, "application/json", Some(object))
            .await
    }

    /// Patches an object, or the `part` of it that is written by itself.
    pub(crate) async fn patch(
        &self,
        object: &ObjectName,
        part: &str,
        patch: &Patch,
        is_dry: bool,
    ) -> Result<Value, Refusal> {
        let path = format!("{}?{}", object.path(part)?, query(is_dry));
        let patch = serde_json::to_value(patch).unwrap_or_default();
        let kind = "application/json-patch+json";
        self.ask(Method::PATCH, path, kind, Some(&patch)).await
    }

    async fn ask(
        &self,
        method: Method,
        path: String,
        content: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refusal> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, content);
        }
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let request = request.body(body);
        let request = request.map_err(|error| Refusal::bad_request(error.to_string()))?;
        match timeout(ANSWER, Box::pin(self.client.request::<Value>(request))).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(Refusal::of_api_server(status)),
            Ok(Err(error)) => Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the API server is not reached: {}", chain(&error)),
            )),
            Err(_) => Err(Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "the API server gave no answer within {} s",
                    ANSWER.as_secs()
                ),
            )),
        }
    }
}

fn query(is_dry: bool) -> &'static str {
    if is_dry {
        "fieldManager=virt-api&dryRun=All"
    } else {
        "fieldManager=virt-api"
    }
}

/// Returns the text at a path of an object, such as `/status/phase`; empty when there is none.
pub(crate) fn text<'o>(object: &'o Value, pointer: &str) -> &'o str {
    let found = object.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default()
}

/// Returns the status of a condition of an object; `None` when it has no such condition.
pub(crate) fn condition<'o>(object: &'o Value, kind: &str) -> Option<&'o str> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|one| one["type"] == kind)?;
    Some(found["status"].as_str().unwrap_or_default())
}
