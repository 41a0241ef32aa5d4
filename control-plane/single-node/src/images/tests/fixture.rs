//! Small images for tests.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::images::Digest;

/// An image of one layer with one file.
pub(super) struct Fixture {
    pub(super) config: Vec<u8>,
    pub(super) layer: Vec<u8>,
    pub(super) manifest: Vec<u8>,
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

pub(super) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(super) fn descriptor(media: &str, content: &[u8]) -> Value {
    json!({"mediaType": media, "digest": Digest::of(content), "size": content.len()})
}

impl Fixture {
    pub(super) fn new(content: &str) -> Self {
        let unpacked = tar(&[("disk/root.img", content.as_bytes())]);
        let config = json!({
            "created": "2026-01-02T03:04:05Z", "architecture": "amd64", "os": "linux",
            "config": {"Entrypoint": ["/tool"], "Cmd": null, "Env": ["A=b"], "User": "107"},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&unpacked)]},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let layer = gzip(&unpacked);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        Self {
            config,
            layer,
            manifest,
        }
    }

    pub(super) fn blobs(&self) -> [&[u8]; 3] {
        [&self.config, &self.layer, &self.manifest]
    }

    /// The index of a layout with an image for another platform before it.
    pub(super) fn index(&self, name: Option<&str>) -> Value {
        let mut own = descriptor("application/vnd.oci.image.manifest.v1+json", &self.manifest);
        own["platform"] = json!({"architecture": "amd64", "os": "linux"});
        let mut other = descriptor("application/vnd.oci.image.manifest.v1+json", b"other");
        other["platform"] = json!({"architecture": "s390x", "os": "linux"});
        if let Some(name) = name {
            own["annotations"] = json!({"org.opencontainers.image.ref.name": name});
            other["annotations"] = own["annotations"].clone();
        }
        json!({"schemaVersion": 2, "manifests": [other, own]})
    }

    /// The files of a layout.
    pub(super) fn files(&self, name: Option<&str>) -> Vec<(String, Vec<u8>)> {
        let blob = |it: &[u8]| {
            (
                format!("blobs/sha256/{}", Digest::of(it).hex()),
                it.to_vec(),
            )
        };
        let mut files: Vec<_> = self.blobs().into_iter().map(blob).collect();
        files.push((
            "index.json".to_owned(),
            serde_json::to_vec(&self.index(name)).unwrap(),
        ));
        files
    }

    pub(super) fn layout(&self, folder: &Path, name: Option<&str>) -> PathBuf {
        let layout = folder.join("layout");
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        for (path, content) in self.files(name) {
            fs::write(layout.join(path), content).unwrap();
        }
        layout
    }

    pub(super) fn archive(&self, name: Option<&str>) -> Vec<u8> {
        let files = self.files(name);
        let files: Vec<_> = files
            .iter()
            .map(|(path, content)| (path.as_str(), content.as_slice()))
            .collect();
        tar(&files)
    }

    /// An archive of `docker save`.
    pub(super) fn saved(&self, names: &Value) -> Vec<u8> {
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(
            &mut flate2::read::GzDecoder::new(&self.layer[..]),
            &mut unpacked,
        )
        .unwrap();
        let manifest = json!([{"Config": "c.json", "RepoTags": names, "Layers": ["l/layer.tar"]}]);
        let manifest = serde_json::to_vec(&manifest).unwrap();
        tar(&[
            ("c.json", &self.config),
            ("l/layer.tar", &unpacked),
            ("manifest.json", &manifest),
        ])
    }
}
