//! `VirtualMachine`: a machine that outlives its instances.

use serde_json::Value;

use crate::metadata::ObjectMeta;
use crate::object::object;
use crate::vmi::{Vmi, VmiSpec};

object! {
    /// A `VirtualMachine` object.
    pub struct VirtualMachine {
        /// Group and version, `kubevirt.io/v1`.
        pub api_version: String,
        /// `VirtualMachine`.
        pub kind: String,
        /// Name, labels, identity.
        pub metadata: ObjectMeta,
        /// What is wanted.
        pub spec: VirtualMachineSpec,
        /// What is (untyped).
        pub status: Option<Value>,
    }

    /// What is wanted of a virtual machine.
    pub struct VirtualMachineSpec {
        /// Whether an instance should run; excludes `run_strategy`.
        pub running: Option<bool>,
        /// When an instance should run.
        pub run_strategy: Option<String>,
        /// Instance type (untyped).
        pub instancetype: Option<Value>,
        /// Preference (untyped).
        pub preference: Option<Value>,
        /// The instance to make.
        pub template: VmiTemplate,
        /// Data volumes to make beside it (untyped).
        pub data_volume_templates: Vec<Value>,
        /// How changed volumes are taken over.
        pub update_volumes_strategy: Option<String>,
    }

    /// An instance before it has a name.
    pub struct VmiTemplate {
        /// Labels and annotations of the instance.
        pub metadata: ObjectMeta,
        /// What is wanted of the instance.
        pub spec: VmiSpec,
    }
}

impl VirtualMachine {
    /// Returns the instance that this virtual machine would start: its template under its own name.
    pub fn instance(&self) -> Vmi {
        let mut metadata = self.spec.template.metadata.clone();
        metadata.name.clone_from(&self.metadata.name);
        metadata.namespace.clone_from(&self.metadata.namespace);
        Vmi {
            api_version: self.api_version.clone(),
            kind: crate::manifest::VMI_KIND.to_owned(),
            metadata,
            spec: self.spec.template.spec.clone(),
            ..Vmi::default()
        }
    }
}
