//! Commands of upstream's program that are not here: each says why, and what to do instead.

use clap::Args;

use super::Session;
use crate::failure::Failure;

/// Not here: says why
#[derive(Debug, Args)]
pub(crate) struct Absent {
    /// What upstream's command takes
    #[arg(value_name = "ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
    _arguments: Vec<String>,
}

/// Which command.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    LogVerbosity,
    Credentials,
    Guestfs,
    Template,
    Usbredir,
    Export,
}

impl Absent {
    /// Says what to do instead.
    pub(super) fn run(&self, session: &Session, which: Which) -> Result<(), Failure> {
        let (command, instead) = which.words();
        let program = session.program.name();
        Err(Failure::Argument(format!(
            "{program} {command} is not supported: {instead}"
        )))
    }
}

impl Which {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::LogVerbosity => (
                "adm",
                "how much components log is set by their --log flag or RUST_LOG; `kubectl edit kubevirt -n kubevirt` \
                 changes the rest of the configuration",
            ),
            Self::Credentials => (
                "credentials",
                "write users' keys and passwords into the secret that spec.accessCredentials of the virtual machine \
                 names, with `kubectl edit secret`",
            ),
            Self::Guestfs => (
                "guestfs",
                "run a pod that mounts the claim, with an image that has the libguestfs tools",
            ),
            Self::Template => (
                "template",
                "there are no VirtualMachineTemplates; `create vm` makes manifests",
            ),
            Self::Usbredir => (
                "usbredir",
                "USB devices of the node are given to machines by spec.domain.devices.hostDevices",
            ),
            Self::Export => (
                "vmexport",
                "there is no VirtualMachineExport: stop the machine, mount its claim in a pod, and copy disk.img with \
                 `kubectl cp`",
            ),
        }
    }
}
