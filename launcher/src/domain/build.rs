//! From a wished-for instance to a machine's configuration and its files in the pod.

use api::{FieldError, Vmi};
use proto::cmd::v1::SmBios;
use vmm::config::{MachineConfig, SmbiosConfig};

use super::{DomainError, Setup, Wish};
use crate::convert::{Converted, Environment, checked, convert};
use crate::state_dir::{Layout, StateDir};
use crate::support::Remarks;
use crate::volumes::{VolumePlan, plan_kernel, plan_volumes, prepare};

/// A machine that can be started.
pub(super) struct Built {
    /// The instance with its defaults.
    pub(super) vmi: Vmi,
    /// The machine.
    pub(super) config: MachineConfig,
    /// Its files; those that are registered go with this value.
    pub(super) files: StateDir,
    /// Where they lie.
    pub(super) layout: Layout,
    /// What was planned for each disk's volume.
    pub(super) plans: Vec<VolumePlan>,
    /// What is to be said about fields of the instance.
    pub(super) remarks: Remarks,
}

/// Makes the files of an instance and its configuration.
///
/// # Errors
///
/// Fails when the instance is wrong or a volume cannot be prepared; no file is left then.
pub(super) fn build(wish: &Wish, setup: &Setup) -> Result<Built, DomainError> {
    let vmi = checked(&wish.vmi).map_err(DomainError::Fields)?;
    setup.paths.make_console_dir(&vmi.metadata.uid)?;
    let place = setup.place();
    let one = |error: FieldError| DomainError::Fields(vec![error]);
    let plans = plan_volumes(&vmi, &place).map_err(one)?;
    let mut files = StateDir::in_pod(&setup.paths);
    let kernel = plan_kernel(&vmi, &place);
    let volumes = prepare(&plans, kernel.as_ref(), &place, &mut files)?;
    let layout = place.layout(&vmi);
    let environment = Environment {
        agent_socket: Some(layout.agent_socket()),
        ..setup.environment.clone()
    };
    let Converted {
        mut config,
        remarks,
    } = convert(&wish.vmi, &volumes, &environment).map_err(DomainError::Fields)?;
    files.claim_socket(&layout.agent_socket())?;
    if let Some(strings) = &wish.smbios {
        name_cluster(&mut config.smbios, strings);
    }
    Ok(Built {
        vmi,
        config,
        files,
        layout,
        plans,
        remarks,
    })
}

/// Puts the cluster's strings in place of our own.
fn name_cluster(smbios: &mut SmbiosConfig, strings: &SmBios) {
    for (ours, theirs) in [
        (&mut smbios.manufacturer, &strings.manufacturer),
        (&mut smbios.product, &strings.product),
        (&mut smbios.version, &strings.version),
        (&mut smbios.sku, &strings.sku),
        (&mut smbios.family, &strings.family),
    ] {
        if !theirs.is_empty() {
            ours.clone_from(theirs);
        }
    }
}
