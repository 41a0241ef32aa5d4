//! Keys of `spec.accessCredentials`: which secrets hold them, and reading them.

use std::path::{Path, PathBuf};

use api::access_credentials::{AccessCredential, SshPropagation};
use api::{FieldError, FieldPath, Vmi};

use super::VolumeCause;
use super::cloud_init::CloudInitKind;
use super::folder::read_files;
use super::place::Place;

/// Most bytes of a secret with keys; the API server's own bound is 1 MiB.
const MAX_KEYS_MIB: u64 = 1;

/// Returns the folders with the SSH keys that a cloud-init disk carries.
pub(super) fn key_folders(
    vmi: &Vmi,
    kind: CloudInitKind,
    place: &Place,
) -> Result<Vec<PathBuf>, FieldError> {
    let path = FieldPath::new("spec.accessCredentials");
    let mut folders = Vec::new();
    for (index, credential) in vmi.spec.access_credentials.iter().enumerate() {
        let ssh = credential.ssh_public_key.as_ref();
        if ssh.is_some_and(|ssh| propagates(&ssh.propagation_method, kind)) {
            let field = path
                .index(index)
                .child("sshPublicKey.source.secret.secretName");
            folders.push(place.access_secret(credential.secret_name(), &field)?);
        }
    }
    Ok(folders)
}

fn propagates(method: &SshPropagation, kind: CloudInitKind) -> bool {
    match kind {
        CloudInitKind::NoCloud => method.no_cloud.is_some(),
        CloudInitKind::ConfigDrive => method.config_drive.is_some(),
    }
}

/// Reads the secret of a credential: its files by name.
///
/// # Errors
///
/// Names the file or folder that cannot be read.
pub(crate) fn credential_files(
    credential: &AccessCredential,
    place: &Place,
) -> Result<Vec<(String, Vec<u8>)>, VolumeCause> {
    let field = FieldPath::new("spec.accessCredentials");
    let folder = place.access_secret(credential.secret_name(), &field);
    let folder = folder.unwrap_or_default();
    read_files(&folder, MAX_KEYS_MIB, "mount the secret there")
}

/// Returns the keys in a file: one a line, as `authorized_keys` has them.
pub(crate) fn keys(file: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(file);
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// Reads the keys of a folder: a key a line in any of its files, as `authorized_keys` has them.
pub(super) fn read_keys(folder: &Path) -> Result<Vec<String>, VolumeCause> {
    let cure = "mount the secret with the keys there";
    let mut all = Vec::new();
    for (_, bytes) in read_files(folder, MAX_KEYS_MIB, cure)? {
        all.extend(keys(&bytes));
    }
    Ok(all)
}
