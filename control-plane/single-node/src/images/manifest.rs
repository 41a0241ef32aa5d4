//! Manifests, indexes and configurations of images (OCI image-spec; Docker's image manifest version 2, schema 2).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// Most layers of an image; Docker makes at most 127.
const LAYERS_MAX: usize = 256;
/// Most images of an index that are looked at.
const MANIFESTS_MAX: usize = 256;
/// Media types of lists of images for several platforms.
pub(super) const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// Media types of images.
pub(super) const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Media types of configurations of images.
const CONFIGS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// What names a blob.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    pub(super) annotations: std::collections::BTreeMap<String, String>,
}

/// What an image is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

/// A list of images.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Index {
    pub(super) manifests: Vec<Descriptor>,
}

/// An image.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// What a document is.
#[derive(Clone, Debug)]
pub(super) enum Document {
    Index(Index),
    Manifest(Manifest),
}

/// Reads a manifest or an index; the text is why it is none.
pub(super) fn document(bytes: &[u8]) -> Result<Document, String> {
    let fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(bytes).map_err(|it| format!("read the manifest: {it}"))?;
    if fields
        .get("schemaVersion")
        .and_then(serde_json::Value::as_u64)
        != Some(2)
    {
        return Err("the manifest is not of schema version 2: the image is too old".to_owned());
    }
    // One that could be read as either would be two different images.
    if fields.contains_key("manifests") && fields.contains_key("layers") {
        return Err("the manifest is both an image and a list of images".to_owned());
    }
    if fields.contains_key("manifests") {
        return index(bytes).map(Document::Index);
    }
    manifest(bytes).map(Document::Manifest)
}

/// Reads an index.
pub(super) fn index(bytes: &[u8]) -> Result<Index, String> {
    let index: Index =
        serde_json::from_slice(bytes).map_err(|it| format!("read the index: {it}"))?;
    let is_fine = index.manifests.len() <= MANIFESTS_MAX;
    is_fine
        .then_some(index)
        .ok_or_else(|| format!("the index has more than {MANIFESTS_MAX} images"))
}

fn manifest(bytes: &[u8]) -> Result<Manifest, String> {
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|it| format!("read the manifest: {it}"))?;
    if manifest.layers.len() > LAYERS_MAX {
        return Err(format!("the image has more than {LAYERS_MAX} layers"));
    }
    let kind = &manifest.config.media_type;
    if !kind.is_empty() && !CONFIGS.contains(&kind.as_str()) {
        return Err(format!("it is no image of a file system but {kind}"));
    }
    Ok(manifest)
}

/// Chooses the image for this machine, linux/amd64: by its platform, or the only one that has none.
pub(super) fn choose(index: &Index) -> Result<&Descriptor, String> {
    let is_ours = |it: &&Descriptor| {
        let platform = it.platform.as_ref();
        platform.is_some_and(|it| it.os == "linux" && it.architecture == "amd64")
    };
    let is_open = |it: &&Descriptor| {
        it.platform
            .as_ref()
            .is_none_or(|it| *it == Platform::default())
    };
    if let Some(found) = index.manifests.iter().find(is_ours) {
        return Ok(found);
    }
    let mut open = index.manifests.iter().filter(is_open);
    if let (Some(only), None) = (open.next(), open.next()) {
        return Ok(only);
    }
    let platforms = index.manifests.iter().filter_map(|it| it.platform.as_ref());
    let names: Vec<_> = platforms
        .map(|it| format!("{}/{}", it.os, it.architecture))
        .collect();
    let names = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    Err(format!(
        "there is no image for linux/amd64, only for: {names}"
    ))
}

/// How an image's program is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) entrypoint: Vec<String>,
    pub(super) cmd: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) user: String,
    pub(super) workdir: String,
}

/// A configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) run: Run,
    pub(super) created: Option<Timestamp>,
    /// Digests of the layers' unpacked content.
    pub(super) layers: Vec<Digest>,
}

/// Reads a configuration; the text is why it is none.
pub(super) fn config(bytes: &[u8]) -> Result<Config, String> {
    #[derive(Deserialize)]
    struct Whole {
        created: Option<String>,
        config: Option<Part>,
        rootfs: Rootfs,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Part {
        entrypoint: Option<Vec<String>>,
        cmd: Option<Vec<String>>,
        env: Option<Vec<String>>,
        user: Option<String>,
        working_dir: Option<String>,
    }
    #[derive(Deserialize)]
    struct Rootfs {
        diff_ids: Option<Vec<Digest>>,
    }
    let whole: Whole =
        serde_json::from_slice(bytes).map_err(|it| format!("read the configuration: {it}"))?;
    let part = whole.config.unwrap_or_default();
    Ok(Config {
        run: Run {
            entrypoint: part.entrypoint.unwrap_or_default(),
            cmd: part.cmd.unwrap_or_default(),
            env: part.env.unwrap_or_default(),
            user: part.user.unwrap_or_default(),
            workdir: part.working_dir.unwrap_or_default(),
        },
        created: whole.created.and_then(|it| it.parse().ok()),
        layers: whole.rootfs.diff_ids.unwrap_or_default(),
    })
}
