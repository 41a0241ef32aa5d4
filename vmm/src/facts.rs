//! What machines on this host can be made of, for whoever places them.

use x86::cpuid::{self, CpuModel};

use crate::config::Accel;
use crate::hv::HvError;
use crate::hv::soft::host_tsc_khz;
use crate::probe::{self, BackendReport};

/// Vendor of the processors that guests see (CPUID leaf 0), in the form that schedulers use.
pub const CPU_VENDOR: &str = "Intel";

/// What machines on this host can be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Which back end machines get, and why.
    pub backend: BackendReport,
    /// Name of the CPU model that a machine gets when none is named.
    pub default_model: &'static str,
    /// CPU models whose instructions this host has, the smallest first.
    pub models: Vec<ModelFacts>,
    /// Rate of the time-stamp counter that guests see, hertz.
    pub tsc_hz: u64,
}

/// A CPU model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    /// Name.
    pub name: &'static str,
    /// Names of its features.
    pub features: Vec<&'static str>,
}

/// Finds out what machines on this host can be made of. Measures KVM, which takes up to 50 ms.
///
/// # Errors
/// If a back end is asked for that the host does not have.
pub fn facts(accel: Accel) -> Result<Facts, HvError> {
    let (_, backend) = probe::choose(accel)?;
    let models = cpuid::models();
    let here = models.iter().filter(|model| model.host_supports().is_ok());
    Ok(Facts {
        backend,
        default_model: cpuid::DEFAULT,
        models: here.map(model_facts).collect(),
        tsc_hz: host_tsc_khz() * 1000,
    })
}

fn model_facts(model: &CpuModel) -> ModelFacts {
    ModelFacts {
        name: model.name,
        features: model.features().map(|feature| feature.name).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::facts;
    use crate::config::Accel;
    use crate::probe::Backend;

    #[test]
    fn this_host_has_the_default_model_and_a_counter() {
        let facts = facts(Accel::Soft).unwrap();
        assert_eq!(facts.backend.backend, Backend::Soft);
        let default = facts
            .models
            .iter()
            .find(|model| model.name == facts.default_model);
        assert!(default.unwrap().features.contains(&"sse4.2"), "{default:?}");
        assert!(facts.tsc_hz > 100_000_000, "{}", facts.tsc_hz);
    }
}
