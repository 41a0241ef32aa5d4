//! `virtctl create`: manifests to standard output.

mod clone;
mod guest;
mod inference;
mod instancetype;
mod parameters;
mod vm;
mod volumes;

use clap::{Args, Subcommand};

use super::Session;
use crate::failure::Failure;

/// Create a manifest.
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Vm(Box<vm::CreateVm>),
    Instancetype(instancetype::CreateInstancetype),
    Preference(instancetype::CreatePreference),
    Clone(clone::CreateClone),
}

impl Create {
    /// Prints the manifest; no cluster is asked.
    pub(super) fn run(&self, session: &Session) -> Result<(), Failure> {
        match &self.what {
            What::Vm(vm) => vm.run(session),
            What::Instancetype(instancetype) => instancetype.run(session),
            What::Preference(preference) => preference.run(session),
            What::Clone(clone) => clone.run(session),
        }
    }
}
