//! Which devices of the host are for which entry of `hostDevices` and `gpus` (KubeVirt §3.6). Pure.
//!
//! Device plugins tell a container the addresses of its devices in variables that are named after the resource:
//!
//! ```text
//!   PCI_RESOURCE_<RES>=0000:65:00.0,…    MDEV_PCI_RESOURCE_<RES>=<UUID>,…    USB_RESOURCE_<RES>=<bus>:<device>,…
//! ```
//!
//! A unit of a resource may consist of several devices. Their addresses follow each other, unit after unit, and every
//! unit of a resource has as many devices as the others: of n entries, each gets the n-th part of the addresses.

mod address;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;

use api::devices::{Gpu, HostDevice};
use api::{FieldError, FieldPath};

pub use address::{Address, AddressError};

/// How variables with addresses begin, in the order in which entries take from them, and what is read from them.
const VARIABLES: [(&str, ReadAddress); 3] = [
    ("PCI_RESOURCE_", Address::pci),
    ("MDEV_PCI_RESOURCE_", Address::mediated),
    ("USB_RESOURCE_", Address::usb),
];

type ReadAddress = fn(&str) -> Result<Address, AddressError>;

/// Values of variables with addresses, by name.
pub type Variables = BTreeMap<String, String>;

/// An entry of `hostDevices` or `gpus`, and the devices that are for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The entry.
    pub field: FieldPath,
    /// Its name.
    pub name: String,
    /// Resource that the devices are of.
    pub resource: String,
    /// How the machine calls it: `hostdevice-`, `gpu-` or `usb-host-` before the name.
    pub alias: String,
    /// The devices: one at least.
    pub addresses: Vec<Address>,
}

impl Assigned {
    /// Says that the devices cannot be attached to a machine.
    #[must_use]
    pub fn unsupported(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        format!(
            "attaching {} (of {}: {}) is not supported yet, remove it",
            self.name,
            self.resource,
            addresses.join(", ")
        )
    }
}

/// Picks the variables with addresses out of all variables of a process.
pub fn variables(all: impl IntoIterator<Item = (OsString, OsString)>) -> Variables {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    all.into_iter()
        .map(|(name, value)| (text(name), text(value)))
        .filter(|(name, _)| VARIABLES.iter().any(|(start, _)| name.starts_with(start)))
        .collect()
}

/// Assigns the devices that were given to this launcher to the entries of an instance, in their order, `hostDevices`
/// first.
///
/// # Errors
///
/// Everything that keeps an entry from getting its devices; the message names the variable.
pub fn assign(
    host_devices: &[HostDevice],
    gpus: &[Gpu],
    variables: &Variables,
) -> Result<Vec<Assigned>, Vec<FieldError>> {
    let entries = entries(host_devices, gpus);
    let mut errors = check_names(&entries);
    let mut assigned = Vec::new();
    let mut pools = pools(&entries, variables, &mut errors);
    for entry in &entries {
        // What has no pool has an error.
        if let Some(pool) = pools.get_mut(&entry.variable) {
            assigned.push(entry.assigned(pool.take()));
        }
    }
    if errors.is_empty() {
        errors = check_shared(&assigned);
    }
    if errors.is_empty() {
        Ok(assigned)
    } else {
        Err(errors)
    }
}

/// An entry of either list.
struct Wanted<'a> {
    field: FieldPath,
    name: &'a str,
    resource: &'a str,
    /// How aliases of what is no USB device begin.
    alias: &'static str,
    /// What variables are called after their beginning. Where two resources have the same, so are their devices.
    variable: String,
}

impl Wanted<'_> {
    fn assigned(&self, addresses: Vec<Address>) -> Assigned {
        let start = match addresses.first() {
            Some(Address::Usb { .. }) => "usb-host",
            _ => self.alias,
        };
        Assigned {
            field: self.field.clone(),
            name: self.name.to_owned(),
            resource: self.resource.to_owned(),
            alias: format!("{start}-{}", self.name),
            addresses,
        }
    }
}

fn entries<'a>(host_devices: &'a [HostDevice], gpus: &'a [Gpu]) -> Vec<Wanted<'a>> {
    let path = FieldPath::new("spec.domain.devices");
    let entry = |list, index, name, resource: &'a String, alias| Wanted {
        field: path.child(list).index(index),
        name,
        resource,
        alias,
        variable: resource.to_uppercase().replace(['/', '.'], "_"),
    };
    let host_devices = host_devices.iter().enumerate().map(|(index, of)| {
        let list = "hostDevices";
        entry(list, index, &of.name, &of.device_name, "hostdevice")
    });
    let gpus = gpus
        .iter()
        .enumerate()
        .map(|(index, of)| entry("gpus", index, &of.name, &of.device_name, "gpu"));
    host_devices.chain(gpus).collect()
}

