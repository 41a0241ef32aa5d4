//! Layers: tar archives, packed or not, that are laid over each other (OCI image-spec, "Image Layer Filesystem
//! Changeset").

mod tree;

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

use self::tree::{Attributes, Tree};
use super::bounded::Allowance;
use super::digest::{Digest, Hashing};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Begins the name of a file that hides one of a lower layer.
const WHITEOUT: &str = ".wh.";
/// Hides all that lower layers have in its folder.
const OPAQUE: &str = ".wh..wh..opq";
/// Begins the names of other notes of union file systems.
const WHITEOUT_NOTE: &str = ".wh..wh.";
/// Most bytes of padding after the last file, unpacked and packed.
const TRAILER_MAX_BYTES: u64 = 64 << 20;
/// Most folders in a path.
const DEPTH_MAX: usize = 128;
/// Bytes that are read at once.
const BUFFER_LEN_BYTES: usize = 64 << 10;

/// What an image may still have; the numbers are beyond any image, and below what harms a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// Files and folders.
    pub(super) entries: u64,
    /// Bytes of all files, holes included.
    pub(super) bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            bytes: 1 << 40,
        }
    }
}

/// What a layer must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    /// Digest of the layer as it is given.
    pub(super) packed: Option<&'a Digest>,
    /// Digest of the unpacked layer.
    pub(super) unpacked: &'a Digest,
}

/// Lays a layer over the files of a root, and returns the bytes of its files. What it made is worthless when it fails:
/// digests are checked at the end.
pub(super) fn apply(
    packed: impl Read,
    expected: Expected<'_>,
    root: &OwnedFd,
    budget: &mut Budget,
) -> io::Result<u64> {
    let packed = Hashing::new(packed);
    let mut packed = BufReader::with_capacity(BUFFER_LEN_BYTES, packed);
    let unpacked = Hashing::new(unpack(&mut packed)?);
    let (unpacked, size_bytes) = lay(unpacked, root, budget)?;
    let (found, _, _) = unpacked.finish(TRAILER_MAX_BYTES)?;
    check(expected.unpacked, &found, "unpacked layer")?;
    let (found, _, _) = packed.into_inner().finish(TRAILER_MAX_BYTES)?;
    if let Some(digest) = expected.packed {
        check(digest, &found, "layer")?;
    }
    Ok(size_bytes)
}

fn check(expected: &Digest, found: &Digest, what: &str) -> io::Result<()> {
    if expected == found {
        return Ok(());
    }
    let reason = format!("the {what} is damaged: its digest is {found} and must be {expected}");
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}

/// Unpacks by what the first bytes say.
pub(super) fn unpack<'a>(mut packed: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let magic = packed.fill_buf()?;
    if magic.starts_with(&GZIP_MAGIC) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(packed)));
    }
    if magic.starts_with(&ZSTD_MAGIC) {
        return Ok(Box::new(Frames::new(packed)?));
    }
    Ok(Box::new(packed))
}

/// Whether bytes begin a packed file.
pub(super) fn is_packed(magic: &[u8]) -> bool {
    magic.starts_with(&GZIP_MAGIC) || magic.starts_with(&ZSTD_MAGIC)
}

/// A layer being laid over others.
struct Laying<'a> {
    tree: Tree<'a>,
    budget: &'a mut Budget,
    /// What the layer itself has, which its opaque folders do not hide.
    own: HashSet<PathBuf>,
    size_bytes: u64,
}

fn lay<R: Read>(layer: R, root: &OwnedFd, budget: &mut Budget) -> io::Result<(R, u64)> {
    let allowed = Allowance::default();
    let mut archive = tar::Archive::new(allowed.bound(layer));
    let mut laying = Laying {
        tree: Tree::new(root),
        budget,
        own: HashSet::new(),
        size_bytes: 0,
    };
    for entry in archive.entries()? {
        let mut entry = entry?;
        allowed.content();
        let path = entry.path_bytes().into_owned();
        let laid = laying
            .lay(&mut entry)
            .and_then(|()| io::copy(&mut entry, &mut io::sink()));
        laid.map_err(|error| about(&path, &error))?;
        allowed.headers();
    }
    allowed.content();
    Ok((archive.into_inner().inner, laying.size_bytes))
}

fn about(path: &[u8], error: &io::Error) -> io::Error {
    let path: String = String::from_utf8_lossy(path).chars().take(200).collect();
    io::Error::new(error.kind(), format!("file {path:?} of the image: {error}"))
}

