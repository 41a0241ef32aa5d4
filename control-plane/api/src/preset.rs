//! `VirtualMachineInstancePreset`: settings that go into instances with certain labels when they are made
//! (deprecated upstream).

use crate::domain::DomainSpec;
use crate::metadata::ObjectMeta;
use crate::object::object;
use crate::selector::LabelSelector;

/// Kind of [`Preset`].
pub const PRESET_KIND: &str = "VirtualMachineInstancePreset";

object! {
    /// Settings for instances with certain labels.
    pub struct Preset {
        /// Group and version, `kubevirt.io/v1`.
        pub api_version: String,
        /// `VirtualMachineInstancePreset`.
        pub kind: String,
        /// Name, labels, identity.
        pub metadata: ObjectMeta,
        /// What goes where.
        pub spec: PresetSpec,
    }

    /// What goes where.
    pub struct PresetSpec {
        /// Which instances are meant.
        pub selector: Option<LabelSelector>,
        /// What goes into their `spec.domain`.
        pub domain: Option<DomainSpec>,
    }
}
