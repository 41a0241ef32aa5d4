//! Container images from a folder: the disks and kernels that a manifest names by image.
//!
//! An image folder holds OCI image layouts, OCI or Docker archives (`.tar`), or plain folders with an
//! image's files. Files are taken out of the layers once and kept in a cache by the image's digest,
//! where they are never written again.

mod archive;
mod folder;
mod layers;
mod layout;
mod reference;
mod store;
mod tar;
mod tree;

use std::io;
use std::path::PathBuf;

pub use folder::{mounted_disk, mounted_file};
pub use reference::{Reference, ReferenceError};
pub use store::ImageStore;

/// Why a file of a container image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name is malformed.
    #[error(transparent)]
    Name(#[from] ReferenceError),
    /// No folder was given to look in.
    #[error("image {0} cannot be looked up: give the folder that holds it with --image-dir")]
    NoFolder(Reference),
    /// Nothing in the folder has that name.
    #[error(
        "image {image} is not in {}: put its OCI layout or archive there (for example `skopeo copy docker://{image} oci-archive:NAME.tar:{image}`) or give another --image-dir",
        dir.display()
    )]
    NotFound {
        /// The image.
        image: Reference,
        /// The image folder.
        dir: PathBuf,
    },
    /// Nobody mounted it.
    #[error(
        "image {image} is not mounted at {}: see the pod's events for what keeps its volume from being mounted",
        dir.display()
    )]
    NotMounted {
        /// The image.
        image: Reference,
        /// Where it should be.
        dir: PathBuf,
    },
    /// A file of the image folder or the cache cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// A file of the image folder contradicts itself.
    #[error("{} is damaged or incomplete: {problem}: copy the image again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The image is for other machines.
    #[error("image {0} has no variant for linux/amd64: use an image that has")]
    Platform(Reference),
    /// The image has no such file.
    #[error("image {image} has no file {path}: correct the path (it holds {holds})")]
    NoFile {
        /// The image.
        image: Reference,
        /// The path in the image.
        path: String,
        /// A few files that it does hold.
        holds: String,
    },
    /// There is no single disk image.
    #[error(
        "image {image} has {found} below /disk where one disk image should be: set containerDisk.path"
    )]
    NoSingleDisk {
        /// The image.
        image: Reference,
        /// What is there.
        found: String,
    },
    /// The cache cannot be written.
    #[error("write {}: free some room or give another --cache-dir", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
}

impl ImageError {
    fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::Read { path, source }
    }

    fn damaged(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.into(),
            problem: problem.into(),
        }
    }
}

#[cfg(test)]
mod tests;
