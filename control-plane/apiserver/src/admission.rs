//! Admission: webhooks change and refuse what is about to be written (`admissionregistration.k8s.io/v1`).

mod matching;
mod webhook;

use serde_json::{Value, json};

use self::matching::Webhook;
use crate::access::User;
use crate::access::reviews::user_info;
use crate::failure::Failure;
use crate::patch;
use crate::proxy::LocalServices;
use crate::store::{Derived, Store};

/// What is about to be done.
#[derive(Clone, Debug)]
pub struct Operation<'o> {
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub verb: &'static str,
    /// API group of the request.
    pub group: &'o str,
    /// Version of the request.
    pub version: &'o str,
    /// Resource.
    pub resource: &'o str,
    /// Part of the object, `status`.
    pub subresource: &'o str,
    /// Kind of the resource.
    pub kind: &'o str,
    /// Kind of the object in the request with its group and version, where that is another: `Eviction` of `policy/v1`.
    pub object_kind: Option<(&'o str, &'o str, &'o str)>,
    /// Namespace, empty for what is in none.
    pub namespace: &'o str,
    /// Name, empty while it is not known.
    pub name: &'o str,
    /// Who asks.
    pub user: &'o User,
    /// Whether nothing is to be written.
    pub is_dry_run: bool,
    /// `CreateOptions`, `UpdateOptions`, …
    pub options: Value,
}

/// What admission leaves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admitted {
    /// The object; `null` for a deletion.
    pub object: Value,
    /// What the client should be told.
    pub warnings: Vec<String>,
}

/// Asks webhooks.
#[derive(Debug)]
pub struct Admission {
    store: Store,
    services: LocalServices,
    mutating: Derived<Vec<Webhook>, 1>,
    validating: Derived<Vec<Webhook>, 1>,
}

impl Admission {
    /// Returns an admission with the webhooks that the store has; those of services in this process are called here.
    #[must_use]
    pub fn new(store: Store, services: LocalServices) -> Self {
        Self {
            store,
            services,
            mutating: Derived::new(["mutatingwebhookconfigurations.admissionregistration.k8s.io"]),
            validating: Derived::new([
                "validatingwebhookconfigurations.admissionregistration.k8s.io",
            ]),
        }
    }

    /// Lets webhooks change an object.
    ///
    /// # Errors
    ///
    /// What a webhook says when it refuses; 500 when it cannot be asked and its failure policy is `Fail`.
    pub async fn mutate(
        &self,
        operation: &Operation<'_>,
        object: Value,
        old: &Value,
    ) -> Result<Admitted, Failure> {
        let mut admitted = Admitted {
            object,
            warnings: Vec::new(),
        };
        for webhook in self.wanted(&self.mutating, operation, &admitted.object, old) {
            let answer = self.ask(&webhook, operation, &admitted.object, old).await?;
            admitted.warnings.extend(answer.warnings);
            if let Some(change) = answer.patch {
                admitted.object = patch::json(&admitted.object, &change).map_err(|error| {
                    let message = format!("the patch of webhook \"{}\": {error}", webhook.name);
                    Failure::new(500, "InternalError", message)
                })?;
            }
        }
        Ok(admitted)
    }

    /// Lets webhooks refuse an operation; returns what they warn of.
    ///
    /// # Errors
    ///
    /// As [`Admission::mutate`].
    pub async fn validate(
        &self,
        operation: &Operation<'_>,
        object: &Value,
        old: &Value,
    ) -> Result<Vec<String>, Failure> {
        let mut warnings = Vec::new();
        for webhook in self.wanted(&self.validating, operation, object, old) {
            let answer = self.ask(&webhook, operation, object, old).await?;
            warnings.extend(answer.warnings);
        }
        Ok(warnings)
    }

    fn wanted(
        &self,
        configured: &Derived<Vec<Webhook>, 1>,
        operation: &Operation<'_>,
        object: &Value,
        old: &Value,
    ) -> Vec<Webhook> {
        let webhooks = configured.get(&self.store, |[configurations]| {
            configurations.iter().flat_map(matching::webhooks).collect()
        });
        if webhooks.is_empty() || matching::is_exempt(operation) {
            return Vec::new();
        }
        let labels = |namespace: &str| {
            let found = self.store.get("namespaces", "", namespace);
            found.map(|it| it.labels.clone()).unwrap_or_default()
        };
        let namespace = labels(operation.namespace);
        let wanted = webhooks
            .iter()
            .filter(|it| it.wants(operation, &namespace, object, old));
        wanted.cloned().collect()
    }

    async fn ask(
        &self,
        webhook: &Webhook,
        operation: &Operation<'_>,
        object: &Value,
        old: &Value,
    ) -> Result<webhook::Answer, Failure> {
        let question = question(operation, object, old);
        match webhook::ask(webhook, &self.services, &question).await {
            Ok(answer) => Ok(answer),
            Err(webhook::Refusal::Denied(failure)) => Err(failure),
            Err(webhook::Refusal::Unreachable(why)) if webhook.may_fail => {
                tracing::warn!(
                    webhook = webhook.name,
                    error = why,
                    "cannot ask a webhook; going on without"
                );
                Ok(webhook::Answer::default())
            }
            Err(webhook::Refusal::Unreachable(why)) => {
                let name = &webhook.name;
                let message =
                    format!("Internal error occurred: failed calling webhook \"{name}\": {why}");
                Err(Failure::new(500, "InternalError", message))
            }
        }
    }
}

fn question(operation: &Operation<'_>, object: &Value, old: &Value) -> Value {
    let (group, version) = (operation.group, operation.version);
    let (kind_group, kind_version, kind) =
        operation
            .object_kind
            .unwrap_or((group, version, operation.kind));
    let kind = json!({"group": kind_group, "version": kind_version, "kind": kind});
    let resource = json!({"group": group, "version": version, "resource": operation.resource});
    let mut request = json!({
        "uid": uuid::Uuid::from_u128(random()).to_string(),
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "name": operation.name,
        "operation": operation.verb,
        "userInfo": user_info(operation.user),
        "object": object,
        "oldObject": old,
        "dryRun": operation.is_dry_run,
        "options": operation.options,
    });
    if !operation.namespace.is_empty() {
        request["namespace"] = json!(operation.namespace);
    }
    if !operation.subresource.is_empty() {
        request["subResource"] = json!(operation.subresource);
        request["requestSubResource"] = json!(operation.subresource);
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
}

/// Returns a number that an answer must repeat; where there is no randomness the clock must do.
fn random() -> u128 {
    let mut bytes = [0; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u128::from_le_bytes(bytes),
        Err(_) => jiff::Timestamp::now().as_nanosecond().unsigned_abs(),
    }
}

#[cfg(test)]
mod tests;
