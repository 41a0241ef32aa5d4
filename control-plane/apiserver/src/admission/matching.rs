//! Which webhooks want to know of an operation.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::Operation;

/// Longest time that a webhook may take, and the time of one that does not say.
const SECONDS: (u64, u64) = (30, 10);

/// A webhook.
#[derive(Clone, Debug)]
pub(super) struct Webhook {
    pub(super) name: String,
    pub(super) client: Client,
    /// Whether the operation goes on when the webhook cannot be asked.
    pub(super) may_fail: bool,
    pub(super) patience: Duration,
    rules: Vec<Rule>,
    has_side_effects: bool,
    namespaces: Selector,
    objects: Selector,
}

/// How a webhook is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Client {
    pub(super) url: Option<String>,
    pub(super) service: Option<Service>,
    pub(super) ca_bundle: String,
}

/// A service with the path of a webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Service {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) path: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    operations: Vec<String>,
    api_groups: Vec<String>,
    api_versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
}

/// `metav1.LabelSelector`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Expression {
    key: String,
    operator: String,
    values: Vec<String>,
}

/// Operations on webhooks themselves are never asked about: a broken one could not be mended.
pub(super) fn is_exempt(operation: &Operation<'_>) -> bool {
    operation.group == "admissionregistration.k8s.io"
}

/// Reads the webhooks of a configuration; parts that cannot be read match nothing.
pub(super) fn webhooks(configuration: &Value) -> Vec<Webhook> {
    let listed = configuration["webhooks"].as_array();
    listed.into_iter().flatten().map(webhook).collect()
}

fn webhook(it: &Value) -> Webhook {
    let seconds = it["timeoutSeconds"].as_u64().unwrap_or(SECONDS.1);
    let effects = it["sideEffects"].as_str().unwrap_or("None");
    Webhook {
        name: it["name"].as_str().unwrap_or_default().to_owned(),
        client: Client::deserialize(&it["clientConfig"]).unwrap_or_default(),
        may_fail: it["failurePolicy"] == "Ignore",
        patience: Duration::from_secs(seconds.clamp(1, SECONDS.0)),
        rules: Vec::deserialize(&it["rules"]).unwrap_or_default(),
        has_side_effects: !matches!(effects, "None" | "NoneOnDryRun"),
        namespaces: Selector::deserialize(&it["namespaceSelector"]).unwrap_or_default(),
        objects: Selector::deserialize(&it["objectSelector"]).unwrap_or_default(),
    }
}

impl Webhook {
    pub(super) fn wants(
        &self,
        operation: &Operation<'_>,
        namespace: &BTreeMap<String, String>,
        object: &Value,
        old: &Value,
    ) -> bool {
        let is_in_namespace = !operation.namespace.is_empty();
        self.rules.iter().any(|it| it.covers(operation))
            && !(operation.is_dry_run && self.has_side_effects)
            && (!is_in_namespace || self.namespaces.selects(namespace))
            && (self.objects.selects(&labels(object)) || self.objects.selects(&labels(old)))
    }
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    BTreeMap::deserialize(&object["metadata"]["labels"]).unwrap_or_default()
}

impl Rule {
    fn covers(&self, operation: &Operation<'_>) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|it| it == "*" || it == value);
        let is_scoped = match self.scope.as_str() {
            "Namespaced" => !operation.namespace.is_empty(),
            "Cluster" => operation.namespace.is_empty(),
            _ => true,
        };
        is_scoped
            && has(&self.operations, operation.verb)
            && has(&self.api_groups, operation.group)
            && has(&self.api_versions, operation.version)
            && self.resources.iter().any(|it| is_resource(it, operation))
    }
}

/// `*` is every resource without its parts, `pods/*` every part of pods, `*/*` everything.
fn is_resource(pattern: &str, operation: &Operation<'_>) -> bool {
    let fits = |pattern: &str, value: &str| pattern == "*" || pattern == value;
    match pattern.split_once('/') {
        Some((resource, part)) => {
            fits(resource, operation.resource) && (part == "*" || part == operation.subresource)
        }
        None => fits(pattern, operation.resource) && operation.subresource.is_empty(),
    }
}

impl Selector {
    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let has_label = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        self.match_labels.iter().all(has_label)
            && self.match_expressions.iter().all(|it| it.selects(labels))
    }
}

impl Expression {
    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let is_listed = value.is_some_and(|it| self.values.contains(it));
        match self.operator.as_str() {
            "In" => is_listed,
            "NotIn" => !is_listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}
