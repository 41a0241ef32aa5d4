//! `VirtualMachine`: a machine that outlives its instances.

use crate::data_volume::DataVolumeTemplate;
use crate::metadata::ObjectMeta;
use crate::object::object;
use crate::vmi::{Vmi, VmiSpec};

mod run_strategy;
mod status;

pub use run_strategy::{RunStrategy, RunStrategyError};
pub use status::{
    ControllerRevisionRef, InstancetypeStatusRef, MemoryDumpRequest, PrintableStatus, StartFailure,
    StateChangeAction, StateChangeRequest, VirtualMachineStatus, VolumeMigrationState,
    VolumeRequest, VolumeSnapshotStatus, VolumeUpdateState, condition, start_request,
};

object! {
    /// A virtual machine, which outlives its instances.
    pub struct VirtualMachine {
        /// Group and version, `kubevirt.io/v1`.
        pub api_version: String,
        /// `VirtualMachine`.
        pub kind: String,
        /// Name, labels, identity.
        pub metadata: ObjectMeta,
        /// What is wanted.
        pub spec: VirtualMachineSpec,
        /// What is.
        pub status: VirtualMachineStatus,
    }

    /// What is wanted of a virtual machine.
    pub struct VirtualMachineSpec {
        /// Whether an instance should run (use `runStrategy`, which it excludes).
        pub running: Option<bool>,
        /// When an instance should run: `Always`, `Halted`, `Manual`, `RerunOnFailure`, `Once` or
        /// `WaitAsReceiver`.
        pub run_strategy: Option<String>,
        /// Instance type, which sizes the machine.
        pub instancetype: Option<InstancetypeMatcher>,
        /// Preference, which fills in what the template leaves open.
        pub preference: Option<InstancetypeMatcher>,
        /// The instance to make.
        pub template: VmiTemplate,
        /// Data volumes to make beside it.
        pub data_volume_templates: Vec<DataVolumeTemplate>,
        /// How changed volumes are taken over: `Replacement` or `Migration`.
        pub update_volumes_strategy: Option<String>,
    }

    /// An instance type or a preference, named or to be told from a volume.
    pub struct InstancetypeMatcher {
        /// Its name.
        pub name: String,
        /// Its kind; the one of the cluster when empty.
        pub kind: String,
        /// Controller revision with a copy of it.
        pub revision_name: String,
        /// Volume whose source names it.
        pub infer_from_volume: String,
        /// What happens when the volume doesn't: `Reject` or `Ignore`.
        pub infer_from_volume_failure_policy: Option<String>,
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

    /// Returns when an instance should run, from `runStrategy` or the older `running`.
    ///
    /// # Errors
    ///
    /// Fails when both or neither are set, or the strategy is not known.
    pub fn run_strategy(&self) -> Result<RunStrategy, RunStrategyError> {
        RunStrategy::resolve(self.spec.running, self.spec.run_strategy.as_deref())
    }
}
