//! The image folder and the cache of files taken from images.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::ImageError;
use super::archive::Pieces;
use super::folder::{self, SHOWN_FILES, listing};
use super::layers;
use super::layout::{self, Image};
use super::reference::Reference;
use super::tree::{self, Node, Tree};

/// How deep the image folder is searched: registry, organisation, name, tag.
const MAX_DEPTH: usize = 5;
/// How many entries of the image folder are looked at.
const MAX_ENTRIES: usize = 20_000;
/// Name in the cache of an image's only disk.
const ONLY_DISK: &str = "only-disk";

/// Finds files of container images, below one folder.
#[derive(Clone, Debug)]
pub struct ImageStore {
    folder: Option<PathBuf>,
    cache: PathBuf,
}

/// An image: packed in layers, or a plain folder.
enum Found {
    Packed(Image),
    Folder(PathBuf),
}

impl ImageStore {
    /// Returns a store that looks in `folder` and keeps what it unpacks in `cache`, which is made when
    /// first needed.
    pub fn new(folder: Option<PathBuf>, cache: PathBuf) -> Self {
        Self { folder, cache }
    }

    /// Returns the path of an image's file, for reading only.
    ///
    /// # Errors
    ///
    /// Fails when the image or the file in it is not there or damaged.
    pub fn file(&self, image: &str, path: &str) -> Result<PathBuf, ImageError> {
        let image = Reference::parse(image)?;
        match self.find(&image)? {
            Found::Folder(root) => folder::file(&root, &image, path),
            Found::Packed(packed) => {
                let plain = tree::plain_path(path).unwrap_or_default();
                let cached = self.cached(&packed, "files").join(plain);
                self.unpack(&packed, cached, |tree| file_place(tree, &image, path))
            }
        }
    }

    /// Returns the path of the only file below `/disk` of an image, for reading only.
    ///
    /// # Errors
    ///
    /// As [`file`](Self::file), and when there is none or more than one.
    pub fn only_disk(&self, image: &str) -> Result<PathBuf, ImageError> {
        let image = Reference::parse(image)?;
        match self.find(&image)? {
            Found::Folder(root) => folder::only_disk(&root, &image),
            Found::Packed(packed) => {
                let cached = self.cached(&packed, ONLY_DISK);
                self.unpack(&packed, cached, |tree| only_disk(tree, &image))
            }
        }
    }

    fn cached(&self, image: &Image, name: &str) -> PathBuf {
        self.cache.join(format!("sha256-{}", image.id)).join(name)
    }

    /// Takes a file out of an image's layers unless that was done before.
    fn unpack(
        &self,
        image: &Image,
        cached: PathBuf,
        choose: impl FnOnce(&Tree<layers::Place>) -> Result<layers::Place, ImageError>,
    ) -> Result<PathBuf, ImageError> {
        if cached.is_file() {
            return Ok(cached);
        }
        let place = choose(&layers::tree(&image.layers)?)?;
        let parent = cached.parent().unwrap_or(&self.cache);
        let write = |source| ImageError::Write {
            path: cached.clone(),
            source,
        };
        fs::create_dir_all(parent).map_err(write)?;
        let mut partial = tempfile::NamedTempFile::new_in(parent).map_err(write)?;
        layers::extract(&image.layers, place, partial.as_file_mut(), &cached)?;
        fs::set_permissions(partial.path(), fs::Permissions::from_mode(0o444)).map_err(write)?;
        partial
            .persist(&cached)
            .map_err(|error| write(error.error))?;
        Ok(cached)
    }

    fn find(&self, image: &Reference) -> Result<Found, ImageError> {
        let folder = self
            .folder
            .as_ref()
            .ok_or_else(|| ImageError::NoFolder(image.clone()))?;
        let mut sources = Vec::new();
        let mut seen = 0;
        list_sources(folder, 0, &mut seen, &mut sources)?;
        for source in &sources {
            let relative = source
                .strip_prefix(folder)
                .unwrap_or(source)
                .with_extension("");
            let (pieces, place) = if source.is_dir() {
                // A folder's name has no extension to take away.
                let place = source.strip_prefix(folder).unwrap_or(source).to_path_buf();
                (Pieces::Folder(source.clone()), place)
            } else {
                (Pieces::of_archive(source)?, relative)
            };
            if let Some(image) = layout::find(&pieces, &place.to_string_lossy(), image)? {
                return Ok(Found::Packed(image));
            }
        }
        image
            .repository_suffixes()
            .map(|name| folder.join(name))
            .find(|root| root.is_dir() && !is_layout(root) && image.has_tag("latest"))
            .map(Found::Folder)
            .ok_or_else(|| ImageError::NotFound {
                image: image.clone(),
                dir: folder.clone(),
            })
    }
}

/// Whether a folder is an OCI image layout.
fn is_layout(path: &Path) -> bool {
    path.join("oci-layout").is_file() && path.join("index.json").is_file()
}

/// The layouts and archives below a folder, by name.
fn list_sources(
    folder: &Path,
    depth: usize,
    seen: &mut usize,
    sources: &mut Vec<PathBuf>,
) -> Result<(), ImageError> {
    if is_layout(folder) {
        sources.push(folder.to_owned());
        return Ok(());
    }
    let read = |source| ImageError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        *seen += 1;
        if *seen > MAX_ENTRIES {
            tracing::warn!(folder = %folder.display(), "image folder has too many entries, some are not looked at");
            break;
        }
        paths.push(entry.map_err(read)?.path());
    }
    paths.sort();
    for path in paths {
        if path.is_file() {
            if path.extension().is_some_and(|extension| extension == "tar") {
                sources.push(path);
            }
        } else if depth < MAX_DEPTH && path.is_dir() {
            list_sources(&path, depth + 1, seen, sources)?;
        }
    }
    Ok(())
}

fn file_place(
    tree: &Tree<layers::Place>,
    image: &Reference,
    path: &str,
) -> Result<layers::Place, ImageError> {
    match tree::resolve(path, |path| tree.get(path).cloned()) {
        Some((_, Node::File(place))) => Ok(place),
        _ => {
            let files: Vec<String> = tree
                .iter()
                .filter(|(_, node)| matches!(node, Node::File(_)))
                .map(|(path, _)| format!("/{path}"))
                .take(SHOWN_FILES + 1)
                .collect();
            Err(ImageError::NoFile {
                image: image.clone(),
                path: path.to_owned(),
                holds: listing(&files),
            })
        }
    }
}

fn only_disk(tree: &Tree<layers::Place>, image: &Reference) -> Result<layers::Place, ImageError> {
    let lookup = |path: &str| tree.get(path).cloned();
    let below: Vec<(&str, layers::Place)> = tree
        .range("disk/".to_owned().."disk0".to_owned())
        .filter(|(path, _)| !path["disk/".len()..].contains('/'))
        .filter_map(|(path, _)| match tree::resolve(path, lookup)? {
            (_, Node::File(place)) => Some((path.as_str(), place)),
            _ => None,
        })
        .collect();
    match below.as_slice() {
        [(_, only)] => Ok(*only),
        _ => {
            let names: Vec<String> = below.iter().map(|(path, _)| format!("/{path}")).collect();
            Err(ImageError::NoSingleDisk {
                image: image.clone(),
                found: listing(&names),
            })
        }
    }
}
