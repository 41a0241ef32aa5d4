//! The definitions of our kinds for API servers (`apiextensions.k8s.io/v1`): names, versions, columns of
//! `kubectl get`, subresources, and schemas that are made from the types.
//!
//! Both versions have one schema, so nothing is ever converted.

use serde_json::{Value, json};

use crate::kubevirt::{KUBEVIRT_KIND, KubeVirt};
use crate::manifest::{GROUP, VM_KIND, VMI_KIND};
use crate::migration::{MIGRATION_KIND, Migration};
use crate::preset::{PRESET_KIND, Preset};
use crate::replica_set::{REPLICA_SET_KIND, ReplicaSet};
use crate::vm::VirtualMachine;
use crate::vmi::Vmi;

mod facets;
mod structural;

use structural::schema_of;

/// Label of the definitions of machines.
const MACHINE_LABEL: &str = crate::labels::APP;
/// Label of the definition of the installation.
const INSTALLATION_LABEL: &str = "operator.kubevirt.io";

const V1: &str = "v1";
const V1ALPHA3: &str = "v1alpha3";

const AGE: Column = Column::new("Age", "date", ".metadata.creationTimestamp");
const PHASE: Column = Column::new("Phase", "string", ".status.phase");
const READY: Column = Column::new(
    "Ready",
    "string",
    ".status.conditions[?(@.type=='Ready')].status",
);

/// A kind as an API server is told of it.
struct Definition {
    kind: &'static str,
    plural: &'static str,
    short_names: [&'static str; 2],
    label: &'static str,
    stored: &'static str,
    has_status: bool,
    has_scale: bool,
    columns: &'static [Column],
    schema: fn() -> Value,
}

const DEFINITIONS: [Definition; 6] = [
    Definition {
        kind: VM_KIND,
        plural: "virtualmachines",
        short_names: ["vm", "vms"],
        label: MACHINE_LABEL,
        stored: V1,
        has_status: true,
        has_scale: false,
        columns: &[
            AGE,
            Column::new("Status", "string", ".status.printableStatus").about("State in a word"),
            READY,
        ],
        schema: schema_of::<VirtualMachine>,
    },
    Definition {
        kind: VMI_KIND,
        plural: "virtualmachineinstances",
        short_names: ["vmi", "vmis"],
        label: MACHINE_LABEL,
        stored: V1,
        has_status: false,
        has_scale: false,
        columns: &[
            AGE,
            PHASE,
            Column::new("IP", "string", ".status.interfaces[0].ipAddress"),
            Column::new("NodeName", "string", ".status.nodeName"),
            READY,
            Column::new(
                "Live-Migratable",
                "string",
                ".status.conditions[?(@.type=='LiveMigratable')].status",
            )
            .wide(),
            Column::new(
                "Paused",
                "string",
                ".status.conditions[?(@.type=='Paused')].status",
            )
            .wide(),
        ],
        schema: schema_of::<Vmi>,
    },
    Definition {
        kind: REPLICA_SET_KIND,
        plural: "virtualmachineinstancereplicasets",
        short_names: ["vmirs", "vmirss"],
        label: MACHINE_LABEL,
        stored: V1,
        has_status: true,
        has_scale: true,
        columns: &[
            Column::new("Desired", "integer", ".spec.replicas").about("Instances wanted"),
            Column::new("Current", "integer", ".status.replicas").about("Instances there"),
            Column::new("Ready", "integer", ".status.readyReplicas").about("Instances ready"),
            AGE,
        ],
        schema: schema_of::<ReplicaSet>,
    },
    Definition {
        kind: MIGRATION_KIND,
        plural: "virtualmachineinstancemigrations",
        short_names: ["vmim", "vmims"],
        label: MACHINE_LABEL,
        stored: V1,
        has_status: true,
        has_scale: false,
        columns: &[
            PHASE.about("How far it is"),
            Column::new("VMI", "string", ".spec.vmiName").about("Instance that moves"),
        ],
        schema: schema_of::<Migration>,
    },
    Definition {
        kind: PRESET_KIND,
        plural: "virtualmachineinstancepresets",
        short_names: ["vmipreset", "vmipresets"],
        label: MACHINE_LABEL,
        stored: V1ALPHA3,
        has_status: false,
        has_scale: false,
        columns: &[],
        schema: schema_of::<Preset>,
    },
    Definition {
        kind: KUBEVIRT_KIND,
        plural: "kubevirts",
        short_names: ["kv", "kvs"],
        label: INSTALLATION_LABEL,
        stored: V1,
        has_status: true,
        has_scale: false,
        columns: &[AGE, PHASE],
        schema: schema_of::<KubeVirt>,
    },
];

/// Returns the definitions of all kinds of [`GROUP`], in the order in which they can be installed. Each is made when it is
/// asked for: all of them together take megabytes.
pub fn all() -> impl Iterator<Item = Value> {
    DEFINITIONS.iter().map(Definition::object)
}

/// Returns the name of the resource of a kind in paths and rules, `virtualmachines`.
pub fn plural(kind: &str) -> Option<&'static str> {
    DEFINITIONS
        .iter()
        .find(|definition| definition.kind == kind)
        .map(|definition| definition.plural)
}

