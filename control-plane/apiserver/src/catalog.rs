//! What kinds there are, as data.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

mod built_in;
mod crd_status;
mod custom;
mod defaults;
mod lazy;
mod native;
mod validation;

pub use built_in::built_in;
pub use crd_status::crd_status;
pub(crate) use custom::priority as version_priority;
pub use custom::{custom, custom_stored, is_established};
pub use defaults::default_builtin;
pub use lazy::LazySchema;
pub(crate) use lazy::Source;
pub(crate) use native::{DEFINITIONS, OBJECT_META, definitions, object_meta_type};
pub use validation::validate_builtin;

/// A resource: a collection of objects of one kind, in one or several versions.
#[derive(Clone, Debug)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: String,
    /// Name in paths, `virtualmachines`.
    pub plural: String,
    /// Name of one, `virtualmachine`.
    pub singular: String,
    /// `VirtualMachine`.
    pub kind: String,
    /// `VirtualMachineList`.
    pub list_kind: String,
    /// Short names, `vm`.
    pub short_names: Vec<String>,
    /// Categories, `all`.
    pub categories: Vec<String>,
    /// Whether its objects are in namespaces.
    pub is_namespaced: bool,
    /// What requests may do with it; `["create"]` alone marks a kind that is answered and never stored, such as
    /// `TokenReview`.
    pub verbs: &'static [&'static str],
    /// What there is below an object, besides `status` and `scale`, which versions say.
    pub subresources: Vec<Subresource>,
    /// Whether a custom resource definition made it.
    pub is_custom: bool,
    /// Its versions, the preferred one first. All have the same objects and differ in `apiVersion` alone.
    pub versions: Vec<Version>,
}

/// A version of a resource.
#[derive(Clone, Debug)]
pub struct Version {
    /// `v1`.
    pub name: String,
    /// Whether requests may name it.
    pub is_served: bool,
    /// Whether objects are stored in it; one version is.
    pub is_storage: bool,
    /// Warning that every request with it is answered, where it is deprecated.
    pub deprecation: Option<String>,
    /// What an object may look like; made when it is first needed, and used as a `&Schema`.
    pub schema: LazySchema,
    /// Columns of the table beside `Name`.
    pub columns: Vec<Column>,
    /// Whether there is `/status`, which alone writes `.status`.
    pub has_status: bool,
    /// Where `/scale` finds its numbers.
    pub scale: Option<ScalePaths>,
}

/// Something below an object that is no object: `pods/log`, `pods/eviction`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// `eviction`.
    pub name: &'static str,
    /// Group of what is sent to it, empty for the core group.
    pub group: &'static str,
    /// Version of what is sent to it.
    pub version: &'static str,
    /// Kind of what is sent to it: `Eviction`.
    pub kind: &'static str,
    /// What requests may do with it.
    pub verbs: &'static [&'static str],
}

/// A column of a table (`additionalPrinterColumns`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `boolean`, `date`, `number`.
    pub kind: String,
    /// `name`, `date-time`, or empty.
    pub format: String,
    /// Sentence about it.
    pub description: String,
    /// Columns above 0 are shown by `-o wide` alone.
    pub priority: i32,
    /// Where its value is: JSON path `.status.phase`, or for built-in kinds a name that `table` computes.
    pub path: String,
}

/// Where `/scale` finds its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// `.spec.replicas`.
    pub spec_replicas: String,
    /// `.status.replicas`.
    pub status_replicas: String,
    /// `.status.labelSelector`.
    pub label_selector: Option<String>,
}

/// All resources at one time, by group and plural.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The resources.
    pub resources: BTreeMap<(String, String), Arc<Resource>>,
}

impl Catalog {
    /// Returns a resource.
    #[must_use]
    pub fn get(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&(group.to_owned(), plural.to_owned()))
    }

    /// Returns the resource of a kind.
    #[must_use]
    pub fn of_kind(&self, group: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.resources
            .values()
            .find(|it| it.group == group && it.kind == kind)
    }
}

impl Resource {
    /// Returns a version that is served.
    #[must_use]
    pub fn served(&self, version: &str) -> Option<&Version> {
        self.versions
            .iter()
            .find(|it| it.is_served && it.name == version)
    }

    /// Returns the version that objects are stored in.
    ///
    /// # Panics
    ///
    /// When the resource has none, which whoever makes one excludes.
    #[must_use]
    pub fn storage(&self) -> &Version {
        let found = self.versions.iter().find(|it| it.is_storage);
        found.expect("a resource has a version that is stored")
    }

    /// Whether its objects are stored; reviews are answered only.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.verbs.contains(&"get")
    }

    /// Returns its name in the store: `virtualmachines.kubevirt.io`, `pods`.
    #[must_use]
    pub fn store_name(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// Returns the path of one of its objects, in the version that is stored.
    #[must_use]
    pub fn path(&self, namespace: &str, name: &str) -> String {
        let version = &self.storage().name;
        let base = if self.group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{}/{version}", self.group)
        };
        if namespace.is_empty() || !self.is_namespaced {
            format!("{base}/{}/{name}", self.plural)
        } else {
            format!("{base}/namespaces/{namespace}/{}/{name}", self.plural)
        }
    }
}

/// The catalog that is in force, shared by all requests.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    catalog: Arc<RwLock<Arc<Catalog>>>,
}

impl Registry {
    /// Returns a registry that begins with a catalog.
    #[must_use]
    pub fn new(catalog: Catalog) -> Self {
        let registry = Self::default();
        registry.replace(catalog);
        registry
    }

    /// Returns the catalog in force.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&catalog)
    }

    /// Puts another catalog in force.
    pub fn replace(&self, catalog: Catalog) {
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalog);
    }
}
