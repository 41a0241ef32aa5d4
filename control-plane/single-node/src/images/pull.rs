//! Pulling an image: its manifest, its configuration, the layers that are not there, and then as an import.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use super::archive::INDEX_DEPTH_MAX;
use super::digest::Digest;
use super::manifest::{self, Descriptor, Document, Manifest};
use super::progress::{Part, Progress, Report};
use super::records::{Name, Record};
use super::reference::{Reference, Version};
use super::registry::{FetchError, Keyring, Repository};
use super::store::{Store, Work};
use super::unpack::{self, Layer, Parts};
use super::{ImageInfo, Images, ImagesError};

impl Images {
    /// Pulls an image from its registry and returns it. Pulled layers whose image was not completed are used again.
    ///
    /// # Errors
    ///
    /// Fails when the registry cannot be reached or refuses, and when the image is none for this machine.
    pub async fn pull(
        &self,
        reference: &str,
        keyring: &Keyring,
        report: &Report,
    ) -> Result<ImageInfo, ImagesError> {
        let reference = Reference::parse(reference)?;
        let record = self.pull_record(&reference, keyring, report).await?;
        Ok(ImageInfo::from(&record))
    }

    pub(super) async fn pull_record(
        &self,
        reference: &Reference,
        keyring: &Keyring,
        report: &Report,
    ) -> Result<Record, ImagesError> {
        report(&Progress::Image {
            reference: reference.to_string(),
        });
        let pull = Pull {
            store: self.store(),
            reference,
            report,
        };
        let mut refused = None;
        for login in keyring.logins(reference) {
            let repository =
                Repository::new(reference, login).map_err(|error| pull.failed(&error))?;
            match pull.find(&repository).await {
                Ok(found) => return pull.complete(&repository, found).await,
                // Another login may be let in.
                Err(error @ FetchError::Denied { .. }) => refused = Some(error),
                Err(error) => return Err(pull.failed(&error)),
            }
        }
        let error = refused.expect("there is at least one login, or nobody's");
        Err(pull.failed(&error))
    }
}

/// One pull.
struct Pull<'a> {
    store: &'a Store,
    reference: &'a Reference,
    report: &'a Report,
}

/// What a registry says of an image.
struct Found {
    manifest: Manifest,
    /// Manifests and indexes that led to it.
    digests: Vec<Digest>,
}

impl Pull<'_> {
    fn failed(&self, error: &dyn std::error::Error) -> ImagesError {
        ImagesError::Image {
            reference: self.reference.to_string(),
            reason: error.to_string(),
        }
    }

    async fn find(&self, repository: &Repository<'_>) -> Result<Found, FetchError> {
        let odd = |reason: String| FetchError::Odd {
            registry: self.reference.registry.clone(),
            reason,
        };
        let mut version = self.reference.version.clone();
        let mut digests = Vec::new();
        for _ in 0..=INDEX_DEPTH_MAX {
            let (text, digest) = repository.manifest(&version).await?;
            digests.push(digest);
            match manifest::document(&text).map_err(odd)? {
                Document::Manifest(manifest) => return Ok(Found { manifest, digests }),
                Document::Index(index) => {
                    let chosen = manifest::choose(&index).map_err(odd)?;
                    version = Version::Digest(chosen.digest.clone());
                }
            }
        }
        Err(odd(
            "its indexes lead to other indexes without end".to_owned()
        ))
    }

    async fn complete(
        &self,
        repository: &Repository<'_>,
        found: Found,
    ) -> Result<Record, ImagesError> {
        let names = vec![Name {
            reference: self.reference.to_string(),
            is_imported: false,
        }];
        if let Some(known) = self.known(&found)? {
            (self.report)(&Progress::Present);
            let record = Record {
                names,
                digests: found.digests,
                ..known
            };
            self.store.name(record.clone())?;
            return Ok(record);
        }
        let config = repository.document(&found.manifest.config.digest).await;
        let config = config.map_err(|error| self.failed(&error))?.to_vec();
        let work = self.store.work()?;
        let fetched = self.fetch(repository, &found.manifest.layers, &work).await;
        fetched.map_err(|error| self.failed(&error))?;
        let (store, label, report) = (
            self.store.clone(),
            self.reference.to_string(),
            self.report.clone(),
        );
        let make = move || {
            let parts = Parts {
                label,
                names,
                config,
                digests: found.digests,
                layers: layers(&work, &found.manifest.layers),
            };
            let made = unpack::make(&store, &parts, &report)?;
            for layer in &found.manifest.layers {
                // It is unpacked; should it be gone already, another pull has unpacked it too.
                let _absent = fs::remove_file(store.blob(&layer.digest));
            }
            Ok(made)
        };
        let made = tokio::task::spawn_blocking(make).await;
        made.unwrap_or_else(|error| Err(self.failed(&error)))
    }

    /// Returns the image when the store has it.
    fn known(&self, found: &Found) -> Result<Option<Record>, ImagesError> {
        let manifest = found.digests.last();
        let records = self.store.records()?;
        let mut known = records.images.into_iter();
        Ok(known.find(|it| manifest.is_some_and(|manifest| it.digests.contains(manifest))))
    }

    /// Brings the layers into a folder of this pull, and keeps those that had to be fetched for the next one, should this
    /// one not come to its end.
    async fn fetch(
        &self,
        repository: &Repository<'_>,
        layers: &[Descriptor],
        work: &Work,
    ) -> Result<(), FetchError> {
        for (at, layer) in layers.iter().enumerate() {
            let (own, kept) = (
                layer_path(work, &layer.digest),
                self.store.blob(&layer.digest),
            );
            if own.exists() || fs::hard_link(&kept, &own).is_ok() {
                continue;
            }
            let part = |done_bytes| Part {
                layer: at + 1,
                layers: layers.len(),
                done_bytes,
                total_bytes: layer.size,
            };
            let told = |done_bytes| (self.report)(&Progress::Fetch(part(done_bytes)));
            repository.blob(layer, &own, &told).await?;
            // Another pull may have kept it meanwhile.
            let _is_kept = fs::hard_link(&own, &kept);
        }
        Ok(())
    }
}

fn layer_path(work: &Work, digest: &Digest) -> PathBuf {
    work.path().join(digest.hex())
}

fn layers<'a>(work: &Work, layers: &[Descriptor]) -> Vec<Layer<'a>> {
    let layer = |it: &Descriptor| {
        let path = layer_path(work, &it.digest);
        Layer {
            packed: Some(it.digest.clone()),
            size_bytes: it.size,
            open: Box::new(move || Ok(Box::new(fs::File::open(&path)?) as Box<dyn Read>)),
        }
    };
    layers.iter().map(layer).collect()
}
