//! Chooses the back end of a machine, and says why.

use std::fmt;
use std::sync::OnceLock;

use crate::config::Accel;
use crate::error_chain;
use crate::hv::kvm::Kvm;
use crate::hv::kvm::probe::{Measurement, measure};
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

type Choice = (Box<dyn Hypervisor>, BackendReport);

/// Chooses a back end.
///
/// # Errors
/// If one is asked for that the host does not have.
pub fn choose(accel: Accel) -> Result<Choice, HvError> {
    let choice = match accel {
        Accel::Soft => soft("the software CPU was asked for".to_owned(), None),
        Accel::Kvm => kvm("KVM was asked for".to_owned(), Kvm::open()?, None),
        Accel::Auto => choose_by_measure(),
    };
    tracing::info!(backend = %choice.1.backend, reason = choice.1.reason, "back end chosen");
    Ok(choice)
}

/// Measures once in the life of the process: a host does not change its mind, and a machine must start soon.
fn measured() -> Result<Measurement, String> {
    static MEASURED: OnceLock<Result<Measurement, String>> = OnceLock::new();
    let measure_now = || Kvm::open().and_then(|kvm| measure(&kvm));
    MEASURED
        .get_or_init(|| measure_now().map_err(|error| error_chain(&error)))
        .clone()
}

fn choose_by_measure() -> Choice {
    let opened = measured().and_then(|found| {
        let kvm = Kvm::open().map_err(|error| error_chain(&error))?;
        Ok((found, kvm))
    });
    match opened {
        Err(error) => soft(format!("KVM is not usable: {error}"), None),
        Ok((found, kvm)) => match found.problem {
            Some(problem) => soft(format!("KVM is not usable: {problem}"), found.mips),
            None => {
                let mips = found.mips.unwrap_or(0);
                let reason = format!("KVM is usable: {mips} million instructions a second");
                self::kvm(reason, kvm, found.mips)
            }
        },
    }
}

fn soft(reason: String, kvm_mips: Option<u64>) -> Choice {
    let report = BackendReport {
        backend: Backend::Soft,
        reason,
        kvm_mips,
    };
    (Box::new(Soft), report)
}

fn kvm(reason: String, kvm: Kvm, kvm_mips: Option<u64>) -> Choice {
    let report = BackendReport {
        backend: Backend::Kvm,
        reason,
        kvm_mips,
    };
    (Box::new(kvm), report)
}
