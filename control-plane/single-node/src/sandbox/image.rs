//! Where root file systems come from.

use std::path::PathBuf;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// When an image is fetched (Kubernetes `imagePullPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Each time a container starts.
    Always,
    /// When it is not in the store.
    IfNotPresent,
    /// Never; it must be in the store.
    Never,
}

/// Credentials for registries: the content of a pull secret (`.dockerconfigjson`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullSecret {
    /// The secret's name, for messages.
    pub name: String,
    /// The file `~/.docker/config.json` that it holds.
    pub docker_config: Vec<u8>,
}

/// What a container or an image volume needs.
#[derive(Clone, Copy, Debug)]
pub struct ImageRequest<'a> {
    /// The reference as the pod has it, such as `quay.io/kubevirt/cirros-container-disk-demo:latest`.
    pub reference: &'a str,
    /// When to fetch it.
    pub pull: PullPolicy,
    /// Credentials of the pod.
    pub secrets: &'a [PullSecret],
}

/// Where an image's files are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageRoot {
    /// A folder that nobody changes.
    Folder(PathBuf),
    /// The host's own `/usr`, with the programs in the folder `bin` of this folder laid over it.
    Host(PathBuf),
}

/// An image that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its files.
    pub root: ImageRoot,
    /// Digest of its configuration, `sha256:…`, or another lasting name.
    pub digest: String,
    /// Program and first arguments (`Entrypoint`).
    pub entrypoint: Vec<String>,
    /// Arguments (`Cmd`).
    pub cmd: Vec<String>,
    /// Environment, `NAME=value` (`Env`).
    pub env: Vec<String>,
    /// User, or user and group with a colon, as names or numbers; empty for root (`User`).
    pub user: String,
    /// Working folder; empty for `/` (`WorkingDir`).
    pub workdir: String,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is not in the store, and must not be fetched.
    #[error(
        "image {reference} is not present with pull policy of Never: import it with `ferrovirt image import` or `ferrovirt image pull`"
    )]
    NotPresent {
        /// The reference.
        reference: String,
    },
    /// The reference is none.
    #[error("image reference {reference:?} is not valid: {reason}")]
    Invalid {
        /// The reference.
        reference: String,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be fetched or read.
    #[error("image {reference}: {reason}")]
    Failed {
        /// The reference.
        reference: String,
        /// The whole chain of reasons.
        reason: String,
    },
}

impl ImageError {
    /// Reason that a container waits for as Kubernetes calls it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotPresent { .. } => "ErrImageNeverPull",
            Self::Invalid { .. } => "InvalidImageName",
            Self::Failed { .. } => "ErrImagePull",
        }
    }
}

/// Gives images to containers.
pub trait ImageSource: Send + Sync + 'static {
    /// Returns the image, fetched first where the policy says so. The future may be dropped at any time.
    fn resolve<'a>(&'a self, request: ImageRequest<'a>)
    -> BoxFuture<'a, Result<Image, ImageError>>;
}
