//! What is known of the images of a store: one file, replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::manifest::Run;
use super::reference::{Reference, Version};

/// Name of the file.
pub(super) const FILE: &str = "images.json";
/// Version of its form.
const VERSION: u32 = 1;
/// Most bytes of it that are read.
const LEN_MAX_BYTES: u64 = 64 << 20;

/// All images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Records {
    version: u32,
    pub(super) images: Vec<Record>,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Digest of its configuration, which names its content.
    pub(super) id: Digest,
    pub(super) names: Vec<Name>,
    /// Manifests and indexes that mean it.
    pub(super) digests: Vec<Digest>,
    pub(super) size_bytes: u64,
    pub(super) created: Option<Timestamp>,
    pub(super) run: Run,
}

/// A name of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Name {
    /// Complete ([`Reference`]).
    pub(super) reference: String,
    /// Whether somebody gave it here, rather than a registry.
    pub(super) is_imported: bool,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            version: VERSION,
            images: Vec::new(),
        }
    }
}

impl Records {
    /// Reads the records of a store; none when there is no file.
    pub(super) fn read(store: &Path) -> io::Result<Self> {
        let mut text = Vec::new();
        match File::open(store.join(FILE))
            .and_then(|it| it.take(LEN_MAX_BYTES).read_to_end(&mut text))
        {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        }
        let records: Self = serde_json::from_slice(&text)?;
        if records.version != VERSION {
            let reason = format!(
                "its form {} is of another version of ferrovirt",
                records.version
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(records)
    }

    /// Replaces the records of a store, so that a crash leaves the old or the new.
    pub(super) fn write(&self, store: &Path) -> io::Result<()> {
        let new = store.join(format!("{FILE}.new"));
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&new, store.join(FILE))?;
        File::open(store)?.sync_all()
    }

    /// Returns the image that a reference means, and whether its name was given here.
    pub(super) fn find(&self, reference: &Reference) -> Option<(&Record, bool)> {
        if let Version::Digest(digest) = &reference.version {
            let found = self
                .images
                .iter()
                .find(|it| it.digests.contains(digest) || it.id == *digest);
            return found.map(|it| (it, false));
        }
        let text = reference.to_string();
        self.images.iter().find_map(|it| {
            let name = it.names.iter().find(|name| name.reference == text);
            name.map(|name| (it, name.is_imported))
        })
    }

    /// Adds an image, or what is new of it. Names that others had become its own.
    pub(super) fn add(&mut self, record: Record) {
        for other in &mut self.images {
            let is_taken =
                |name: &Name| record.names.iter().any(|it| it.reference == name.reference);
            other.names.retain(|name| !is_taken(name));
        }
        let Some(old) = self.images.iter_mut().find(|it| it.id == record.id) else {
            self.images.push(record);
            return;
        };
        old.names.extend(record.names);
        let fresh: Vec<_> = record
            .digests
            .into_iter()
            .filter(|it| !old.digests.contains(it))
            .collect();
        old.digests.extend(fresh);
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, Name, Record, Records, Reference, Run};

    fn record(content: &str, name: &str) -> Record {
        Record {
            id: Digest::of(content.as_bytes()),
            names: vec![Name {
                reference: Reference::parse(name).unwrap().to_string(),
                is_imported: true,
            }],
            digests: vec![Digest::of(format!("manifest of {content}").as_bytes())],
            size_bytes: 1,
            created: None,
            run: Run::default(),
        }
    }

    #[test]
    fn a_name_belongs_to_its_last_image() {
        let mut records = Records::default();
        records.add(record("a", "demo"));
        records.add(record("b", "docker.io/library/demo:latest"));
        let found = records
            .find(&Reference::parse("demo:latest").unwrap())
            .unwrap();
        assert_eq!(found.0.id, Digest::of(b"b"));
        assert!(records.images[0].names.is_empty());
        let manifest = Digest::of(b"manifest of a");
        let by_digest = Reference::parse(&format!("quay.io/any@{manifest}")).unwrap();
        assert_eq!(records.find(&by_digest).unwrap().0.id, Digest::of(b"a"));
        records.add(record("a", "second"));
        assert_eq!(records.images.len(), 2);
    }

    #[test]
    fn records_survive_in_their_file() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(Records::read(store.path()).unwrap(), Records::default());
        let mut records = Records::default();
        records.add(record("a", "demo"));
        records.write(store.path()).unwrap();
        assert_eq!(Records::read(store.path()).unwrap(), records);
        std::fs::write(store.path().join("images.json"), "{").unwrap();
        Records::read(store.path()).unwrap_err();
    }
}
