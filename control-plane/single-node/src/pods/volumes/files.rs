//! Volumes whose files come from objects: config maps, secrets, tokens, and the pod itself.
//!
//! As the kubelet's, such a folder has its files in a folder with a time in its name; `..data` is a link to that, and
//! each file is a link through `..data`. Replacing `..data` replaces all at once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::{Maker, VolumeError, folders, on_disk};
use crate::pods::environment::{field, resource};
use crate::pods::plan::init_containers;

/// Mode of files that have none.
const MODE_DEFAULT: i32 = 0o644;
/// Seconds that a token lives that asks for no time.
const TOKEN_LIFE_DEFAULT_S: i64 = 3600;
/// Most bytes of a volume.
const VOLUME_LEN_MAX_BYTES: usize = 16 << 20;
/// Options of file systems for secrets.
const MEMORY_OPTIONS: &str = "mode=0755,size=32m";

/// Files of a volume by their paths in it.
type Files = BTreeMap<PathBuf, File>;

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    content: Vec<u8>,
    mode: i32,
}

impl Maker<'_> {
    /// Writes such a volume, and returns its folder.
    pub(super) async fn files(&self, volume: &Volume) -> Result<PathBuf, VolumeError> {
        let mut files = Files::new();
        let kind = if let Some(wanted) = &volume.config_map {
            let mode = wanted.default_mode.unwrap_or(MODE_DEFAULT);
            files = self
                .config_map_files(
                    volume,
                    &wanted.name,
                    wanted.items.as_deref(),
                    wanted.optional,
                    mode,
                )
                .await?;
            "configmap"
        } else if let Some(wanted) = &volume.secret {
            let mode = wanted.default_mode.unwrap_or(MODE_DEFAULT);
            let name = wanted.secret_name.as_deref().unwrap_or_default();
            files = self
                .secret_files(volume, name, wanted.items.as_deref(), wanted.optional, mode)
                .await?;
            "secret"
        } else if let Some(wanted) = &volume.downward_api {
            let mode = wanted.default_mode.unwrap_or(MODE_DEFAULT);
            files = self.pod_files(volume, wanted.items.as_deref().unwrap_or_default(), mode)?;
            "downward-api"
        } else {
            let projected = volume.projected.clone().unwrap_or_default();
            let mode = projected.default_mode.unwrap_or(MODE_DEFAULT);
            for source in projected.sources.iter().flatten() {
                files.extend(self.projection(volume, source, mode).await?);
            }
            "projected"
        };
        let folder = self.folder(kind, &volume.name);
        let (made, group) = (folder.clone(), self.fs_group());
        let is_secret = kind == "secret" || kind == "projected";
        let written = on_disk(move || write(&made, &files, is_secret, group)).await;
        written.map_err(|error| self.failed(volume, &error.to_string()))?;
        Ok(folder)
    }

    async fn config_map_files(
        &self,
        volume: &Volume,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<Files, VolumeError> {
        let found = self
            .cluster
            .config_map(self.namespace(), name)
            .await
            .map_err(self.unread(volume))?;
        let is_optional = optional == Some(true);
        if found.is_none() && !is_optional {
            return Err(self.failed(volume, &format!("configmap \"{name}\" not found")));
        }
        let found = found.unwrap_or_default();
        let texts = found
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, text)| (key, text.into_bytes()));
        let binaries = found
            .binary_data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, bytes)| (key, bytes.0));
        let what = format!("configmap \"{name}\"");
        select(
            texts.chain(binaries).collect(),
            items,
            is_optional,
            mode,
            &what,
        )
        .map_err(|reason| self.failed(volume, &reason))
    }

    async fn secret_files(
        &self,
        volume: &Volume,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<Files, VolumeError> {
        let found = self
            .cluster
            .secret(self.namespace(), name)
            .await
            .map_err(self.unread(volume))?;
        let is_optional = optional == Some(true);
        if found.is_none() && !is_optional {
            return Err(self.failed(volume, &format!("secret \"{name}\" not found")));
        }
        let data = found.unwrap_or_default().data.unwrap_or_default();
        let data = data
            .into_iter()
            .map(|(key, bytes)| (key, bytes.0))
            .collect();
        let what = format!("secret \"{name}\"");
        select(data, items, is_optional, mode, &what).map_err(|reason| self.failed(volume, &reason))
    }

    fn pod_files(
        &self,
        volume: &Volume,
        items: &[DownwardAPIVolumeFile],
        mode: i32,
    ) -> Result<Files, VolumeError> {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let mut files = Files::new();
        for item in items {
            let content = if let Some(selected) = &item.field_ref {
                field(self.pod, &selected.field_path, self.around())
            } else if let Some(selected) = &item.resource_field_ref {
                let name = selected.container_name.as_deref().unwrap_or_default();
                let mut all = init_containers(&spec).iter().chain(&spec.containers);
                let container = all
                    .find(|container| container.name == name)
                    .cloned()
                    .unwrap_or_default();
                resource(&container, selected)
            } else {
                continue;
            };
            let content = content
                .map_err(|error| self.failed(volume, &error.to_string()))?
                .into_bytes();
            let path = inside(&item.path).map_err(|reason| self.failed(volume, &reason))?;
            files.insert(
                path,
                File {
                    content,
                    mode: item.mode.unwrap_or(mode),
                },
            );
        }
        Ok(files)
    }

    async fn projection(
        &self,
        volume: &Volume,
        source: &VolumeProjection,
        mode: i32,
    ) -> Result<Files, VolumeError> {
        if let Some(wanted) = &source.config_map {
            let files = self
                .config_map_files(
                    volume,
                    &wanted.name,
                    wanted.items.as_deref(),
                    wanted.optional,
                    mode,
                )
                .await?;
            return Ok(files);
        }
        if let Some(wanted) = &source.secret {
            let files = self
                .secret_files(
                    volume,
                    &wanted.name,
                    wanted.items.as_deref(),
                    wanted.optional,
                    mode,
                )
                .await?;
            return Ok(files);
        }
        if let Some(wanted) = &source.downward_api {
            let items = wanted.items.as_deref().unwrap_or_default();
            return self.pod_files(volume, items, mode);
        }
        if let Some(wanted) = &source.service_account_token {
            return self.token(volume, wanted).await;
        }
        Err(self.failed(volume, "projected.sources: a source that is neither configMap, secret, downwardAPI nor serviceAccountToken"))
    }

    async fn token(
        &self,
        volume: &Volume,
        wanted: &ServiceAccountTokenProjection,
    ) -> Result<Files, VolumeError> {
        let path = inside(&wanted.path).map_err(|reason| self.failed(volume, &reason))?;
        let key = (volume.name.clone(), path.clone());
        let known = lock(self.tokens).get(&key).cloned();
        let (token, due) = match known.filter(|(_, due)| *due > Timestamp::now()) {
            Some(known) => known,
            None => self.new_token(volume, wanted).await?,
        };
        lock(self.tokens).insert(key, (token.clone(), due));
        let mode = if self.fs_group().is_some() {
            0o640
        } else {
            0o644
        };
        let file = File {
            content: token.into_bytes(),
            mode,
        };
        Ok(Files::from([(path, file)]))
    }

    /// Asks for a token, and returns it with when it is to be renewed: after four fifths of its life.
    async fn new_token(
        &self,
        volume: &Volume,
        wanted: &ServiceAccountTokenProjection,
    ) -> Result<(String, Timestamp), VolumeError> {
        let spec = self.pod.spec.as_ref();
        let account = spec
            .and_then(|spec| spec.service_account_name.as_deref())
            .filter(|name| !name.is_empty());
        let life = wanted.expiration_seconds.unwrap_or(TOKEN_LIFE_DEFAULT_S);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: wanted.audience.clone().into_iter().collect(),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: self.pod.metadata.name.clone(),
                    uid: self.pod.metadata.uid.clone(),
                }),
                expiration_seconds: Some(life),
            },
            ..TokenRequest::default()
        };
        let account = account.unwrap_or("default");
        let made = self.cluster.token(self.namespace(), account, request).await;
        let status = made.map_err(self.unread(volume))?.status;
        let status = status.ok_or_else(|| self.failed(volume, "the API's answer has no token"))?;
        let due = status.expiration_timestamp.0.as_second() - life / 5;
        let due = Timestamp::from_second(due).unwrap_or_else(|_| Timestamp::now());
        Ok((status.token, due))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the files for keys, all of them or those selected.
