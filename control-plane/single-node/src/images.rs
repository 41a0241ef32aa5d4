//! Images on this machine: brought from archives and registries, unpacked once, given to containers and volumes.
//!
//! ```text
//!   archive, layout ─▶ archive ─┐
//!                               ├─▶ unpack (layer by layer, digests checked) ─▶ store ─▶ resolve
//!   registry ────────▶ registry ┘
//! ```
//!
//! An image is known by the digest of its configuration, which names its layers' content; names and manifests lead to
//! it. Only SHA-256 digests and images for linux/amd64 are read; signatures are not checked.

mod archive;
mod bounded;
pub mod cli;
mod digest;
mod layer;
mod manifest;
mod progress;
mod pull;
mod records;
pub mod reference;
mod registry;
mod source;
mod store;
mod unpack;
mod usage;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

pub use self::digest::Digest;
pub use self::progress::{Progress, Report};
pub use self::reference::{Reference, ReferenceError};
pub use self::registry::{Keyring, KeyringError, Login};

use self::records::{Name, Record};
use self::reference::Version;
use self::store::Store;

/// Why something cannot be done with an image.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// A file of the store, or an archive.
    #[error("{what} {}", path.display())]
    File {
        /// What could not be done with it.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The name is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// An archive has no image that can be used.
    #[error("{}: {reason}", path.display())]
    Archive {
        /// The archive or layout.
        path: PathBuf,
        /// What is wrong, and the cure.
        reason: String,
    },
    /// An image cannot be used.
    #[error("image {reference}: {reason}")]
    Image {
        /// Its name.
        reference: String,
        /// What is wrong.
        reason: String,
    },
    /// There is none of that name.
    #[error("there is no image {reference}: `ferrovirt image ls` lists those that there are")]
    NotThere {
        /// The name, complete.
        reference: String,
    },
    /// It cannot be removed now.
    #[error("image {reference} is used by {users}: delete what runs it first")]
    InUse {
        /// The name.
        reference: String,
        /// Who uses it.
        users: String,
    },
}

impl ImagesError {
    fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}

/// An image of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its complete names; none when another image took them while this one is in use.
    pub references: Vec<String>,
    /// Digest of its configuration.
    pub digest: Digest,
    /// Bytes of its files.
    pub size: u64,
    /// When it was made, where it says so.
    pub created: Option<Timestamp>,
}

impl From<&Record> for ImageInfo {
    fn from(record: &Record) -> Self {
        Self {
            references: record.names.iter().map(|it| it.reference.clone()).collect(),
            digest: record.id.clone(),
            size: record.size_bytes,
            created: record.created,
        }
    }
}

/// The images of a folder. Clones are the same, and other processes may use the folder too.
#[derive(Clone, Debug)]
pub struct Images {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    pulls: source::Pulls,
}

impl Images {
    /// Opens the images of a folder, which is made where it is missing; beside it, `sandboxes` tells what is in use.
    /// Removes what a crash has left. Blocks.
    ///
    /// # Errors
    ///
    /// Fails when the folder cannot be used.
    pub fn open(folder: &Path) -> Result<Self, ImagesError> {
        let shared = Shared {
            store: Store::open(folder)?,
            pulls: source::Pulls::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Imports the images of an archive (OCI, or of `docker save`; gzip or zstd) or of an OCI layout folder; `-` is
    /// standard input. Under a name, it must be one image. Blocks.
    ///
    /// # Errors
    ///
    /// Fails when the archive has no name for its image and none is given, or is damaged or hostile; nothing is imported
    /// then.
    pub fn import(
        &self,
        path: &Path,
        name: Option<&str>,
        report: &Report,
    ) -> Result<Vec<ImageInfo>, ImagesError> {
        let name = name.map(Reference::parse).transpose()?;
        let archive = archive::Archive::open(path, self.store())?;
        let images = archive.images(name.as_ref())?;
        let mut imported = Vec::new();
        for image in images {
            report(&Progress::Image {
                reference: image.label.clone(),
            });
            imported.push(unpack::make(self.store(), &image, report)?);
        }
        Ok(imported.iter().map(ImageInfo::from).collect())
    }

    /// Lists the images. Blocks shortly.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub fn list(&self) -> Result<Vec<ImageInfo>, ImagesError> {
        let records = self.store().records()?;
        Ok(records.images.iter().map(ImageInfo::from).collect())
    }

    /// Removes a name, and the image with its last one. Blocks.
    ///
    /// # Errors
    ///
    /// Fails when there is none, and when its last name would go while a container uses it.
    pub fn remove(&self, reference: &str) -> Result<(), ImagesError> {
        let whole = Digest::parse(reference);
        let parsed = match &whole {
            Some(_) => None,
            None => Some(Reference::parse(reference)?),
        };
        let shown = parsed
            .as_ref()
            .map_or_else(|| reference.to_owned(), Reference::to_string);
        self.store().change(|records| {
            let not_there = || ImagesError::NotThere {
                reference: shown.clone(),
            };
            let id = match (&whole, &parsed) {
                (Some(digest), _) => digest.clone(),
                (None, Some(parsed)) => records.find(parsed).ok_or_else(not_there)?.0.id.clone(),
                (None, None) => return Err(not_there()),
            };
            let at = records
                .images
                .iter()
                .position(|it| it.id == id)
                .ok_or_else(not_there)?;
            let record = &mut records.images[at];
            let is_by_tag = parsed.is_some_and(|it| matches!(it.version, Version::Tag(_)));
            if is_by_tag && record.names.len() > 1 {
                record.names.retain(|it| it.reference != shown);
                return Ok(());
            }
            let users = self.store().users(&id);
            if !users.is_empty() {
                return Err(ImagesError::InUse {
                    reference: shown.clone(),
                    users: users.join(", "),
                });
            }
            records.images.remove(at);
            Ok(())
        })
    }
}

/// Names that somebody gave here.
fn imported(references: &[Reference]) -> Vec<Name> {
    let name = |it: &Reference| Name {
        reference: it.to_string(),
        is_imported: true,
    };
    references.iter().map(name).collect()
}

#[cfg(test)]
mod tests;
