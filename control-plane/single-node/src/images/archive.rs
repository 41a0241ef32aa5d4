//! Images in files: OCI layouts (OCI image-spec, "Image Layout") as folders or in tar archives, and archives of
//! `docker save`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::bounded::Allowance;
use super::digest::Digest;
use super::manifest::{self, Descriptor, Document, Index, Manifest};
use super::reference::Reference;
use super::store::Store;
use super::unpack::{Layer, Parts};
use super::{ImagesError, imported, layer};

/// Most files of an archive.
const MEMBERS_MAX: usize = 100_000;
/// Most bytes of an archive, unpacked.
const ARCHIVE_MAX_BYTES: u64 = 1 << 40;
/// Most bytes of a manifest or a configuration, as registries have it.
pub(super) const DOCUMENT_MAX_BYTES: u64 = 4 << 20;
/// Indexes in indexes.
pub(super) const INDEX_DEPTH_MAX: usize = 3;
/// Links to links of `docker save`.
const LINKS_MAX: usize = 4;
/// Annotation with the whole name, by containerd and Docker.
const WHOLE_NAME: &str = "io.containerd.image.name";
/// Annotation with the name, or its tag only.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An archive or a layout.
pub(super) struct Archive {
    path: PathBuf,
    files: Files,
}

enum Files {
    Folder(PathBuf),
    Tar {
        file: File,
        members: HashMap<String, Member>,
    },
}

enum Member {
    File { at: u64, len_bytes: u64 },
    Link(String),
}

/// An image of a `docker save` archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Archive {
    /// Opens an archive or a layout folder. What is packed, or cannot be read twice, is first written to the store.
    pub(super) fn open(path: &Path, store: &Store) -> Result<Self, ImagesError> {
        let failed = ImagesError::file("read", path);
        let files = if path.is_dir() {
            Files::Folder(path.to_owned())
        } else {
            Files::open(path, store.path()).map_err(failed)?
        };
        Ok(Self {
            path: path.to_owned(),
            files,
        })
    }

    /// Returns the images, each for this machine, with their names or the one that is given.
    pub(super) fn images(&self, name: Option<&Reference>) -> Result<Vec<Parts<'_>>, ImagesError> {
        let found = self.find().and_then(|found| self.with_names(found, name));
        found.map_err(|error| ImagesError::Archive {
            path: self.path.clone(),
            reason: error.to_string(),
        })
    }

    fn find(&self) -> io::Result<Vec<(Vec<String>, Parts<'_>)>> {
        if self.files.has("index.json") {
            return self.layout();
        }
        if self.files.has("manifest.json") {
            return self.saved();
        }
        Err(invalid(
            "it has neither index.json (an OCI layout) nor manifest.json (docker save): it is no archive of images",
        ))
    }

    fn with_names<'a>(
        &self,
        found: Vec<(Vec<String>, Parts<'a>)>,
        name: Option<&Reference>,
    ) -> io::Result<Vec<Parts<'a>>> {
        if found.is_empty() {
            return Err(invalid("it has no image"));
        }
        if name.is_some() && found.len() > 1 {
            let names: Vec<_> = found.iter().flat_map(|(names, _)| names.clone()).collect();
            let names = names.join(", ");
            return Err(invalid(&format!(
                "it has several images ({names}): import it without --name"
            )));
        }
        let named = found.into_iter().map(|(names, mut parts)| {
            let mut references = Vec::new();
            for text in &names {
                references
                    .push(Reference::parse(text).map_err(|error| invalid(&error.to_string()))?);
            }
            if let Some(name) = name {
                references = vec![name.clone()];
            }
            let Some(first) = references.first() else {
                return Err(invalid(
                    "it does not say the name of its image: give one with --name",
                ));
            };
            parts.label = first.to_string();
            parts.names = imported(&references);
            Ok(parts)
        });
        named.collect()
    }

    /// Images of an OCI layout. Several of one name are for several platforms.
    fn layout(&self) -> io::Result<Vec<(Vec<String>, Parts<'_>)>> {
        let index =
            manifest::index(&self.files.document("index.json")?).map_err(|it| invalid(&it))?;
        let mut by_name: BTreeMap<Option<String>, Vec<Descriptor>> = BTreeMap::new();
        for descriptor in index.manifests {
            by_name
                .entry(name_of(&descriptor))
                .or_default()
                .push(descriptor);
        }
        let mut images = Vec::new();
        for (name, manifests) in by_name {
            let parts = self.image(&Index { manifests })?;
            images.push((name.into_iter().collect(), parts));
        }
        Ok(images)
    }

    fn image(&self, index: &Index) -> io::Result<Parts<'_>> {
        let mut digests = Vec::new();
        let mut index = index.clone();
        for _ in 0..INDEX_DEPTH_MAX {
            let chosen = manifest::choose(&index).map_err(|it| invalid(&it))?;
            let text = self.blob(chosen)?;
            digests.push(chosen.digest.clone());
            match manifest::document(&text).map_err(|it| invalid(&it))? {
                Document::Index(inner) => index = inner,
                Document::Manifest(manifest) => return self.parts(manifest, digests),
            }
        }
        Err(invalid("its indexes lead to other indexes without end"))
    }

    fn parts(&self, manifest: Manifest, digests: Vec<Digest>) -> io::Result<Parts<'_>> {
        let config = self.blob(&manifest.config)?;
        let layer = |it: Descriptor| {
            let path = blob_path(&it.digest);
            Layer {
                packed: Some(it.digest),
                size_bytes: it.size,
                open: Box::new(move || self.files.read(&path).map(|(content, _)| content)),
            }
        };
        Ok(Parts {
            label: String::new(),
            names: Vec::new(),
            config,
            digests,
            layers: manifest.layers.into_iter().map(layer).collect(),
        })
    }

    /// Reads a manifest or a configuration and checks its digest.
    fn blob(&self, descriptor: &Descriptor) -> io::Result<Vec<u8>> {
        let text = self.files.document(&blob_path(&descriptor.digest))?;
        if Digest::of(&text) != descriptor.digest {
            return Err(invalid(&format!(
                "its blob {} is damaged",
                descriptor.digest
            )));
        }
        Ok(text)
    }

    /// Images of `docker save`, whose layers have no digests but those of the configuration.
    fn saved(&self) -> io::Result<Vec<(Vec<String>, Parts<'_>)>> {
        let saved: Vec<Saved> = serde_json::from_slice(&self.files.document("manifest.json")?)?;
        let image = |it: Saved| {
            let layers = it.layers.into_iter().map(|path| {
                let (_, size_bytes) = self.files.read(&path)?;
                Ok(Layer {
                    packed: None,
                    size_bytes,
                    open: Box::new(move || self.files.read(&path).map(|(content, _)| content)),
                })
            });
            let parts = Parts {
                label: String::new(),
                names: Vec::new(),
                config: self.files.document(&it.config)?,
                digests: Vec::new(),
                layers: layers.collect::<io::Result<_>>()?,
            };
            Ok((it.repo_tags.unwrap_or_default(), parts))
        };
        saved.into_iter().map(image).collect()
    }
}

