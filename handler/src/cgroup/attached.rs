//! Devices in control groups of version 2, where programs of the kernel's decide. Whoever is in a group may do what the
//! programs of the group and of all groups above it allow, every one of them.
//!
//! The container runtime attached a program to the launcher's group (and systemd perhaps another). Each is replaced by
//! one that decides by our rules first, and then as before. Programs of groups above are others': when they deny what is
//! to be allowed, that is an error.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use tracing::{debug, warn};

use super::bpf::{self, Attached};
use super::program::{Instruction, LEN_MAX, Request, decide, extended, is_plain, whole};
use super::rules::{DeviceNode, DeviceRule, rules as needed_by_all, runtime_rules};
use super::{CgroupError, present};

/// A program of a group.
struct Program {
    descriptor: OwnedFd,
    /// Empty when the kernel doesn't show them.
    instructions: Vec<Instruction>,
}

impl Program {
    fn body(&self) -> &[Instruction] {
        &self.instructions
    }
}

/// Why programs cannot be replaced.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// One of so many does what is not understood.
    Opaque(usize),
    /// One would get this long.
    TooLong(usize),
}

/// Lets the members of a group, whose root folder is given, do what the rules allow. Blocks.
pub(super) fn allow(group: &Path, root: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let path = || group.to_owned();
    let failed = |source| CgroupError::Programs {
        path: path(),
        source,
    };
    let folder = File::open(group).map_err(|source| CgroupError::Find {
        path: path(),
        source,
    })?;
    let attached = bpf::attached(folder.as_fd(), false).map_err(failed)?;
    let above = above(folder.as_fd(), &attached).map_err(failed)?;
    if let Some(rule) = denied(&above, rules) {
        return Err(CgroupError::Above {
            path: path(),
            rule: rule.to_string(),
        });
    }
    let programs = open_all(&attached.ids).map_err(failed)?;
    let bodies: Vec<_> = programs.iter().map(Program::body).collect();
    let present = if bodies.iter().all(|it| is_plain(it)) {
        vec![]
    } else {
        present(root)?
    };
    let replacements = plan(&bodies, rules, &present).map_err(|refusal| refusal.of(group))?;
    replace(folder.as_fd(), &attached, &programs, &replacements).map_err(failed)
}

fn open_all(ids: &[u32]) -> Result<Vec<Program>, bpf::BpfError> {
    let open = |id: &u32| {
        let descriptor = bpf::open(*id)?;
        let instructions = bpf::instructions(&descriptor)?;
        Ok(Program {
            descriptor,
            instructions,
        })
    };
    ids.iter().map(open).collect()
}

/// Returns the programs of the groups above.
fn above(group: BorrowedFd<'_>, own: &Attached) -> Result<Vec<Program>, bpf::BpfError> {
    let mut ids = bpf::attached(group, true)?.ids;
    for own in &own.ids {
        // The same program may be attached above as well.
        if let Some(at) = ids.iter().position(|id| id == own) {
            ids.remove(at);
        }
    }
    open_all(&ids)
}

/// Returns a rule that allows what one of the programs denies. What every launcher may use is not looked at: not every
/// machine needs it.
fn denied<'a>(programs: &[Program], rules: &'a [DeviceRule]) -> Option<&'a DeviceRule> {
    let usual = needed_by_all(&[]);
    let mut wanted = rules
        .iter()
        .filter(|rule| rule.is_allowed && !usual.contains(rule));
    wanted.find(|rule| {
        requests(rule).iter().any(|request| {
            programs
                .iter()
                .any(|it| decide(&it.instructions, request) == Some(false))
        })
    })
}

/// Returns how a device that a rule names is used.
fn requests(rule: &DeviceRule) -> Vec<Request> {
    let (Some(major), Some(minor)) = (rule.major, rule.minor) else {
        return vec![];
    };
    let node = DeviceNode {
        kind: rule.kind,
        major,
        minor,
    };
    let uses = ["r", "w"].into_iter();
    let uses = uses.filter(|access| rule.access.contains(access));
    uses.map(|access| Request::new(node, access)).collect()
}

/// Returns what replaces each program of a group, `present` being the devices that its members have. A single program
/// that cannot be extended is replaced by a list of all that a runtime allows and of those devices.
fn plan(
    programs: &[&[Instruction]],
    rules: &[DeviceRule],
    present: &[DeviceNode],
) -> Result<Vec<Vec<Instruction>>, Refusal> {
    let replacements: Vec<_> = match programs {
        [program] if !is_plain(program) => {
            let mut all = runtime_rules();
            all.extend(present.iter().copied().map(DeviceRule::allow));
            all.extend_from_slice(rules);
            vec![whole(&all)]
        }
        programs if programs.iter().all(|it| is_plain(it)) => {
            programs.iter().map(|it| extended(rules, it)).collect()
        }
        programs => return Err(Refusal::Opaque(programs.len())),
    };
    match replacements.iter().map(Vec::len).max() {
        Some(length) if length > LEN_MAX => Err(Refusal::TooLong(length)),
        _ => Ok(replacements),
    }
}

impl Refusal {
    fn of(self, group: &Path) -> CgroupError {
        let path = group.to_owned();
        match self {
            Self::Opaque(count) => CgroupError::Opaque { path, count },
            Self::TooLong(length) => CgroupError::TooLong { path, length },
        }
    }
}

/// Puts the replacements in the place of the programs. All are loaded before the first is attached: what the kernel does
/// not take changes nothing.
fn replace(
    group: BorrowedFd<'_>,
    attached: &Attached,
    programs: &[Program],
    replacements: &[Vec<Instruction>],
) -> Result<(), bpf::BpfError> {
    let pairs = programs.iter().zip(replacements);
    let changed = pairs.filter(|(old, new)| old.instructions != **new);
    let load = |(old, new): (_, &Vec<Instruction>)| Ok((old, bpf::load(new)?));
    let loaded: Vec<(&Program, OwnedFd)> = changed.map(load).collect::<Result<_, _>>()?;
    for (old, new) in &loaded {
        if !is_plain(&old.instructions) {
            warn!(
                "the program that a container runtime attached cannot be kept; devices are allowed by a list of our own"
            );
        }
        bpf::replace(group, attached, &old.descriptor, new)?;
    }
    debug!(count = loaded.len(), "programs for devices replaced");
    Ok(())
}

#[cfg(test)]
mod tests;
