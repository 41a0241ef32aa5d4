//! CPU models: what CPUID says, by name, so that a guest finds the same processor on every host.
//!
//! The models are in-order processors. They sign as Intel family 6, model 0x36 (an Atom "Saltwell", which
//! runs nothing speculatively) because kernels skip every speculation mitigation for that signature and
//! will go on doing so for bugs that are found later; a newer signature would need a growing list of
//! ARCH_CAPABILITIES bits, and any AMD one brings retpolines. All features are told by their own bits.

use thiserror::Error;

mod feature;
mod leaf;
#[cfg(test)]
mod tests;

pub use feature::{Feature, Register};

/// Sockets, cores in a socket and threads in a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Processor packages.
    pub sockets: u32,
    /// Cores in a package.
    pub cores: u32,
    /// Threads in a core.
    pub threads: u32,
}

impl Topology {
    /// Number of virtual CPUs.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        self.sockets * self.cores * self.threads
    }

    /// Bits of the x2APIC id below the core number.
    #[must_use]
    pub fn thread_bits(&self) -> u32 {
        bits_for(self.threads)
    }

    /// Bits of the x2APIC id below the package number.
    #[must_use]
    pub fn package_bits(&self) -> u32 {
        self.thread_bits() + bits_for(self.cores)
    }

    /// The x2APIC id of virtual CPU `cpu`, counted thread by thread, core by core.
    #[must_use]
    pub fn apic_id(&self, cpu: u32) -> u32 {
        let (thread, core) = (cpu % self.threads, cpu / self.threads);
        let (core, socket) = (core % self.cores, core / self.cores);
        socket << self.package_bits() | core << self.thread_bits() | thread
    }
}

/// Bits that number `count` things.
fn bits_for(count: u32) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

/// What an answer depends on besides model and topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dynamic {
    /// x2APIC id of the asking CPU.
    pub apic_id: u32,
    /// CR4.OSXSAVE. [`crate::Vcpu`] puts it in by itself.
    pub osxsave: bool,
    /// XCR0, whose components decide the size of the XSAVE area in use.
    pub xcr0: u64,
    /// Rate of the time stamp counter in kHz.
    pub tsc_khz: u32,
}

/// A set of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FeatureSet(u128);

impl FeatureSet {
    fn has(self, index: usize) -> bool {
        self.0 >> index & 1 != 0
    }

    fn set(&mut self, index: usize, on: bool) {
        self.0 = self.0 & !(1 << index) | u128::from(on) << index;
    }
}

/// A named processor, possibly with features added or taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuModel {
    /// Name, as a manifest or a command line gives it.
    pub name: &'static str,
    /// One sentence for people.
    pub description: &'static str,
    features: FeatureSet,
}

/// Why a model cannot be what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ModelError {
    /// There is no model of that name.
    #[error("CPU model {0:?} is unknown: choose one of {names}", names = names())]
    UnknownModel(String),
    /// There is no feature of that name.
    #[error("CPU feature {0:?} is unknown")]
    UnknownFeature(String),
    /// The host's processor lacks instructions that the model needs.
    #[error(
        "CPU feature {feature} of model {model} needs an instruction that this host does not have"
    )]
    NotOnThisHost {
        /// Model.
        model: &'static str,
        /// Feature.
        feature: &'static str,
    },
}

fn names() -> String {
    let names: Vec<_> = models().iter().map(|m| m.name).collect();
    names.join(", ")
}

/// Name of the model that a machine gets when none is named.
pub const DEFAULT: &str = "ferrovirt-v2";

/// All models, the smallest first.
#[must_use]
pub fn models() -> Vec<CpuModel> {
    let model = |name, description, groups: &[&[&str]]| {
        let mut features = FeatureSet::default();
        for name in groups.iter().flat_map(|g| g.iter()) {
            if let Some(index) = feature::index(name) {
                features.set(index, true);
            }
        }
        CpuModel {
            name,
            description,
            features,
        }
    };
    vec![
        model(
            "ferrovirt-v1",
            "x86-64-v1: what every 64-bit system needs, with virtual timers and x2APIC",
            &[feature::BASE],
        ),
        model(
            DEFAULT,
            "x86-64-v2 with AES, carry-less multiplication, random numbers, XSAVE, BMI and ADX",
            &[feature::BASE, feature::V2],
        ),
    ]
}

/// The model of a name. `host-model` and `host-passthrough` are the default model.
///
/// # Errors
/// [`ModelError::UnknownModel`].
pub fn by_name(name: &str) -> Result<CpuModel, ModelError> {
    let wanted = match name {
        "host-model" | "host-passthrough" => DEFAULT,
        other => other,
    };
    models()
        .into_iter()
        .find(|m| m.name == wanted)
        .ok_or_else(|| ModelError::UnknownModel(name.to_owned()))
}

impl CpuModel {
    /// The model with features added (`+aes`, `aes`) or taken away (`-pcid`), named as libvirt names them.
    ///
    /// # Errors
    /// [`ModelError::UnknownFeature`].
    pub fn with_features<'a>(
        mut self,
        changes: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ModelError> {
        for change in changes {
            let (name, on) = match change.split_at_checked(1) {
                Some(("+", name)) => (name, true),
                Some(("-", name)) => (name, false),
                _ => (change, true),
            };
            let index =
                feature::index(name).ok_or_else(|| ModelError::UnknownFeature(name.to_owned()))?;
            self.features.set(index, on);
        }
        Ok(self)
    }

    /// Whether the model has the feature of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        feature::index(name).is_some_and(|index| self.features.has(index))
    }

    /// The features of the model.
    pub fn features(&self) -> impl Iterator<Item = &'static Feature> + '_ {
        feature::FEATURES
            .iter()
            .enumerate()
            .filter(|(index, _)| self.features.has(*index))
            .map(|(_, feature)| feature)
    }

    /// Checks that the software CPU can be this model here: it runs SIMD and its like on the host's own
    /// instructions.
    ///
    /// # Errors
    /// [`ModelError::NotOnThisHost`] with the first feature that is missing.
    pub fn host_supports(&self) -> Result<(), ModelError> {
        match self.features().find(|f| !f.host_has()) {
            None => Ok(()),
            Some(feature) => Err(ModelError::NotOnThisHost {
                model: self.name,
                feature: feature.name,
            }),
        }
    }
}
