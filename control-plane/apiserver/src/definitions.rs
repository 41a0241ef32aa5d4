//! Custom resource definitions put kinds into the catalog.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::catalog::{self, Catalog, Registry};
use crate::objects::{Objects, Refused};
use crate::store::{Derived, Expect, Key, Store};

/// Definitions in the store.
pub(crate) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Keeps a registry as definitions say.
#[derive(Debug)]
pub(crate) struct Definitions {
    built_in: Catalog,
    /// That the registry follows them.
    followed: Derived<(), 1>,
}

impl Definitions {
    pub(crate) fn new(built_in: Catalog) -> Self {
        Self {
            built_in,
            followed: Derived::new([DEFINITIONS]),
        }
    }

    /// Brings the registry up to date, if a definition came, changed or went.
    pub(crate) fn refresh(&self, store: &Store, registry: &Registry) {
        self.followed.get(store, |[definitions]| {
            registry.replace(self.catalog(&definitions));
        });
    }

    fn catalog(&self, definitions: &[Value]) -> Catalog {
        let mut catalog = self.built_in.clone();
        let made = definitions.iter().filter_map(catalog::custom_stored);
        for resource in made {
            let key = (resource.group.clone(), resource.plural.clone());
            // The one that was there first keeps the name.
            catalog
                .resources
                .entry(key)
                .or_insert_with(|| resource.into());
        }
        catalog
    }
}

/// Writes the status of definitions that lack it, and removes objects whose definition is gone.
pub(crate) async fn keep(store: &Store, registry: &Registry, objects: &Objects) {
    let catalog = registry.catalog();
    for definition in objects.list(DEFINITIONS) {
        if let Err(error) = tell(&catalog, objects, &definition).await {
            let name = definition["metadata"]["name"].as_str().unwrap_or_default();
            tracing::warn!(name, %error, "cannot write the status of a definition");
        }
    }
    let is_known = |name: &str| catalog.resources.values().any(|it| it.store_name() == name);
    for (resource, _) in store.resources() {
        if !is_known(&resource) {
            sweep(store, &resource).await;
        }
    }
}

async fn tell(catalog: &Catalog, objects: &Objects, definition: &Value) -> Result<(), Refused> {
    let status = catalog::crd_status(definition, catalog, Timestamp::now());
    let is_told = catalog::is_established(definition)
        && definition["status"]["storedVersions"] == status["storedVersions"]
        && definition["status"]["acceptedNames"] == status["acceptedNames"];
    let is_refused = status == definition["status"];
    if is_told || is_refused {
        return Ok(());
    }
    let name = definition["metadata"]["name"].as_str().unwrap_or_default();
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}/status");
    objects
        .merge(&path, &json!({"status": status}))
        .await
        .map(|_| ())
}

/// Removes all objects of a resource.
async fn sweep(store: &Store, resource: &str) {
    for object in store.list(resource, None).objects {
        let key = Key {
            resource: resource.into(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        };
        if let Err(error) = store.delete(key, Expect::Revision(object.revision)).await {
            tracing::warn!(resource, name = object.name, %error, "cannot remove an object whose kind is gone");
        }
    }
}
