//! Opening images: options, safe probing and chains of backing files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::create::CreateError;
use crate::disk::{Disk, DiskError};
use crate::host_file::{HostFile, Identity};
use crate::qcow2::{self, Backing, Header, Qcow2Disk, Setup};
use crate::raw::RawDisk;

/// The longest chain of backing files that is followed. Each layer holds a file and a cache.
const MAX_LAYERS: usize = 64;

/// The format of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The file's bytes are the disk's.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
}

/// When the host's page cache may keep what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Writes reach the page cache; a flush reaches the file system.
    #[default]
    Writeback,
    /// Every write is followed by a flush.
    Writethrough,
    /// Data goes past the page cache (`O_DIRECT`) where the file system can do that; where it
    /// cannot, this is [`CacheMode::Writeback`], a warning in the log and a
    /// [`note`](Disk::note) of the disk.
    None,
}

/// How to open an image.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// The format; without it the first bytes decide between qcow2 and raw.
    pub format: Option<Format>,
    /// Refuses every change, and opens the file for reading only.
    pub read_only: bool,
    /// Allows the image to name other files that are opened as its backing files.
    pub follow_backing: bool,
    /// When the page cache may keep what was written.
    pub cache: CacheMode,
}

/// Why an image could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The host refused to open the file.
    #[error("open the image {}", path.display())]
    Open {
        /// The image file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The path names a directory, a FIFO or a character device.
    #[error("open the image {}: it is neither a regular file nor a block device", path.display())]
    NotADisk {
        /// The path.
        path: PathBuf,
    },
    /// Another process, or another disk of this one, has the image open and one of the two writes.
    #[error("open the image {}: it is in use by another virtual machine", path.display())]
    InUse {
        /// The image file.
        path: PathBuf,
    },
    /// The image file could not be read or prepared for writing.
    #[error("read the image {}", path.display())]
    Access {
        /// The image file.
        path: PathBuf,
        /// What went wrong.
        source: DiskError,
    },
    /// A field of the header has a value that cannot be.
    #[error("open the image {}: {field} {problem}", path.display())]
    Header {
        /// The image file.
        path: PathBuf,
        /// The field, in the words of the qcow2 specification.
        field: &'static str,
        /// What is wrong with it, and the cure if there is one.
        problem: String,
    },
    /// The image needs a feature that is not there.
    #[error("open the image {}: {feature} is not supported, convert the image with qemu-img convert", path.display())]
    Unsupported {
        /// The image file.
        path: PathBuf,
        /// The feature.
        feature: String,
    },
    /// The image names a backing file and the caller did not allow that.
    #[error("open the image {}: it names the backing file {backing:?}, which is not followed; \
        flatten the image with qemu-img convert, or allow backing files and record their format",
        path.display())]
    BackingNotFollowed {
        /// The image file.
        path: PathBuf,
        /// The backing file as the image names it.
        backing: String,
    },
    /// A backing file is one of the images that stand on it.
    #[error("open the image {}: its chain of backing files comes back to it", path.display())]
    BackingLoop {
        /// The image that would be opened twice.
        path: PathBuf,
    },
    /// The chain of backing files has too many layers.
    #[error("open the image {}: its chain of backing files has more than {MAX_LAYERS} layers", path.display())]
    ChainTooLong {
        /// The first image that is too much.
        path: PathBuf,
    },
    /// The file for an overlay could not be made.
    #[error("create an overlay")]
    Create(#[from] CreateError),
}

/// Opens an image.
///
/// A qcow2 image may name a backing file. That file is opened, read-only, only if `follow_backing`
/// is set; a backing file whose format the image does not record is probed, and may then not name
/// another one itself. A writable qcow2 image is locked against a second user, and refused if it is
/// marked dirty or corrupt; for reading such an image opens, for its mapping is what there is.
///
/// # Errors
/// Every [`OpenError`] except [`OpenError::Create`].
pub fn open(path: &Path, options: &OpenOptions) -> Result<Arc<dyn Disk>, OpenError> {
    open_layer(path, options, &mut Vec::new())
}

/// Puts a copy-on-write layer over `base`, which is never written.
///
/// The layer is a new sparse qcow2 file, `overlay_file`, which does not name its base. The disk has
/// `size` bytes, by default those of `base`; what lies beyond the base reads as zeroes.
///
/// # Errors
/// [`OpenError::Create`] when the file exists, the size cannot be, or the host refuses.
pub fn overlay(
    base: Arc<dyn Disk>,
    overlay_file: &Path,
    size: Option<u64>,
) -> Result<Arc<dyn Disk>, OpenError> {
    let len_bytes = size.unwrap_or_else(|| base.len_bytes());
    qcow2::create(overlay_file, len_bytes, &qcow2::Layout::default())?;
    let layer = open_overlay(base, overlay_file, CacheMode::default());
    if layer.is_err() {
        crate::create::remove_partial(overlay_file);
    }
    layer
}

/// Opens a layer that [`overlay`] made over `base` once, with all that was written to it.
///
/// Nothing in the file tells what it was made over: over anything but the same base it is rubbish.
///
/// # Errors
/// Every [`OpenError`] except [`OpenError::Create`].
pub fn open_overlay(
    base: Arc<dyn Disk>,
    overlay_file: &Path,
    cache: CacheMode,
) -> Result<Arc<dyn Disk>, OpenError> {
    let file = HostFile::open(overlay_file, false, cache == CacheMode::None)?;
    file.claim(false)?;
    let header = Header::read(&file)?;
    if let Some(backing) = header.backing {
        return Err(OpenError::BackingNotFollowed {
            path: overlay_file.to_owned(),
            backing: backing.name,
        });
    }
    let setup = Setup {
        backing: Some(base),
        read_only: false,
        writethrough: cache == CacheMode::Writethrough,
        depth: 0,
    };
    Ok(Arc::new(Qcow2Disk::new(file, &header, setup)?))
}