fn select(
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    is_optional: bool,
    mode: i32,
    what: &str,
) -> Result<Files, String> {
    if data.values().map(Vec::len).sum::<usize>() > VOLUME_LEN_MAX_BYTES {
        return Err(format!(
            "{what} is larger than {VOLUME_LEN_MAX_BYTES} bytes"
        ));
    }
    let Some(items) = items else {
        let all = data
            .into_iter()
            .map(|(key, content)| Ok((inside(&key)?, File { content, mode })));
        return all.collect();
    };
    let mut files = Files::new();
    for item in items {
        match data.remove(&item.key) {
            Some(content) => {
                files.insert(
                    inside(&item.path)?,
                    File {
                        content,
                        mode: item.mode.unwrap_or(mode),
                    },
                );
            }
            None if is_optional => {}
            None => {
                return Err(format!(
                    "{what} references non-existent config key: {}",
                    item.key
                ));
            }
        }
    }
    Ok(files)
}

/// Checks that a path stays in its volume.
fn inside(path: &str) -> Result<PathBuf, String> {
    let parts: Vec<_> = Path::new(path).components().collect();
    let is_fine = |part: &Component<'_>| matches!(part, Component::Normal(_));
    let begins_with_dots = path.starts_with("..");
    if parts.is_empty() || begins_with_dots || !parts.iter().all(is_fine) {
        return Err(format!("path {path:?} leads out of the volume"));
    }
    Ok(parts.iter().collect())
}

