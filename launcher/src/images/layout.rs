//! Manifests of images: OCI image layouts (image-spec 1.1) and `docker save` archives.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::ImageError;
use super::archive::{Blob, Pieces, sha256_of};
use super::reference::Reference;

/// Indexes inside indexes.
const MAX_NESTING: usize = 4;
/// Layers of one image; engines stop at 127.
const MAX_LAYERS: usize = 500;

/// An image that was found.
#[derive(Debug)]
pub(super) struct Image {
    /// SHA-256 of its manifest or configuration, hexadecimal.
    pub(super) id: String,
    /// Layers, lowest first.
    pub(super) layers: Vec<Blob>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct DockerConfig {
    rootfs: DockerRootfs,
}

#[derive(Deserialize)]
struct DockerRootfs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// Looks for an image in a layout or archive. `place` is where that lies in the image folder, without
/// extension: it names the image where the annotations give no more than a tag.
pub(super) fn find(
    pieces: &Pieces,
    place: &str,
    image: &Reference,
) -> Result<Option<Image>, ImageError> {
    if pieces.has("index.json") {
        let (index, _) = pieces.piece("index.json", None)?.json::<Index>()?;
        for descriptor in &index.manifests {
            if is_image(descriptor, place, image) {
                return resolve(pieces, descriptor, image, 0).map(Some);
            }
        }
    }
    if pieces.has("manifest.json") {
        find_docker(pieces, image)
    } else {
        Ok(None)
    }
}

fn is_image(descriptor: &Descriptor, place: &str, image: &Reference) -> bool {
    if image
        .digest()
        .is_some_and(|digest| digest != descriptor.digest)
    {
        return false;
    }
    let names = [
        "org.opencontainers.image.ref.name",
        "io.containerd.image.name",
    ];
    let mut names = names
        .iter()
        .filter_map(|key| descriptor.annotations.get(*key))
        .peekable();
    let filed = image.is_filed_under(place);
    if names.peek().is_none() {
        return image.digest().is_some() || (filed && image.has_tag("latest"));
    }
    names.any(|name| {
        let tag_only = !name.contains(['/', ':']);
        (tag_only && filed && image.has_tag(name))
            || Reference::parse(name).is_ok_and(|name| image.is(&name))
    })
}

fn resolve(
    pieces: &Pieces,
    descriptor: &Descriptor,
    image: &Reference,
    nesting: usize,
) -> Result<Image, ImageError> {
    let manifest = blob(pieces, descriptor)?;
    if !descriptor.media_type.contains("index") && !descriptor.media_type.contains("manifest.list")
    {
        let (manifest, id) = manifest.json::<Manifest>()?;
        check_layers(pieces, manifest.layers.len())?;
        let layers = manifest.layers.iter().map(|layer| blob(pieces, layer));
        return Ok(Image {
            id,
            layers: layers.collect::<Result<_, _>>()?,
        });
    }
    let (index, _) = manifest.json::<Index>()?;
    let ours = index.manifests.iter().find(|descriptor| {
        descriptor
            .platform
            .as_ref()
            .is_none_or(|p| p.architecture == "amd64" && p.os == "linux")
    });
    match ours {
        Some(ours) if nesting < MAX_NESTING => resolve(pieces, ours, image, nesting + 1),
        _ => Err(ImageError::Platform(image.clone())),
    }
}

fn blob(pieces: &Pieces, descriptor: &Descriptor) -> Result<Blob, ImageError> {
    let sha256 = sha256_of(&descriptor.digest).ok_or_else(|| {
        let problem = format!("{:?} is no SHA-256 digest", descriptor.digest);
        ImageError::damaged(pieces.path(), problem)
    })?;
    pieces.piece(&format!("blobs/sha256/{sha256}"), Some(sha256.to_owned()))
}

fn check_layers(pieces: &Pieces, count: usize) -> Result<(), ImageError> {
    if count > MAX_LAYERS {
        return Err(ImageError::damaged(
            pieces.path(),
            format!("it has {count} layers"),
        ));
    }
    Ok(())
}

fn find_docker(pieces: &Pieces, image: &Reference) -> Result<Option<Image>, ImageError> {
    let (manifests, _) = pieces
        .piece("manifest.json", None)?
        .json::<Vec<DockerManifest>>()?;
    let named = |manifest: &&DockerManifest| {
        let tags = manifest.repo_tags.iter().flatten();
        image.digest().is_none()
            && tags
                .into_iter()
                .any(|tag| Reference::parse(tag).is_ok_and(|tag| image.is(&tag)))
    };
    let Some(manifest) = manifests.iter().find(named) else {
        return Ok(None);
    };
    check_layers(pieces, manifest.layers.len())?;
    for name in manifest.layers.iter().chain([&manifest.config]) {
        if name.starts_with('/') || name.split('/').any(|part| part == "..") {
            return Err(ImageError::damaged(
                pieces.path(),
                format!("{name:?} leads out of it"),
            ));
        }
    }
    let (config, id) = pieces
        .piece(&manifest.config, None)?
        .json::<DockerConfig>()?;
    let layers = manifest.layers.iter().enumerate().map(|(index, name)| {
        let blob = pieces.piece(name, None)?;
        let diff_id = config
            .rootfs
            .diff_ids
            .get(index)
            .and_then(|digest| sha256_of(digest));
        // The configuration has the digests of the unpacked layers.
        let sha256 = if super::layers::is_compressed(&blob)? {
            None
        } else {
            diff_id
        };
        Ok(blob.expecting(sha256))
    });
    Ok(Some(Image {
        id,
        layers: layers.collect::<Result<_, ImageError>>()?,
    }))
}
