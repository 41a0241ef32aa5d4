//! Namespaces: what each has from the start, and how they end.

use serde_json::{Value, json};
use tracing::warn;

use crate::objects::{Objects, Refused};
use crate::server::ApiServer;

/// Gives live namespaces what each has, and empties those that are being deleted.
pub(super) async fn keep(
    server: &ApiServer,
    objects: &Objects,
    resources: &[String],
    authority: &str,
) {
    for namespace in objects.list("namespaces") {
        let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
        let kept = if namespace["metadata"]["deletionTimestamp"].is_null() {
            furnish(server, objects, name, authority).await
        } else {
            empty(server, objects, name, resources).await
        };
        if let Err(error) = kept {
            warn!(namespace = name, %error, "cannot look after a namespace; will try again with the next change");
        }
    }
}

async fn furnish(
    server: &ApiServer,
    objects: &Objects,
    name: &str,
    authority: &str,
) -> Result<(), Refused> {
    let has = |resource: &str, object: &str| server.store().get(resource, name, object).is_some();
    let base = format!("/api/v1/namespaces/{name}");
    if !has("serviceaccounts", "default") {
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        created(
            objects
                .create(&format!("{base}/serviceaccounts"), &account)
                .await,
        )?;
    }
    if !has("configmaps", "kube-root-ca.crt") {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"},
            "data": {"ca.crt": authority},
        });
        created(objects.create(&format!("{base}/configmaps"), &map).await)?;
    }
    Ok(())
}

/// That it is there already, or that the namespace ends meanwhile, is no error.
fn created(answer: Result<Value, Refused>) -> Result<(), Refused> {
    match answer {
        Err(refused) if !matches!(refused.code, 403 | 404 | 409) => Err(refused),
        _ => Ok(()),
    }
}

/// Deletes what is in a namespace, and then the namespace.
async fn empty(
    server: &ApiServer,
    objects: &Objects,
    name: &str,
    resources: &[String],
) -> Result<(), Refused> {
    let catalog = server.registry().catalog();
    let mut left = 0;
    for resource in catalog.resources.values().filter(|it| it.is_namespaced) {
        let store_name = resource.store_name();
        let stored = server.store().list(&store_name, Some(name)).objects;
        // What nobody follows fades by itself; it must not keep the namespace.
        if resources.contains(&store_name) {
            left += stored.len();
        }
        for object in stored.iter().filter(|it| !it.is_deleting) {
            objects.delete(&resource.path(name, &object.name)).await?;
        }
    }
    if left > 0 {
        return Ok(());
    }
    let path = format!("/api/v1/namespaces/{name}");
    objects
        .merge(&path, &json!({"spec": {"finalizers": null}}))
        .await
        .map(|_| ())
}
