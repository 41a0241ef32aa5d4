//! Which devices the launcher's control group may use (§2.13).

use api::Vmi;

use crate::config::HostPaths;
use crate::launchers::Launcher;

/// Why devices cannot be allowed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {}

/// Allows the launcher those devices that its container was given. Blocks. Control groups of version 2 need nothing: the
/// container runtime has allowed what it put there.
///
/// # Errors
///
/// Fails when the group cannot be found or written.
pub fn allow_present(
    _paths: &HostPaths,
    _vmi: &Vmi,
    _launcher: &Launcher,
) -> Result<(), CgroupError> {
    Ok(())
}
