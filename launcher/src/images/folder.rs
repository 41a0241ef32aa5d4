//! Images whose files lie in a folder: unpacked by hand, or mounted by a kubelet.

use std::fs;
use std::path::{Path, PathBuf};

use super::ImageError;
use super::reference::Reference;
use super::tree::{self, Node};

/// Entries of a folder that are looked at.
const MAX_ENTRIES: usize = 20_000;
/// Files named in an error.
pub(super) const SHOWN_FILES: usize = 5;

/// Returns the path of a file of the image that is mounted at a folder.
///
/// # Errors
///
/// Fails when the name is none, nothing is mounted there, or the file is not in it.
pub fn mounted_file(root: &Path, image: &str, path: &str) -> Result<PathBuf, ImageError> {
    file(root, &mounted(root, image)?, path)
}

/// Returns the path of the only file below `/disk` of the image that is mounted at a folder.
///
/// # Errors
///
/// As [`mounted_file`], and when there is none or more than one.
pub fn mounted_disk(root: &Path, image: &str) -> Result<PathBuf, ImageError> {
    only_disk(root, &mounted(root, image)?)
}

fn mounted(root: &Path, image: &str) -> Result<Reference, ImageError> {
    let image = Reference::parse(image)?;
    if root.is_dir() {
        return Ok(image);
    }
    let dir = root.to_owned();
    Err(ImageError::NotMounted { image, dir })
}

/// Follows links inside the image only.
pub(super) fn file(root: &Path, image: &Reference, path: &str) -> Result<PathBuf, ImageError> {
    match tree::resolve(path, |path| node(root, path)) {
        Some((path, Node::File(()))) => Ok(root.join(path)),
        _ => Err(ImageError::NoFile {
            image: image.clone(),
            path: path.to_owned(),
            holds: listing(&names(root)),
        }),
    }
}

pub(super) fn only_disk(root: &Path, image: &Reference) -> Result<PathBuf, ImageError> {
    let mut disks = names(&root.join("disk"));
    disks.retain(|name| matches!(node(root, &format!("disk/{name}")), Some(Node::File(()))));
    match disks.as_slice() {
        [only] => Ok(root.join("disk").join(only)),
        _ => Err(ImageError::NoSingleDisk {
            image: image.clone(),
            found: listing(&disks),
        }),
    }
}

fn node(root: &Path, path: &str) -> Option<Node<()>> {
    let full = root.join(path);
    let kind = full.symlink_metadata().ok()?.file_type();
    Some(if kind.is_symlink() {
        Node::Symlink(full.read_link().ok()?.to_string_lossy().into_owned())
    } else if kind.is_dir() {
        Node::Directory
    } else if kind.is_file() {
        Node::File(())
    } else {
        Node::Other
    })
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().take(MAX_ENTRIES);
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

/// A few names for an error.
pub(super) fn listing(names: &[String]) -> String {
    match names.len() {
        0 => "nothing".to_owned(),
        count if count > SHOWN_FILES => format!("{}, …", names[..SHOWN_FILES].join(", ")),
        _ => names.join(", "),
    }
}
