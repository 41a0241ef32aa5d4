//! Where a device is plugged in, in names that stay.

use std::path::{Path, PathBuf};

use crate::fnv::fnv1a;
use crate::unit::UNIT_ID_LEN_MAX;

/// Where a device is plugged in: equal across reboots and re-plugs into the same port. A device that comes up at another
/// speed in a port for both is below the other root hub, and so at another place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    /// The controller: `0000-00-14.0`.
    pub(super) controller: String,
    /// Which of the controller's root hubs.
    pub(super) hub: String,
    /// The ports from the root hub on.
    pub(super) ports: Vec<u8>,
}

impl Place {
    /// The place as one word: `usb-0000-00-14.0-2-1.4`.
    pub(super) fn part(&self) -> String {
        fit(format!(
            "usb-{}-{}-{}",
            self.controller,
            self.hub,
            port_text(&self.ports)
        ))
    }
}

/// A port path as it is written: `1.4`.
pub(super) fn port_text(ports: &[u8]) -> String {
    let ports: Vec<String> = ports.iter().map(u8::to_string).collect();
    ports.join(".")
}

/// The name of a unit of these parts, which does not depend on anything else.
pub(super) fn unit_id(parts: &[String]) -> String {
    fit(parts.join("+"))
}

/// Which of a controller's root hubs one is: its USB version (1, 2 or 3, as the kernel has it in the hub's `idProduct`), and
/// a number from 2 on where the controller has several of that version.
pub(super) fn hub_label(version: u16, earlier: usize) -> String {
    match earlier {
        0 => version.to_string(),
        _ => format!("{version}.{}", earlier + 1),
    }
}

/// The folder of the controller that a root hub belongs to, from the hub's folder. The kernel numbers some children of
/// controllers as it finds them (`xhci-hcd.0.auto`); their parent's name is the one that stays.
pub(super) fn controller(root_hub: &Path) -> Option<PathBuf> {
    let mut folder = root_hub.parent()?;
    while name(folder)?.ends_with(".auto") {
        match folder
            .parent()
            .and_then(|parent| Some((parent, name(parent)?)))
        {
            Some((parent, above)) if above != "platform" && above != "devices" => folder = parent,
            _ => break,
        }
    }
    Some(folder.to_owned())
}

/// The name of a controller's folder in letters that a unit's name may have.
pub(super) fn controller_label(folder: &Path) -> Option<String> {
    let is_fit = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let label = |name: &str| name.replace(|letter| !is_fit(letter), "-");
    name(folder).map(|name| label(&name))
}

fn name(folder: &Path) -> Option<String> {
    Some(folder.file_name()?.to_string_lossy().into_owned())
}

/// Shortens a name that is too long to its start and a hash of the whole.
fn fit(name: String) -> String {
    if name.len() <= UNIT_ID_LEN_MAX {
        return name;
    }
    let end = format!("-{:016x}", fnv1a(&name));
    let start: String = name.chars().take(UNIT_ID_LEN_MAX - end.len()).collect();
    start + &end
}
