//! One look at the host: what devices there are, and who has which.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::source::{HeldUnit, Host, Source};
use crate::unit::{LeftOut, Offer};

use super::checkpoint::{self, InUse};
use super::events::Kind;
use super::plan::Held;
use super::schedule::Sight;

/// Where offers come from, in order.
pub(crate) type Sources = Arc<Vec<Box<dyn Source>>>;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The devices, if they were looked at.
    pub(crate) devices: Option<Devices>,
    /// Who has what; none where the kubelet has written nothing, or nothing that makes sense.
    pub(crate) in_use: Option<Vec<InUse>>,
    /// What is wrong with what the kubelet has written.
    pub(crate) fault: Option<String>,
}

/// The devices that were seen.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    /// What containers had, as far as was known when they were looked at.
    pub(crate) beside: Vec<HeldUnit>,
    /// By source.
    pub(crate) found: Vec<Vec<Offer>>,
    /// What could not be made ready, each as a sentence, where no resource has a place for it.
    pub(crate) refusals: Vec<String>,
}

/// Looks, knowing what containers have. Blocks, for as long as drivers take to be bound.
pub(crate) fn look(host: &Host, sources: &Sources, held: Vec<HeldUnit>, sight: Sight) -> Seen {
    let devices = sight.devices.then(|| devices(host, sources, held));
    let (in_use, fault) = match checkpoint::read(host) {
        Ok(in_use) => (in_use, None),
        Err(error) => (None, Some(error.to_string())),
    };
    Seen {
        devices,
        in_use,
        fault,
    }
}

/// What sources are told of what containers have: the devices that are to stay together.
pub(crate) fn together(held: &[Held]) -> Vec<HeldUnit> {
    let held = held.iter().filter(|one| !one.parts.is_empty());
    let together = held.map(|one| HeldUnit {
        resource: one.resource.clone(),
        parts: one.parts.clone(),
    });
    together.collect()
}

fn devices(host: &Host, sources: &Sources, held: Vec<HeldUnit>) -> Devices {
    let mut devices = Devices {
        beside: held,
        ..Devices::default()
    };
    for source in sources.iter() {
        let refusals = source.prepare(host);
        let mut found = source.discover_beside(host, &devices.beside);
        let nowhere = explain(&mut found, refusals);
        devices.found.push(found);
        devices.refusals.extend(nowhere);
    }
    devices
}

/// Says why devices could not be made ready instead of what follows from it. Returns what has no place there.
fn explain(found: &mut [Offer], refusals: Vec<LeftOut>) -> Vec<String> {
    let mut nowhere = Vec::new();
    for refusal in refusals {
        let mut left_out = found.iter_mut().flat_map(|offer| &mut offer.left_out);
        match left_out.find(|left| left.device == refusal.device) {
            Some(left) => left.reason = refusal.reason,
            None => nowhere.push(format!("{}: {}", refusal.device, refusal.reason)),
        }
    }
    nowhere
}

/// The folders whose changes tell that a look is due.
pub(crate) fn targets(host: &Host, sources: &Sources) -> Vec<(PathBuf, Kind)> {
    let folders = sources.iter().flat_map(|source| source.folders());
    let devices = folders.map(|folder| {
        let kind = if folder.ends_with("bus/usb") {
            Kind::DevicesBelow
        } else {
            Kind::Devices
        };
        (host.node(&folder), kind)
    });
    let mut targets: BTreeSet<(PathBuf, Kind)> = devices.collect();
    targets.insert((host.plugin_dir.clone(), Kind::Plugins));
    targets.insert((host.pods_dir.clone(), Kind::Pods));
    targets.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::explain;
    use crate::resource::ResourceName;
    use crate::unit::{LeftOut, Offer};

    fn left_out(device: &str, reason: &str) -> LeftOut {
        LeftOut {
            device: device.to_owned(),
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn the_cause_replaces_what_follows_from_it() {
        let mut found = [Offer {
            resource: ResourceName::new("intel.com/vf").unwrap(),
            variable: None,
            units: Vec::new(),
            left_out: vec![left_out("0000:65:00.2", "is bound to iavf")],
        }];
        let refusals = vec![
            left_out("0000:65:00.2", "sysfs is read-only"),
            left_out("0000:65:00.3", "vfio-pci is not loaded"),
        ];
        let nowhere = explain(&mut found, refusals);
        assert_eq!(found[0].left_out[0].reason, "sysfs is read-only");
        assert_eq!(nowhere, ["0000:65:00.3: vfio-pci is not loaded"]);
    }
}