impl Files {
    fn open(path: &Path, store: &Path) -> io::Result<Self> {
        let mut file = if path == Path::new("-") {
            spool(io::stdin().lock(), store)?
        } else {
            File::open(path)?
        };
        if !file.metadata()?.is_file() {
            file = spool(file, store)?;
        }
        let mut magic = Vec::new();
        (&mut file).take(4).read_to_end(&mut magic)?;
        file.rewind()?;
        if layer::is_packed(&magic) {
            file = spool(layer::unpack(BufReader::new(file))?, store)?;
        }
        let members = members(&file)?;
        Ok(Self::Tar { file, members })
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).is_file(),
            Self::Tar { members, .. } => members.contains_key(name),
        }
    }

    /// Opens a file, and returns its length too.
    fn read(&self, name: &str) -> io::Result<(Box<dyn Read + '_>, u64)> {
        let missing = || {
            invalid(&format!(
                "it has no file {name}, which it needs: it is not complete"
            ))
        };
        match self {
            Self::Folder(folder) => {
                let file = File::open(folder.join(name)).map_err(|_| missing())?;
                let len_bytes = file.metadata()?.len();
                Ok((Box::new(file), len_bytes))
            }
            Self::Tar { file, members } => {
                let (at, len_bytes) = find(members, name).ok_or_else(missing)?;
                let mut file = file;
                file.seek(SeekFrom::Start(at))?;
                Ok((Box::new(file.take(len_bytes)), len_bytes))
            }
        }
    }

    fn document(&self, name: &str) -> io::Result<Vec<u8>> {
        let (content, len_bytes) = self.read(name)?;
        if len_bytes > DOCUMENT_MAX_BYTES {
            return Err(invalid(&format!(
                "its file {name} is longer than {DOCUMENT_MAX_BYTES} bytes"
            )));
        }
        let mut text = Vec::new();
        content.take(DOCUMENT_MAX_BYTES).read_to_end(&mut text)?;
        Ok(text)
    }
}

/// Writes content to a file without a name on the store's disk.
fn spool(content: impl Read, store: &Path) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(store)?;
    let len_bytes = io::copy(&mut content.take(ARCHIVE_MAX_BYTES + 1), &mut file)?;
    if len_bytes > ARCHIVE_MAX_BYTES {
        return Err(invalid("it is too large"));
    }
    file.rewind()?;
    Ok(file)
}

/// Lists the files of an archive.
fn members(file: &File) -> io::Result<HashMap<String, Member>> {
    let allowed = Allowance::default();
    let mut archive = tar::Archive::new(allowed.bound(file));
    let mut members = HashMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        allowed.headers();
        if members.len() >= MEMBERS_MAX {
            return Err(invalid("it has too many files"));
        }
        let name = plain(&String::from_utf8_lossy(&entry.path_bytes()));
        let kind = entry.header().entry_type();
        let member = if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().unwrap_or_default();
            let target = String::from_utf8_lossy(&target).into_owned();
            let beside = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let folder = if kind.is_symlink() { beside } else { "" };
            Member::Link(plain(&format!("{folder}/{target}")))
        } else if kind.is_file() {
            Member::File {
                at: entry.raw_file_position(),
                len_bytes: entry.size(),
            }
        } else {
            continue;
        };
        members.insert(name, member);
    }
    Ok(members)
}

fn find(members: &HashMap<String, Member>, name: &str) -> Option<(u64, u64)> {
    let mut name = name;
    for _ in 0..LINKS_MAX {
        match members.get(name)? {
            Member::File { at, len_bytes } => return Some((*at, *len_bytes)),
            Member::Link(target) => name = target,
        }
    }
    None
}

/// Returns a path without `.`, `..` and empty parts: only names of members, never files of this machine.
fn plain(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Returns the name that a layout has for an image. A tag alone is none.
fn name_of(descriptor: &Descriptor) -> Option<String> {
    let annotations = &descriptor.annotations;
    let partial = || {
        annotations
            .get(REF_NAME)
            .filter(|it| it.contains(['/', ':']))
    };
    annotations.get(WHOLE_NAME).or_else(partial).cloned()
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}
