//! Images for pods: from the store, or fetched first.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use api::error_chain::chain;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;

use super::progress::silent;
use super::records::Record;
use super::{Images, ImagesError, Keyring, Reference};
use crate::sandbox::image::{Image, ImageError, ImageRequest, ImageRoot, ImageSource, PullPolicy};

/// Pulls at one time; others wait.
const PULLS_MAX: usize = 4;

/// A pull, for all who wait for it. It goes on when nobody does any more.
type Pull = Shared<BoxFuture<'static, Result<Record, String>>>;
/// What is pulled, and as whom: nobody gets an image by another's rights.
type Wanted = (Reference, Keyring);

/// Pulls that are under way.
#[derive(Debug)]
pub(super) struct Pulls {
    /// Not held across an await.
    under_way: Mutex<HashMap<Wanted, Pull>>,
    places: Semaphore,
}

impl Default for Pulls {
    fn default() -> Self {
        Self {
            under_way: Mutex::default(),
            places: Semaphore::new(PULLS_MAX),
        }
    }
}

impl Pulls {
    fn under_way(&self) -> MutexGuard<'_, HashMap<Wanted, Pull>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl ImageSource for Images {
    /// Returns the image, fetched first where the policy says so. One that was imported under this name is not asked for in
    /// registries: who imports an image wants that one.
    fn resolve<'a>(
        &'a self,
        request: ImageRequest<'a>,
    ) -> BoxFuture<'a, Result<Image, ImageError>> {
        Box::pin(self.find_or_pull(request))
    }
}

impl Images {
    async fn find_or_pull(&self, request: ImageRequest<'_>) -> Result<Image, ImageError> {
        let parsed = Reference::parse(request.reference);
        let reference = parsed.map_err(|error| ImageError::Invalid {
            reference: request.reference.to_owned(),
            reason: error.reason.to_owned(),
        })?;
        let found = self.find(&reference).await;
        let found = found.map_err(|error| failed(request.reference, &error))?;
        match (found, request.pull) {
            (Some((image, true)), _)
            | (Some((image, _)), PullPolicy::IfNotPresent | PullPolicy::Never) => Ok(image),
            (None, PullPolicy::Never) => Err(ImageError::NotPresent {
                reference: request.reference.to_owned(),
            }),
            _ => self.pull_for(reference, request).await,
        }
    }

    async fn pull_for(
        &self,
        reference: Reference,
        request: ImageRequest<'_>,
    ) -> Result<Image, ImageError> {
        let mut keyring = Keyring::default();
        for secret in request.secrets {
            let added = keyring.add(&format!("secret {}", secret.name), &secret.docker_config);
            added.map_err(|error| failed(request.reference, &error))?;
        }
        let pulled = self.shared_pull((reference, keyring)).await;
        pulled
            .map(|record| self.image(&record))
            .map_err(|reason| ImageError::Failed {
                reference: request.reference.to_owned(),
                reason,
            })
    }

    /// Returns the pull of an image: the one that is under way, or a new one.
    fn shared_pull(&self, wanted: Wanted) -> Pull {
        let mut under_way = self.shared.pulls.under_way();
        if let Some(pull) = under_way.get(&wanted) {
            return pull.clone();
        }
        let (images, task) = (self.clone(), wanted.clone());
        let task = tokio::spawn(async move {
            let pulled = images.pull_in_turn(&task).await;
            images.shared.pulls.under_way().remove(&task);
            pulled
        });
        let pull = async { task.await.unwrap_or_else(|error| Err(error.to_string())) };
        let pull = pull.boxed().shared();
        under_way.insert(wanted, pull.clone());
        pull
    }

    async fn pull_in_turn(&self, (reference, keyring): &Wanted) -> Result<Record, String> {
        let place = self.shared.pulls.places.acquire().await;
        let pulled = Box::pin(self.pull_record(reference, keyring, &silent())).await;
        drop(place);
        pulled.map_err(|error| match error {
            // Who waits says which image it is.
            ImagesError::Image { reason, .. } => reason,
            error => chain(&error),
        })
    }

    /// Returns the image that a reference means in the store, and whether it was imported under it.
    async fn find(&self, reference: &Reference) -> Result<Option<(Image, bool)>, ImagesError> {
        let (images, reference) = (self.clone(), reference.clone());
        let look = move || {
            let records = images.store().records()?;
            let found = records.find(&reference);
            Ok(found.map(|(record, is_imported)| (images.image(record), is_imported)))
        };
        tokio::task::spawn_blocking(look).await.unwrap_or(Ok(None))
    }

    fn image(&self, record: &Record) -> Image {
        let run = record.run.clone();
        Image {
            root: ImageRoot::Folder(self.store().root(&record.id)),
            digest: record.id.to_string(),
            entrypoint: run.entrypoint,
            cmd: run.cmd,
            env: run.env,
            user: run.user,
            workdir: run.workdir,
        }
    }
}

fn failed(reference: &str, error: &dyn std::error::Error) -> ImageError {
    ImageError::Failed {
        reference: reference.to_owned(),
        reason: chain(error),
    }
}
