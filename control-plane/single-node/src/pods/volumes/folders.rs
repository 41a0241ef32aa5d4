//! Volumes that are folders: emptyDir and hostPath.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use rustix::mount::{MountFlags, mount};

use crate::pods::environment::units;
use crate::sandbox::mount_table::MountTable;

/// Makes an emptyDir. What is there already is kept.
pub(super) fn empty_dir(
    folder: &Path,
    wanted: &EmptyDirVolumeSource,
    group: Option<u32>,
) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let limit = wanted
        .size_limit
        .as_ref()
        .map(units)
        .filter(|bytes| *bytes > 0);
    match wanted.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => in_memory(
            folder,
            "tmpfs",
            &limit.map_or(String::new(), |bytes| format!("size={bytes}")),
        )?,
        pages => {
            let size = pages
                .strip_prefix("HugePages")
                .map(|size| size.trim_start_matches('-').trim_end_matches('i'));
            let size = size.ok_or_else(|| {
                io::Error::other(format!(
                    "emptyDir.medium {pages:?} is neither Memory nor HugePages"
                ))
            })?;
            let options = if size.is_empty() {
                String::new()
            } else {
                format!("pagesize={size}")
            };
            in_memory(folder, "hugetlbfs", &options)?;
        }
    }
    open_to_all(folder, group)
}

/// Any user of the pod may write; what is made there belongs to the pod's group.
pub(super) fn open_to_all(folder: &Path, group: Option<u32>) -> io::Result<()> {
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    if group.is_some() {
        std::os::unix::fs::chown(folder, None, group)?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(mode))
}

/// Mounts a file system in memory unless there is one.
pub(super) fn in_memory(folder: &Path, kind: &str, options: &str) -> io::Result<()> {
    if MountTable::read()?.is_mount_point(folder) {
        return Ok(());
    }
    let options = std::ffi::CString::new(options)?;
    Ok(mount(
        kind,
        folder,
        kind,
        MountFlags::NOSUID | MountFlags::NODEV,
        &*options,
    )?)
}

/// Checks a path of the host, and makes it where its type says so. Returns whether it is a block device.
pub(super) fn host_path(path: &Path, kind: &str) -> io::Result<bool> {
    match kind {
        "DirectoryOrCreate" => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)?,
        "FileOrCreate" if !path.exists() => {
            fs::write(path, "")?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
        }
        _ => {}
    }
    let absent = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("hostPath {}: {error}", path.display()),
        )
    };
    let found = fs::metadata(path).map_err(absent)?.file_type();
    let (fits, expected) = match kind {
        "" => (true, "file"),
        "Directory" | "DirectoryOrCreate" => (found.is_dir(), "directory"),
        "File" | "FileOrCreate" => (found.is_file(), "file"),
        "Socket" => (found.is_socket(), "socket"),
        "CharDevice" => (found.is_char_device(), "character device"),
        "BlockDevice" => (found.is_block_device(), "block device"),
        other => {
            return Err(io::Error::other(format!(
                "hostPath.type {other:?} is unknown"
            )));
        }
    };
    if !fits {
        return Err(io::Error::other(format!(
            "hostPath type check failed: {} is not a {expected}",
            path.display()
        )));
    }
    Ok(found.is_block_device())
}
