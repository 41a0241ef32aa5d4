//! Chooses the back end of a machine, and says why.

use std::fmt;

use crate::config::Accel;
use crate::hv::soft::Soft;
use crate::hv::{HvError, Hypervisor};

/// A kind of back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The host's KVM.
    Kvm,
    /// The software CPU.
    Soft,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Soft => "soft",
        })
    }
}

/// Which back end was chosen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendReport {
    /// The back end.
    pub backend: Backend,
    /// Why it was chosen, in a sentence for people.
    pub reason: String,
    /// What KVM runs, where it was measured: million instructions a second.
    pub kvm_mips: Option<u64>,
}

impl fmt::Display for BackendReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "back end {}: {}", self.backend, self.reason)
    }
}

/// Chooses a back end.
///
/// # Errors
/// If one is asked for that the host does not have.
pub fn choose(accel: Accel) -> Result<(Box<dyn Hypervisor>, BackendReport), HvError> {
    let reason = match accel {
        Accel::Soft => "the software CPU was asked for".to_owned(),
        Accel::Auto | Accel::Kvm => "there is no other back end yet".to_owned(),
    };
    let report = BackendReport {
        backend: Backend::Soft,
        reason,
        kvm_mips: None,
    };
    Ok((Box::new(Soft), report))
}
