//! Layers of an image: tar archives, packed or not, laid over each other (OCI image-spec, layer.md).

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::ImageError;
use super::archive::Blob;
use super::tar::{Archive, Kind};
use super::tree::{Node, Tree, plain_path};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const WHITEOUT_PREFIX: &str = ".wh.";
const OPAQUE_WHITEOUT: &str = ".wh..wh..opq";
/// Files of one image; a full distribution has about a hundred thousand.
const MAX_ENTRIES: usize = 1_000_000;
/// Longest path that is remembered, Linux' own limit.
const MAX_PATH_LEN: usize = 4096;
/// Piece in which files are copied; pieces of zeroes become holes.
const COPY_LEN: usize = 64 << 10;

/// Where a file's bytes are: which member of which layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    layer: usize,
    ordinal: u64,
}

/// Whether a layer is packed by a format that is unpacked here.
pub(super) fn is_compressed(blob: &Blob) -> Result<bool, ImageError> {
    let mut magic = Vec::new();
    blob.open()?
        .take(4)
        .read_to_end(&mut magic)
        .map_err(ImageError::read(&blob.file))?;
    Ok(magic.starts_with(&GZIP_MAGIC) || magic == ZSTD_MAGIC)
}

fn unpacked(blob: &Blob) -> Result<Archive<Box<dyn Read>>, ImageError> {
    let mut magic = Vec::new();
    blob.open()?
        .take(4)
        .read_to_end(&mut magic)
        .map_err(ImageError::read(&blob.file))?;
    let input = BufReader::with_capacity(COPY_LEN, blob.open()?);
    let reader: Box<dyn Read> = if magic.starts_with(&GZIP_MAGIC) {
        Box::new(flate2::bufread::MultiGzDecoder::new(input))
    } else if magic == ZSTD_MAGIC {
        let decoder = ruzstd::decoding::StreamingDecoder::new(input)
            .map_err(|error| ImageError::damaged(&blob.file, error.to_string()))?;
        Box::new(decoder)
    } else {
        Box::new(input)
    };
    Ok(Archive::new(reader))
}

/// Lists the files of an image, checking the digest of every layer.
pub(super) fn tree(layers: &[Blob]) -> Result<Tree<Place>, ImageError> {
    let mut tree = Tree::new();
    for (layer, blob) in layers.iter().enumerate() {
        blob.verify()?;
        let entries = entries(layer, blob)?;
        merge(&mut tree, entries);
        if tree.len() > MAX_ENTRIES {
            return Err(ImageError::damaged(
                &blob.file,
                "the image has too many files",
            ));
        }
    }
    Ok(tree)
}

/// A member of a layer; hard links are resolved when the layer is laid over those below.
enum Entry {
    Node(Node<Place>),
    HardLink(String),
}

fn entries(layer: usize, blob: &Blob) -> Result<Vec<(String, Entry)>, ImageError> {
    let damaged = |error: io::Error| ImageError::damaged(&blob.file, error.to_string());
    let mut archive = unpacked(blob)?;
    let mut entries = Vec::new();
    let mut ordinal = 0;
    while let Some(member) = archive.next_member().map_err(damaged)? {
        let entry = match member.kind {
            Kind::File => Entry::Node(Node::File(Place { layer, ordinal })),
            Kind::Symlink(target) => Entry::Node(Node::Symlink(target)),
            Kind::Directory => Entry::Node(Node::Directory),
            Kind::Other => Entry::Node(Node::Other),
            Kind::HardLink(target) => Entry::HardLink(target),
        };
        ordinal += 1;
        if entries.len() >= MAX_ENTRIES {
            return Err(ImageError::damaged(
                &blob.file,
                "a layer has too many files",
            ));
        }
        // A path that climbs out of the image names nothing in it.
        let path = plain_path(&member.path).filter(|path| path.len() <= MAX_PATH_LEN);
        if let Some(path) = path.filter(|path| !path.is_empty()) {
            entries.push((path, entry));
        }
    }
    Ok(entries)
}

/// Lays the members of a layer over those below: whiteouts take away from below only.
fn merge(tree: &mut Tree<Place>, entries: Vec<(String, Entry)>) {
    for (path, _) in &entries {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name == OPAQUE_WHITEOUT {
            remove_below(tree, parent);
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
            let hidden = if parent.is_empty() {
                hidden.to_owned()
            } else {
                format!("{parent}/{hidden}")
            };
            tree.remove(&hidden);
            remove_below(tree, &hidden);
        }
    }
    for (path, entry) in entries {
        let name = path.rsplit('/').next().unwrap_or(&path);
        if name.starts_with(WHITEOUT_PREFIX) {
            continue;
        }
        let node = match entry {
            Entry::Node(node) => node,
            Entry::HardLink(target) => plain_path(&target)
                .and_then(|target| tree.get(&target).cloned())
                .unwrap_or(Node::Other),
        };
        if node != Node::Directory && tree.get(&path) == Some(&Node::Directory) {
            remove_below(tree, &path);
        }
        add_parents(tree, &path);
        tree.insert(path, node);
    }
}

/// Archives may leave out the directories that lead to a file.
fn add_parents(tree: &mut Tree<Place>, path: &str) {
    for (at, _) in path.match_indices('/') {
        tree.entry(path[..at].to_owned()).or_insert(Node::Directory);
    }
}

fn remove_below(tree: &mut Tree<Place>, directory: &str) {
    if directory.is_empty() {
        return tree.clear();
    }
    let below = format!("{directory}/");
    let end = format!("{directory}0"); // '0' follows '/'.
    let gone: Vec<String> = tree
        .range(below..end)
        .map(|(path, _)| path.clone())
        .collect();
    for path in gone {
        tree.remove(&path);
    }
}

/// Copies a file of an image, leaving holes where it has zeroes.
pub(super) fn extract(
    layers: &[Blob],
    place: Place,
    target: &mut File,
    target_path: &Path,
) -> Result<(), ImageError> {
    let blob = &layers[place.layer];
    let damaged = |error: io::Error| ImageError::damaged(&blob.file, error.to_string());
    let mut archive = unpacked(blob)?;
    for _ in 0..=place.ordinal {
        if archive.next_member().map_err(damaged)?.is_none() {
            return Err(ImageError::damaged(
                &blob.file,
                "it changed while it was read",
            ));
        }
    }
    let mut buffer = vec![0; COPY_LEN];
    let mut len_bytes = 0;
    let write = |source| ImageError::Write {
        path: target_path.to_owned(),
        source,
    };
    loop {
        let count = fill(&mut archive, &mut buffer).map_err(damaged)?;
        if count == 0 {
            break;
        }
        write_sparse(target, &buffer[..count]).map_err(write)?;
        len_bytes += count as u64;
    }
    target
        .set_len(len_bytes)
        .and_then(|()| target.sync_all())
        .map_err(write)
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

fn write_sparse(target: &mut File, piece: &[u8]) -> io::Result<()> {
    if piece.iter().all(|byte| *byte == 0) {
        let len_bytes = i64::try_from(piece.len()).unwrap_or(i64::MAX);
        target.seek(SeekFrom::Current(len_bytes)).map(drop)
    } else {
        target.write_all(piece)
    }
}
