//! Where the pieces of an image lie: files of a folder, or members of a tar archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::ImageError;
use super::tar::{Archive, Kind};

/// Longest JSON document of an image: manifests and configurations are a few KiB.
const MAX_JSON_LEN: u64 = 4 << 20;
/// Members of an archive: layers, manifests and configurations of its images.
const MAX_MEMBERS: usize = 10_000;

/// A folder or archive with named pieces.
pub(super) enum Pieces {
    Folder(PathBuf),
    Archive {
        path: PathBuf,
        members: BTreeMap<String, (u64, u64)>,
    },
}

/// A run of bytes in a file, with the digest that it should have.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) file: PathBuf,
    offset: u64,
    len_bytes: u64,
    /// SHA-256, hexadecimal.
    pub(super) sha256: Option<String>,
}

impl Pieces {
    /// Looks through an archive, remembering where its members lie.
    pub(super) fn of_archive(path: &Path) -> Result<Self, ImageError> {
        let file = File::open(path).map_err(ImageError::read(path))?;
        let damaged = |error: std::io::Error| ImageError::damaged(path, error.to_string());
        let mut archive = Archive::new(std::io::BufReader::new(file));
        let mut members = BTreeMap::new();
        let mut links = Vec::new();
        while let Some(member) = archive.next_member().map_err(damaged)? {
            if members.len() >= MAX_MEMBERS {
                return Err(ImageError::damaged(path, "it has too many members"));
            }
            let name = member.path.trim_start_matches("./").to_owned();
            match member.kind {
                Kind::File => {
                    members.insert(name, (archive.position(), member.len_bytes));
                }
                Kind::Symlink(target) | Kind::HardLink(target) => links.push((name, target)),
                Kind::Directory | Kind::Other => {}
            }
        }
        // Old Docker versions store a repeated layer as a link, `../ID/layer.tar`.
        for (name, target) in links {
            if let Some(place) = members.get(target.trim_start_matches("../")).copied() {
                members.insert(name, place);
            }
        }
        Ok(Self::Archive {
            path: path.to_owned(),
            members,
        })
    }

    /// The file to name in errors.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Archive { path, .. } => path,
        }
    }

    /// A piece by its name, which must have been checked to stay inside.
    pub(super) fn piece(&self, name: &str, sha256: Option<String>) -> Result<Blob, ImageError> {
        match self {
            Self::Folder(path) => {
                let file = path.join(name);
                let len_bytes = file.metadata().map_err(ImageError::read(&file))?.len();
                Ok(Blob {
                    file,
                    offset: 0,
                    len_bytes,
                    sha256,
                })
            }
            Self::Archive { path, members } => match members.get(name) {
                Some(&(offset, len_bytes)) => Ok(Blob {
                    file: path.clone(),
                    offset,
                    len_bytes,
                    sha256,
                }),
                None => Err(ImageError::damaged(
                    path,
                    format!("it has no member {name}"),
                )),
            },
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(path) => path.join(name).is_file(),
            Self::Archive { members, .. } => members.contains_key(name),
        }
    }
}

impl Blob {
    /// The same bytes, with the digest that they should have.
    pub(super) fn expecting(self, sha256: Option<&str>) -> Self {
        Self {
            sha256: sha256.map(str::to_owned),
            ..self
        }
    }

    /// Opens the bytes for reading from their start.
    pub(super) fn open(&self) -> Result<impl Read + use<>, ImageError> {
        let mut file = File::open(&self.file).map_err(ImageError::read(&self.file))?;
        file.seek(SeekFrom::Start(self.offset))
            .map_err(ImageError::read(&self.file))?;
        Ok(file.take(self.len_bytes))
    }

    /// Compares the bytes with their digest.
    pub(super) fn verify(&self) -> Result<(), ImageError> {
        let Some(expected) = &self.sha256 else {
            return Ok(());
        };
        let mut hasher = Sha256::new();
        std::io::copy(&mut self.open()?, &mut hasher).map_err(ImageError::read(&self.file))?;
        self.compare(expected, hasher)
    }

    fn compare(&self, expected: &str, hasher: Sha256) -> Result<(), ImageError> {
        if hexadecimal(&hasher.finalize()) == *expected {
            Ok(())
        } else {
            Err(ImageError::damaged(
                &self.file,
                format!("its content is not sha256:{expected}"),
            ))
        }
    }

    /// Reads a JSON document and returns it with its digest.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<(T, String), ImageError> {
        if self.len_bytes > MAX_JSON_LEN {
            return Err(ImageError::damaged(
                &self.file,
                "a JSON document of it is too long",
            ));
        }
        let mut bytes = Vec::new();
        self.open()?
            .read_to_end(&mut bytes)
            .map_err(ImageError::read(&self.file))?;
        let hasher = Sha256::new_with_prefix(&bytes);
        if let Some(expected) = &self.sha256 {
            self.compare(expected, hasher.clone())?;
        }
        let document = serde_json::from_slice(&bytes)
            .map_err(|error| ImageError::damaged(&self.file, format!("not valid JSON: {error}")))?;
        Ok((document, hexadecimal(&hasher.finalize())))
    }
}

/// The hexadecimal part of a `sha256:…` digest, checked, so that it can be part of a path.
pub(super) fn sha256_of(digest: &str) -> Option<&str> {
    let hexadecimal = digest.strip_prefix("sha256:")?;
    let valid = hexadecimal.len() == 64
        && hexadecimal
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    valid.then_some(hexadecimal)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