impl Definition {
    fn object(&self) -> Value {
        let schema = (self.schema)();
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{}.{GROUP}", self.plural), "labels": {self.label: ""}},
            "spec": {
                "group": GROUP,
                "scope": "Namespaced",
                "names": {
                    "kind": self.kind,
                    "listKind": format!("{}List", self.kind),
                    "plural": self.plural,
                    "singular": self.kind.to_ascii_lowercase(),
                    "shortNames": self.short_names,
                    "categories": ["all"],
                },
                "conversion": {"strategy": "None"},
                "versions": [self.version(V1, &schema), self.version(V1ALPHA3, &schema)],
            },
        })
    }

    fn version(&self, name: &str, schema: &Value) -> Value {
        let mut version = json!({
            "name": name,
            "served": true,
            "storage": name == self.stored,
            "schema": {"openAPIV3Schema": schema},
        });
        if let Some(warning) = self.deprecation(name) {
            version["deprecated"] = true.into();
            version["deprecationWarning"] = warning.into();
        }
        if !self.columns.is_empty() {
            let columns = self.columns.iter().map(Column::object);
            version["additionalPrinterColumns"] = columns.collect();
        }
        if self.has_status {
            version["subresources"] = json!({"status": {}});
        }
        if self.has_scale {
            version["subresources"]["scale"] = json!({
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.labelSelector",
            });
        }
        version
    }

    fn deprecation(&self, version: &str) -> Option<String> {
        if self.kind == PRESET_KIND {
            Some(format!(
                "{GROUP}/{version} {PRESET_KIND} is deprecated: write its settings into the machines"
            ))
        } else if version == V1ALPHA3 {
            Some(format!(
                "{GROUP}/{V1ALPHA3} is deprecated: use {GROUP}/{V1}"
            ))
        } else {
            None
        }
    }
}

/// A column of `kubectl get`.
struct Column {
    name: &'static str,
    column_type: &'static str,
    path: &'static str,
    description: &'static str,
    is_wide: bool,
}

impl Column {
    const fn new(name: &'static str, column_type: &'static str, path: &'static str) -> Self {
        Self {
            name,
            column_type,
            path,
            description: "",
            is_wide: false,
        }
    }

    const fn about(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    const fn wide(mut self) -> Self {
        self.is_wide = true;
        self
    }

    fn object(&self) -> Value {
        let mut column =
            json!({"name": self.name, "type": self.column_type, "jsonPath": self.path});
        if !self.description.is_empty() {
            column["description"] = self.description.into();
        }
        if self.is_wide {
            column["priority"] = 1.into();
        }
        column
    }
}

#[cfg(test)]
mod tests;