fn refused(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

impl Laying<'_> {
    fn lay<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        self.pay(entry.size())?;
        let path = plain(&entry.path_bytes())?;
        let name = path.file_name().unwrap_or_default().as_bytes();
        if name.starts_with(WHITEOUT.as_bytes()) {
            return self.hide(&path);
        }
        self.own_with_parents(&path);
        match kind {
            EntryType::Directory => self.tree.make_folder(&path, &attributes(entry)?),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let attributes = attributes(entry)?;
                self.size_bytes += self.tree.make_file(&path, entry, &attributes)?;
                Ok(())
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().map(Cow::into_owned);
                let target = target.ok_or_else(|| refused("a symbolic link has no target"))?;
                self.tree
                    .make_link(&path, OsStr::from_bytes(&target), &attributes(entry)?)
            }
            EntryType::Link => {
                let target = entry.link_name_bytes();
                let target = plain(&target.ok_or_else(|| refused("a hard link has no target"))?)?;
                self.tree.make_second_name(&path, &target)
            }
            EntryType::Fifo => self.tree.make_fifo(&path, &attributes(entry)?),
            // Containers get the devices that they may have in their own /dev.
            _ => Ok(()),
        }
    }

    fn pay(&mut self, bytes: u64) -> io::Result<()> {
        let Budget {
            entries,
            bytes: left,
        } = *self.budget;
        let paid = entries.checked_sub(1).zip(left.checked_sub(bytes));
        let (entries, bytes) =
            paid.ok_or_else(|| refused("the image has too many or too large files"))?;
        *self.budget = Budget { entries, bytes };
        Ok(())
    }

    fn own_with_parents(&mut self, path: &Path) {
        for path in path.ancestors() {
            if !self.own.insert(path.to_owned()) {
                break;
            }
        }
    }

    fn hide(&mut self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let folder = path.parent().unwrap_or(Path::new(""));
        if name == OPAQUE.as_bytes() {
            return self.tree.clear(folder, &self.own);
        }
        if name.starts_with(WHITEOUT_NOTE.as_bytes()) {
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&name[WHITEOUT.len()..]);
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(refused("a whiteout hides no file"));
        }
        self.tree.remove(&folder.join(hidden))
    }
}

fn attributes<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Attributes> {
    let extended = tree::extended(entry)?;
    let header = entry.header();
    let fields = header.as_old();
    let id = |field: &[u8], id: io::Result<u64>| {
        let id = u32::try_from(number(field, id)?);
        id.map_err(|_| refused("its owner is no number of 32 bits"))
    };
    let mode = number(&fields.mode, header.mode().map(u64::from))? & 0o7777;
    let modified_s = number(&fields.mtime, header.mtime())?;
    Ok(Attributes {
        mode: u32::try_from(mode).unwrap_or_default(),
        uid: id(&fields.uid, header.uid())?,
        gid: id(&fields.gid, header.gid())?,
        modified_s: i64::try_from(modified_s).unwrap_or_default(),
        extended,
    })
}

/// Returns the number of a field of a header; an empty one is 0.
fn number(field: &[u8], parsed: io::Result<u64>) -> io::Result<u64> {
    if field.iter().all(|it| matches!(it, 0 | b' ')) {
        Ok(0)
    } else {
        parsed
    }
}

/// Returns a path of an archive as one in the image; `..` is refused, whether or not it would lead out.
fn plain(path: &[u8]) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(path)).components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(refused(
                    "its path has .., which could lead out of the image",
                ));
            }
        }
    }
    if plain.components().count() > DEPTH_MAX || path.contains(&0) {
        return Err(refused(
            "its path has too many folders, or a byte that no path has",
        ));
    }
    Ok(plain)
}

/// Frames of zstd, one after the other (RFC 8878 §3).
struct Frames<R> {
    packed: R,
    decoder: ruzstd::decoding::FrameDecoder,
}

impl<R: BufRead> Frames<R> {
    /// A frame of nothing: the decoder bounds the memory only of frames that follow another.
    const EMPTY: [u8; 9] = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00];

    fn new(packed: R) -> io::Result<Self> {
        let mut frames = Self {
            packed,
            decoder: ruzstd::decoding::FrameDecoder::new(),
        };
        let mut empty = &Self::EMPTY[..];
        frames.decoder.init(&mut empty).map_err(io::Error::other)?;
        let all = ruzstd::decoding::BlockDecodingStrategy::All;
        frames
            .decoder
            .decode_blocks(&mut empty, all)
            .map_err(io::Error::other)?;
        Ok(frames)
    }

    fn next_frame(&mut self) -> io::Result<()> {
        use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
        match self.decoder.reset(&mut self.packed) {
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                io::copy(&mut (&mut self.packed).take(length.into()), &mut io::sink()).map(|_| ())
            }
            begun => begun.map_err(io::Error::other),
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use ruzstd::decoding::BlockDecodingStrategy::UptoBytes;
        loop {
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let decoded = self
                    .decoder
                    .decode_blocks(&mut self.packed, UptoBytes(buffer.len()));
                decoded.map_err(io::Error::other)?;
            }
            let len = self.decoder.read(buffer)?;
            if len > 0 || buffer.is_empty() || self.packed.fill_buf()?.is_empty() {
                return Ok(len);
            }
            self.next_frame()?;
        }
    }
}

#[cfg(test)]
mod tests;
