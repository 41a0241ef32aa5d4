//! Making an image of parts that are at hand.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;

use super::ImagesError;
use super::digest::Digest;
use super::layer::{self, Budget, Expected};
use super::manifest::{self, Config};
use super::progress::{Part, Progress, Report, Told};
use super::records::{Name, Record};
use super::store::{Store, Work};

/// An image whose parts are at hand.
pub(super) struct Parts<'a> {
    /// For messages.
    pub(super) label: String,
    pub(super) names: Vec<Name>,
    /// The configuration, whose digest was checked where there is one.
    pub(super) config: Vec<u8>,
    /// Manifests and indexes that mean the image.
    pub(super) digests: Vec<Digest>,
    pub(super) layers: Vec<Layer<'a>>,
}

/// A layer that is at hand.
pub(super) struct Layer<'a> {
    pub(super) packed: Option<Digest>,
    pub(super) size_bytes: u64,
    pub(super) open: Box<dyn Fn() -> io::Result<Box<dyn Read + 'a>> + Send + 'a>,
}

/// Makes an image of its parts and adds it to the store; one that is there gets the names. Blocks.
pub(super) fn make(
    store: &Store,
    parts: &Parts<'_>,
    report: &Report,
) -> Result<Record, ImagesError> {
    let failed = |reason: String| ImagesError::Image {
        reference: parts.label.clone(),
        reason,
    };
    let config = manifest::config(&parts.config).map_err(failed)?;
    let mut record = record(parts, &config);
    let known = store
        .records()?
        .images
        .into_iter()
        .find(|it| it.id == record.id);
    if let Some(known) = known.filter(|it| store.root(&it.id).is_dir()) {
        report(&Progress::Present);
        record.size_bytes = known.size_bytes;
        store.name(record.clone())?;
        return Ok(record);
    }
    let work = store.work()?;
    record.size_bytes =
        fill(&work, parts, &config, report).map_err(|error| failed(error.to_string()))?;
    store.commit(&work, record)
}

fn record(parts: &Parts<'_>, config: &Config) -> Record {
    Record {
        id: Digest::of(&parts.config),
        names: parts.names.clone(),
        digests: parts.digests.clone(),
        size_bytes: 0,
        created: config.created,
        run: config.run.clone(),
    }
}

fn fill(work: &Work, parts: &Parts<'_>, config: &Config, report: &Report) -> io::Result<u64> {
    let (found, named) = (parts.layers.len(), config.layers.len());
    if found != named {
        let reason = format!("it has {found} layers, and its configuration names {named}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let root = work.root();
    fs::create_dir(&root)?;
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
    let root = OwnedFd::from(File::open(root)?);
    let mut budget = Budget::default();
    let mut size_bytes = 0;
    for (at, (layer, unpacked)) in parts.layers.iter().zip(&config.layers).enumerate() {
        let part = Part {
            layer: at + 1,
            layers: found,
            done_bytes: 0,
            total_bytes: layer.size_bytes,
        };
        let expected = Expected {
            packed: layer.packed.as_ref(),
            unpacked,
        };
        let content = Told::new((layer.open)()?, part, report);
        size_bytes += layer::apply(content, expected, &root, &mut budget)?;
    }
    Ok(size_bytes)
}
