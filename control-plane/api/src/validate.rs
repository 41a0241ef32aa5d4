//! Whether an instance can be run, decided without looking at any host.

mod access;
mod cpu;
mod disks;
pub(crate) mod firmware;
pub(crate) mod identity;
mod memory;
mod networks;
mod volumes;

use std::collections::BTreeMap;

use crate::field::{FieldError, FieldPath, Reason};
use crate::vmi::Vmi;

pub use memory::{MAX_GUEST_MEMORY_BYTES, MIN_GUEST_MEMORY_BYTES, guest_memory_path};

/// Most processors of a machine.
pub const MAX_VCPUS: u64 = 64;

/// Returns everything that is wrong with an instance whose defaults are filled in
/// ([`default_vmi`](crate::defaulting::default_vmi)), in the order of the specification.
pub fn validate_vmi(vmi: &Vmi) -> Vec<FieldError> {
    let mut findings = Findings::default();
    identity::check(vmi, &mut findings);
    cpu::check(&vmi.spec.domain, &mut findings);
    memory::check(&vmi.spec.domain, &mut findings);
    firmware::check(&vmi.spec.domain, &mut findings);
    disks::check(&vmi.spec, &mut findings);
    volumes::check(&vmi.spec, &mut findings);
    networks::check(&vmi.spec, &mut findings);
    access::check(&vmi.spec, &mut findings);
    findings.errors
}

/// Errors as they are found.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) errors: Vec<FieldError>,
}

impl Findings {
    /// Reports a value of the wrong form or size.
    pub(crate) fn add(&mut self, path: FieldPath, message: impl Into<String>) {
        self.errors.push(FieldError::invalid(path, message));
    }

    /// Reports a field that must be set.
    pub(crate) fn required(&mut self, path: FieldPath, message: impl Into<String>) {
        self.errors.push(FieldError::required(path, message));
    }

    /// Reports something that is not allowed.
    pub(crate) fn forbidden(&mut self, path: FieldPath, message: impl Into<String>) {
        self.errors.push(FieldError::forbidden(path, message));
    }

    /// Reports a value that is taken.
    pub(crate) fn duplicate(&mut self, path: FieldPath, message: impl Into<String>) {
        self.errors.push(FieldError::duplicate(path, message));
    }

    /// Reports a value outside a closed set.
    pub(crate) fn one_of(&mut self, path: FieldPath, value: &str, allowed: &[&str]) {
        if !value.is_empty() && !allowed.contains(&value) {
            let text = format!("{value:?} is not known: use {}", allowed.join(", "));
            self.errors
                .push(FieldError::because(path, Reason::NotSupported, text));
        }
    }

    /// Reports a value outside a set, with a text of its own.
    pub(crate) fn one_of_text(&mut self, path: FieldPath, message: impl Into<String>) {
        self.errors.push(FieldError::not_supported(path, message));
    }

    /// Reports a name that is empty, malformed or already taken.
    pub(crate) fn unique_name<'n>(
        &mut self,
        path: &FieldPath,
        name: &'n str,
        seen: &mut BTreeMap<&'n str, FieldPath>,
    ) {
        if name.is_empty() {
            return self.required(path.clone(), "required: give it a name");
        }
        if !identity::is_dns_label(name) {
            self.add(
                path.clone(),
                format!("{name:?} is no valid name: {}", identity::LABEL_RULE),
            );
        }
        match seen.get(name) {
            Some(first) => {
                self.duplicate(
                    path.clone(),
                    format!("{name:?} is already the name at {first}: choose another"),
                );
            }
            None => {
                seen.insert(name, path.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