/// Names tell devices apart in the machine, whichever list they are in.
fn check_names(entries: &[Wanted<'_>]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut names = BTreeMap::new();
    for entry in entries {
        if entry.resource.is_empty() {
            let text = "not set, and devices by claimName are not supported yet: name a resource";
            errors.push(FieldError::required(entry.field.child("deviceName"), text));
        }
        if let Some(first) = names.insert(entry.name, &entry.field) {
            let text = format!(
                "{first} is called {:?} too: choose another name",
                entry.name
            );
            errors.push(FieldError::duplicate(entry.field.child("name"), text));
        }
    }
    errors
}

/// The devices of a resource that are not assigned yet.
struct Pool {
    addresses: VecDeque<Address>,
    /// How many each entry gets.
    share: usize,
}

impl Pool {
    fn take(&mut self) -> Vec<Address> {
        let share = self.share.min(self.addresses.len());
        self.addresses.drain(..share).collect()
    }
}

fn pools(
    entries: &[Wanted<'_>],
    variables: &Variables,
    errors: &mut Vec<FieldError>,
) -> BTreeMap<String, Pool> {
    let mut of_variable: BTreeMap<&str, Vec<&Wanted<'_>>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.resource.is_empty()) {
        of_variable.entry(&entry.variable).or_default().push(entry);
    }
    let mut pools = BTreeMap::new();
    for (variable, entries) in of_variable {
        match pool(variable, &entries, variables) {
            Ok(pool) => {
                pools.insert(variable.to_owned(), pool);
            }
            Err(error) => errors.push(error),
        }
    }
    pools
}

/// Reads the addresses of a resource, of which there must be as many for each entry.
fn pool(
    variable: &str,
    entries: &[&Wanted<'_>],
    variables: &Variables,
) -> Result<Pool, FieldError> {
    let mut addresses = VecDeque::new();
    let mut read = Vec::new();
    for (start, address) in VARIABLES {
        let name = format!("{start}{variable}");
        let Some(value) = variables.get(&name) else {
            continue;
        };
        for text in value
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            let address = address(text).map_err(|error| {
                let text = format!("{name} holds {error}: its device plugin must tell addresses");
                FieldError::new(entries[0].field.clone(), text)
            })?;
            addresses.push_back(address);
        }
        read.push(name);
    }
    let share = addresses.len() / entries.len();
    if share == 0 || addresses.len() % entries.len() != 0 {
        return Err(mismatch(variable, entries, &read, addresses.len()));
    }
    Ok(Pool { addresses, share })
}

/// Names the first entry that would get nothing, else the first.
fn mismatch(
    variable: &str,
    entries: &[&Wanted<'_>],
    read: &[String],
    addresses: usize,
) -> FieldError {
    let entry = entries.get(addresses).unwrap_or(&entries[0]);
    let (resource, count) = (entry.resource, entries.len());
    let text = if read.is_empty() {
        let names = VARIABLES.map(|(start, _)| format!("{start}{variable}"));
        format!(
            "the pod was given no address of {resource}: none of {} is set, so the resource's device plugin is not one for machines",
            names.join(", ")
        )
    } else {
        let unit = if count == 1 { "entry" } else { "entries" };
        format!(
            "{} has {addresses} addresses for {count} {unit} of {resource}: each needs one, or as many as the others; \
             start the instance anew, and see what `virt-handler devices` says on its node if that does not help",
            read.join(" with ")
        )
    };
    FieldError::new(entry.field.clone(), text)
}

/// No device can be attached twice.
fn check_shared(assigned: &[Assigned]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut first = BTreeMap::new();
    for of in assigned {
        for address in &of.addresses {
            match first.entry(address) {
                Entry::Vacant(entry) => {
                    entry.insert(&of.field);
                }
                Entry::Occupied(entry) => {
                    let text = format!(
                        "the pod was given {address} of {} twice, {} gets it too: offer each device under one resource",
                        of.resource,
                        entry.get()
                    );
                    errors.push(FieldError::duplicate(of.field.clone(), text));
                }
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests;
