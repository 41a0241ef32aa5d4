//! What is left on the node of instances that are gone.

use std::collections::BTreeSet;
use std::io;

use crate::config::HostPaths;

/// What there is on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {}

/// Something that nobody needs any more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leftover {}

/// Looks at what there is. Blocks.
#[must_use]
pub fn observe(_paths: &HostPaths) -> Observed {
    Observed {}
}

/// Returns what nobody needs any more; never what belongs to one of the instances that are known by uid.
#[must_use]
pub fn leftovers(_observed: &Observed, _known_uids: &BTreeSet<String>) -> Vec<Leftover> {
    Vec::new()
}

/// Removes a leftover. Blocks.
///
/// # Errors
///
/// Fails when the node refuses.
pub fn remove(_paths: &HostPaths, leftover: &Leftover) -> io::Result<()> {
    match *leftover {}
}