/// Opens the layer over `base` if there is one, as [`open_overlay`] does, and makes it if there is
/// none, as [`overlay`] does. A file whose making was cut short is made anew.
///
/// # Errors
/// Every [`OpenError`].
pub fn open_or_create_overlay(
    base: Arc<dyn Disk>,
    overlay_file: &Path,
    size: Option<u64>,
    cache: CacheMode,
) -> Result<Arc<dyn Disk>, OpenError> {
    match is_unfinished(overlay_file)? {
        Some(false) => return open_overlay(base, overlay_file, cache),
        Some(true) => crate::create::remove_partial(overlay_file),
        None => {}
    }
    let len_bytes = size.unwrap_or_else(|| base.len_bytes());
    qcow2::create(overlay_file, len_bytes, &qcow2::Layout::default())?;
    open_overlay(base, overlay_file, cache)
}

/// Tells whether a file lacks the header, which a new image gets last; none if there is no file.
fn is_unfinished(path: &Path) -> Result<Option<bool>, OpenError> {
    let file = match HostFile::open(path, true, false) {
        Ok(file) => file,
        Err(OpenError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    // Somebody who is just making it has not locked it, but nobody makes one file twice at once.
    let mut magic = [0; 4];
    let got = file.read_up_to(0, &mut magic);
    let got = got.map_err(|source| OpenError::Access {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(magic[..got] == [0; 4][..got]))
}

/// Makes the disk in an image at least `len_bytes` long; returns how long it is then.
///
/// # Errors
/// Every [`OpenError`] except [`OpenError::Create`]: [`OpenError::Access`] where the disk cannot grow.
pub fn resize(path: &Path, format: Format, len_bytes: u64) -> Result<u64, OpenError> {
    let options = OpenOptions {
        format: Some(format),
        follow_backing: true,
        ..OpenOptions::default()
    };
    let disk = open(path, &options)?;
    let access = |source| OpenError::Access {
        path: path.to_owned(),
        source,
    };
    disk.grow(len_bytes).map_err(access)?;
    Ok(disk.len_bytes())
}

fn open_layer(
    path: &Path,
    options: &OpenOptions,
    chain: &mut Vec<Identity>,
) -> Result<Arc<dyn Disk>, OpenError> {
    if chain.len() >= MAX_LAYERS {
        return Err(OpenError::ChainTooLong {
            path: path.to_owned(),
        });
    }
    let file = HostFile::open(path, options.read_only, options.cache == CacheMode::None)?;
    let access = |source| OpenError::Access {
        path: path.to_owned(),
        source,
    };
    let identity = file.identity().map_err(access)?;
    if chain.contains(&identity) {
        return Err(OpenError::BackingLoop {
            path: path.to_owned(),
        });
    }
    chain.push(identity);
    let format = match options.format {
        Some(format) => format,
        None => probe(&file).map_err(access)?,
    };
    match format {
        Format::Qcow2 => open_qcow2(file, options, chain),
        Format::Raw => {
            let writethrough = options.cache == CacheMode::Writethrough;
            let disk = RawDisk::new(file, options.read_only, writethrough).map_err(access)?;
            Ok(Arc::new(disk))
        }
    }
}

/// Tells the format by the first bytes. Whatever is not qcow2 is raw.
fn probe(file: &HostFile) -> Result<Format, DiskError> {
    let mut magic = [0; 4];
    let got = file.read_up_to(0, &mut magic)?;
    let qcow2 = got == magic.len() && u32::from_be_bytes(magic) == qcow2::MAGIC;
    Ok(if qcow2 { Format::Qcow2 } else { Format::Raw })
}

fn open_qcow2(
    file: HostFile,
    options: &OpenOptions,
    chain: &mut Vec<Identity>,
) -> Result<Arc<dyn Disk>, OpenError> {
    let header = Header::read(&file)?;
    let depth = chain.len() - 1;
    file.claim(options.read_only)?;
    let backing = match &header.backing {
        None => None,
        Some(backing) => Some(open_backing(file.path(), backing, options, chain)?),
    };
    let setup = Setup {
        backing,
        read_only: options.read_only,
        writethrough: options.cache == CacheMode::Writethrough,
        depth,
    };
    Ok(Arc::new(Qcow2Disk::new(file, &header, setup)?))
}

fn open_backing(
    path: &Path,
    backing: &Backing,
    options: &OpenOptions,
    chain: &mut Vec<Identity>,
) -> Result<Arc<dyn Disk>, OpenError> {
    if !options.follow_backing {
        let backing = backing.name.clone();
        return Err(OpenError::BackingNotFollowed {
            path: path.to_owned(),
            backing,
        });
    }
    let below = OpenOptions {
        format: backing.format,
        read_only: true,
        follow_backing: backing.format.is_some(),
        cache: options.cache,
    };
    open_layer(&backing_path(path, &backing.name)?, &below, chain)
}

/// Finds the backing file, which a relative name places beside the image that names it.
fn backing_path(path: &Path, name: &str) -> Result<PathBuf, OpenError> {
    let local = name.strip_prefix("file:").unwrap_or(name);
    let before_slash = local.split('/').next().unwrap_or_default();
    if before_slash.contains(':') {
        let feature = format!("the backing file protocol of {name:?}");
        return Err(OpenError::Unsupported {
            path: path.to_owned(),
            feature,
        });
    }
    Ok(path.parent().unwrap_or(Path::new("")).join(local))
}
