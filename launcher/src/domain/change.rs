//! Changes of a machine that runs: media of CD-ROM drives, sizes of disks.

use std::path::Path;

use api::volumes::Volume;
use api::{FieldError, FieldPath, Vmi};
use proto::domain::{Devices, Disk};
use vmm::config::DiskSource;

use super::owner::{Owner, Running, refused};
use super::{DomainError, Setup};
use crate::convert::checked;
use crate::volumes::{Place, VolumePlan, VolumeSource, plan_volumes, prepare};

/// Where a drive's tray is.
const OPEN: &str = "open";
const CLOSED: &str = "closed";
/// What is said of a change that must wait.
const AT_RESTART: &str = "cannot change while the guest runs: restart the machine to apply it";

impl Owner {
    /// Brings a running machine to what is wanted of it, where it is not what was wanted before.
    pub(super) fn change(&mut self, wanted: &Vmi) -> Result<(), DomainError> {
        let (Some(facts), Some(running)) = (&mut self.facts, &mut self.running) else {
            return Ok(());
        };
        let old = &facts.wanted;
        let is_same_spec = old.spec == wanted.spec;
        let is_same_storage = old.status.volume_status == wanted.status.volume_status;
        if is_same_spec && is_same_storage {
            return Ok(());
        }
        if !is_same_storage {
            running.look_at_sizes();
        }
        let vmi = checked(wanted).map_err(DomainError::Fields)?;
        running.change_media(&facts.vmi, &vmi, &self.setup, &mut facts.devices)?;
        facts.vmi = vmi;
        *facts.wanted = wanted.clone();
        self.publish();
        Ok(())
    }

    /// Checks that processors and memory stay as they are.
    pub(super) fn sync_size(&mut self, wanted: &Vmi) -> Result<(), DomainError> {
        self.machine()?;
        let Some(facts) = &self.facts else {
            return Err(DomainError::NoMachine);
        };
        let wanted = api::default_vmi(wanted);
        let (new, old) = (&wanted.spec.domain, &facts.vmi.spec.domain);
        for (field, is_same) in [
            ("spec.domain.cpu", new.cpu == old.cpu),
            ("spec.domain.memory", new.memory == old.memory),
        ] {
            if !is_same {
                return Err(DomainError::Unsupported(FieldError::new(
                    FieldPath::new(field),
                    "cannot change while the guest runs: restart the machine to apply it",
                )));
            }
        }
        Ok(())
    }
}

impl Running {
    /// Tells the guest of disks that the host has grown.
    fn look_at_sizes(&self) {
        let is_claim = |plan: &&VolumePlan| matches!(plan.source, VolumeSource::Claim { .. });
        for plan in self.plans.iter().filter(is_claim) {
            match self.machine.resize_disk(&plan.name) {
                Ok(len_bytes) => tracing::debug!(disk = plan.name, len_bytes, "disk's size"),
                Err(error) => {
                    let error = vmm::error_chain(&error);
                    tracing::debug!(disk = plan.name, error, "disk keeps its size");
                }
            }
        }
    }

    /// Changes the media of CD-ROM drives whose volumes have changed.
    fn change_media(
        &mut self,
        old: &Vmi,
        new: &Vmi,
        setup: &Setup,
        shown: &mut Devices,
    ) -> Result<(), DomainError> {
        let changed = changed_drives(old, new)?;
        if changed.is_empty() {
            return Ok(());
        }
        let place = setup.place();
        let plans = plan_volumes(new, &place).map_err(|error| DomainError::Fields(vec![error]))?;
        for plan in plans {
            if changed.contains(&plan.name.as_str()) {
                self.change_medium(plan, &place, shown)?;
            }
        }
        Ok(())
    }

    fn change_medium(
        &mut self,
        plan: VolumePlan,
        place: &Place,
        shown: &mut Devices,
    ) -> Result<(), DomainError> {
        let source = match plan.source {
            VolumeSource::NoMedium => None,
            _ => {
                let one = std::slice::from_ref(&plan);
                let mut volumes = prepare(one, None, place, &mut self.files)?;
                volumes.disks.remove(&plan.name).map(|disk| disk.source)
            }
        };
        tracing::info!(
            disk = plan.name,
            is_empty = source.is_none(),
            "medium changes"
        );
        let path = source.as_ref().and_then(path_of).map(Path::to_owned);
        self.machine
            .change_medium(&plan.name, source)
            .map_err(refused("change the medium"))?;
        show_medium(shown, &plan.name, path.as_deref());
        if let Some(known) = self.plans.iter_mut().find(|known| known.name == plan.name) {
            *known = plan;
        }
        Ok(())
    }
}

