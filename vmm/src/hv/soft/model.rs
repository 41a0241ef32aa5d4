//! What CPUID answers on the software CPU.

use std::sync::Arc;

use x86::cpuid::{CpuModel, DEFAULT, Dynamic, ModelError, Topology, by_name};

use crate::config::CpuConfig;
use crate::hv::HvError;

/// XCR0 with the components that the software CPU has: x87 and SSE.
const XCR0: u64 = 3;

/// The CPU model of a machine.
#[derive(Clone, Debug)]
pub(super) struct Model {
    model: Arc<CpuModel>,
    topology: Topology,
    tsc_khz: u32,
}

fn refuse(field: &'static str) -> impl Fn(ModelError) -> HvError {
    move |error| HvError::Model {
        field,
        problem: error.to_string(),
    }
}

/// Returns the named model with the features that the configuration adds and takes away.
pub(crate) fn configured(cpus: &CpuConfig) -> Result<CpuModel, HvError> {
    let name = cpus.model.as_deref().unwrap_or(DEFAULT);
    let changes: Vec<String> = cpus
        .features
        .iter()
        .map(|(name, on)| format!("{}{name}", if *on { '+' } else { '-' }))
        .collect();
    by_name(name)
        .map_err(refuse("model"))?
        .with_features(changes.iter().map(String::as_str))
        .map_err(refuse("features"))
}

/// Returns the topology of a configuration.
pub(crate) fn topology(cpus: &CpuConfig) -> Topology {
    Topology {
        sockets: cpus.sockets,
        cores: cpus.cores,
        threads: cpus.threads,
    }
}

impl Model {
    pub(super) fn new(cpus: &CpuConfig, tsc_khz: u64) -> Result<Self, HvError> {
        let model = configured(cpus)?;
        model.host_supports().map_err(refuse("model"))?;
        Ok(Self {
            model: Arc::new(model),
            topology: topology(cpus),
            tsc_khz: u32::try_from(tsc_khz).unwrap_or(u32::MAX),
        })
    }

    /// Returns the APIC ID of vCPU `id`.
    pub(super) fn apic_id(&self, id: u32) -> u32 {
        self.topology.apic_id(id)
    }

    /// Answers CPUID on the vCPU with `apic_id`.
    pub(super) fn cpuid(&self, apic_id: u32, leaf: u32, subleaf: u32) -> [u32; 4] {
        let dynamic = Dynamic {
            apic_id,
            osxsave: false,
            xcr0: XCR0,
            tsc_khz: self.tsc_khz,
        };
        self.model.leaf(leaf, subleaf, &self.topology, &dynamic)
    }
}