/// Writes files so that they replace all that were there at once. Nothing is written that is there already.
fn write(folder: &Path, files: &Files, is_secret: bool, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    if is_secret {
        folders::in_memory(folder, "tmpfs", MEMORY_OPTIONS)?;
    }
    let data = folder.join("..data");
    let old = fs::read_link(&data).ok();
    if let Some(old) = &old
        && holds(&folder.join(old), files)
    {
        return Ok(());
    }
    let now = Timestamp::now();
    let new = format!(
        "..{}.{:09}",
        now.strftime("%Y_%m_%d_%H_%M_%S"),
        now.subsec_nanosecond()
    );
    let target = folder.join(&new);
    fs::create_dir(&target)?;
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        write_file(&target.join(path), file, group)?;
    }
    let link = folder.join("..data_tmp");
    let _not_there = fs::remove_file(&link);
    symlink(&new, &link)?;
    fs::rename(link, data)?;
    link_names(folder, files)?;
    match old {
        Some(old) if old.to_string_lossy().starts_with("..") && old.components().count() == 1 => {
            fs::remove_dir_all(folder.join(old))
        }
        _ => Ok(()),
    }
}

fn write_file(path: &Path, file: &File, group: Option<u32>) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, &file.content)?;
    // The pod's group may read what it may not otherwise.
    let for_group = if group.is_some() { 0o440 } else { 0 };
    let mode = u32::try_from(file.mode).unwrap_or(0o644) & 0o777;
    std::os::unix::fs::chown(path, None, group)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode | for_group))
}

fn holds(folder: &Path, files: &Files) -> bool {
    let is_same = |(path, file): (&PathBuf, &File)| {
        fs::read(folder.join(path)).is_ok_and(|content| content == file.content)
    };
    count(folder) == files.len() && files.iter().all(is_same)
}

fn count(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                count(&entry.path())
            } else {
                1
            }
        })
        .sum()
}

/// Links each file's first name through `..data`, and removes links to what is gone.
fn link_names(folder: &Path, files: &Files) -> io::Result<()> {
    let names: std::collections::BTreeSet<_> = files
        .keys()
        .filter_map(|path| path.components().next())
        .map(|part| part.as_os_str().to_owned())
        .collect();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with("..") && !names.contains(&name) {
            fs::remove_file(folder.join(name))?;
        }
    }
    for name in names {
        match symlink(Path::new("..data").join(&name), folder.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{File, Files, inside, write};

    fn files(all: &[(&str, &str)]) -> Files {
        let file = |text: &str| File {
            content: text.into(),
            mode: 0o600,
        };
        all.iter()
            .map(|(path, text)| (inside(path).unwrap(), file(text)))
            .collect()
    }

    #[test]
    fn files_are_replaced_all_at_once() {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            &files(&[("a", "1"), ("b/c", "2"), ("d", "3")]),
            false,
            None,
        )
        .unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            (read("a"), read("b/c"), read("..data/d")),
            ("1".to_owned(), "2".to_owned(), "3".to_owned())
        );
        let first = fs::read_link(folder.path().join("..data")).unwrap();
        write(
            folder.path(),
            &files(&[("a", "1"), ("b/c", "2"), ("d", "3")]),
            false,
            None,
        )
        .unwrap();
        assert_eq!(fs::read_link(folder.path().join("..data")).unwrap(), first);
        write(folder.path(), &files(&[("a", "9")]), false, None).unwrap();
        assert_eq!(read("a"), "9");
        assert_eq!(
            fs::read_link(folder.path().join("a")).unwrap(),
            Path::new("..data/a")
        );
        assert!(!folder.path().join(first).exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn paths_stay_in_the_volume() {
        for odd in ["", "/etc/passwd", "../x", "a/../../b", "..data", "."] {
            inside(odd).unwrap_err();
        }
        assert_eq!(inside("a/b").unwrap(), Path::new("a/b"));
    }
}