fn path_of(source: &DiskSource) -> Option<&Path> {
    match source {
        DiskSource::Image { path, .. } | DiskSource::Overlay { overlay: path, .. } => Some(path),
        DiskSource::Empty => None,
    }
}

fn find<'d>(shown: &'d mut Devices, name: &str) -> Option<&'d mut Disk> {
    let mut disks = shown.disks.iter_mut();
    disks.find(|disk| disk.alias.as_ref().is_some_and(|alias| alias.name == name))
}

/// Shows what lies in a drive.
fn show_medium(shown: &mut Devices, name: &str, path: Option<&Path>) {
    if let Some(disk) = find(shown, name) {
        let text = path.map(|path| path.to_string_lossy().into_owned());
        let is_device = path.is_some_and(|path| path.starts_with("/dev"));
        let source = &mut disk.source;
        (source.file, source.dev) = match text {
            Some(text) if is_device => (String::new(), text),
            text => (text.unwrap_or_default(), String::new()),
        };
        disk.type_ = if is_device { "block" } else { "file" }.to_owned();
        CLOSED.clone_into(&mut disk.target.tray);
    }
}

/// Shows that the guest has opened a drive.
pub(super) fn show_ejected(shown: &mut Devices, name: &str) {
    show_medium(shown, name, None);
    if let Some(disk) = find(shown, name) {
        OPEN.clone_into(&mut disk.target.tray);
    }
}

/// Returns the CD-ROM drives whose volumes have changed. A machine keeps the disks that it started with.
fn changed_drives<'v>(old: &Vmi, new: &'v Vmi) -> Result<Vec<&'v str>, DomainError> {
    let disks = (
        &old.spec.domain.devices.disks,
        &new.spec.domain.devices.disks,
    );
    let refuse = |index: usize| {
        let field = FieldPath::new("spec.domain.devices.disks").index(index);
        Err(DomainError::Unsupported(FieldError::new(field, AT_RESTART)))
    };
    if disks.0.len() > disks.1.len() {
        return refuse(disks.1.len());
    }
    let mut drives = Vec::new();
    for (index, disk) in disks.1.iter().enumerate() {
        if disks.0.get(index).is_none_or(|old| old.name != disk.name) {
            return refuse(index);
        }
        if volume(old, &disk.name) == volume(new, &disk.name) {
            continue;
        }
        if disk.cdrom.is_none() {
            return refuse(index);
        }
        drives.push(disk.name.as_str());
    }
    Ok(drives)
}

fn volume<'v>(vmi: &'v Vmi, name: &str) -> Option<&'v Volume> {
    vmi.spec.volumes.iter().find(|volume| volume.name == name)
}

#[cfg(test)]
mod tests {
    use api::Vmi;
    use serde_json::{Value, json};

    use super::changed_drives;

    fn vmi(volumes: &Value) -> Vmi {
        let disks = json!([{"name": "root", "disk": {}}, {"name": "cd", "cdrom": {}}]);
        let spec = json!({"domain": {"devices": {"disks": disks}}, "volumes": volumes});
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    #[test]
    fn only_media_of_drives_change() {
        let root = json!({"name": "root", "emptyDisk": {"capacity": "1Gi"}});
        let medium = json!({"name": "cd", "persistentVolumeClaim": {"claimName": "iso"}});
        let empty = vmi(&json!([root]));
        let full = vmi(&json!([root, medium]));
        assert!(changed_drives(&empty, &empty).unwrap().is_empty());
        assert_eq!(changed_drives(&empty, &full).unwrap(), ["cd"]);
        assert_eq!(changed_drives(&full, &empty).unwrap(), ["cd"]);
        let larger = json!({"name": "root", "emptyDisk": {"capacity": "2Gi"}});
        let error = changed_drives(&empty, &vmi(&json!([larger]))).unwrap_err();
        assert!(error.to_string().contains("disks[0]"), "{error}");
        let mut more = empty.clone();
        let disks = &mut more.spec.domain.devices.disks;
        disks.push(disks[0].clone());
        let error = changed_drives(&empty, &more).unwrap_err();
        assert!(error.to_string().contains("disks[2]"), "{error}");
    }
}
