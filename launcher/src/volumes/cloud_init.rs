//! Disks for cloud-init: the NoCloud and ConfigDrive data sources.

use std::path::PathBuf;

use block::iso9660::IsoBuilder;
use serde_json::{Map, Value, json};

use super::VolumeCause;
use super::access::read_keys;
use super::folder::read_bounded;

/// Most user or network data; cloud-init itself refuses more than 16 MiB packed.
const MAX_DATA_MIB: u64 = 16;

/// Which data source a disk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloudInitKind {
    /// Files in the root, label `cidata`.
    NoCloud,
    /// OpenStack's layout, label `config-2`.
    ConfigDrive,
}

impl CloudInitKind {
    /// Returns the image's file name.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::NoCloud => "noCloud.iso",
            Self::ConfigDrive => "configdrive.iso",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::NoCloud => "cidata",
            Self::ConfigDrive => "config-2",
        }
    }
}

/// What a cloud-init disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudInit {
    /// Which data source it is for.
    pub kind: CloudInitKind,
    /// Name of the instance.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Host name that the guest takes.
    pub hostname: String,
    /// System UUID; cloud-init runs anew where it changes.
    pub uuid: String,
    /// Name of the instance type that the machine was made from.
    pub instance_type: Option<String>,
    /// User data.
    pub user: Option<Data>,
    /// Network data.
    pub network: Option<Data>,
    /// Folders with SSH keys.
    pub key_folders: Vec<PathBuf>,
}

/// Data given in the manifest, or by a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// The bytes themselves.
    Bytes(Vec<u8>),
    /// A key of a secret.
    Secret {
        /// Folder with the secret's files.
        folder: PathBuf,
        /// Keys that may hold the data, in order.
        keys: [&'static str; 2],
    },
}

impl Data {
    fn read(&self) -> Result<Vec<u8>, VolumeCause> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::Secret { folder, keys } => {
                let paths = keys.map(|key| folder.join(key));
                // Where a secret has no such key, a kubelet that mounts it alone leaves an empty folder.
                let Some(path) = paths.iter().find(|path| path.is_file()) else {
                    let [path, _] = paths;
                    let cure = "give the secret this key";
                    return Err(VolumeCause::Absent { path, cure });
                };
                read_bounded(path, MAX_DATA_MIB)
            }
        }
    }
}

impl CloudInit {
    /// The files of the disk, by path.
    pub(super) fn files(&self) -> Result<Vec<(&'static str, Vec<u8>)>, VolumeCause> {
        let user = self.user.as_ref().map(Data::read).transpose()?;
        let network = self.network.as_ref().map(Data::read).transpose()?;
        let metadata = self.metadata()?.to_string().into_bytes();
        let files = match self.kind {
            CloudInitKind::NoCloud => [
                ("meta-data", Some(metadata)),
                ("user-data", Some(user.unwrap_or_default())),
                ("network-config", network),
            ],
            CloudInitKind::ConfigDrive => [
                ("openstack/latest/meta_data.json", Some(metadata)),
                ("openstack/latest/user_data", user),
                ("openstack/latest/network_data.json", network),
            ],
        };
        Ok(files
            .into_iter()
            .filter_map(|(path, bytes)| Some((path, bytes?)))
            .collect())
    }

    /// What the guest learns of itself; the names of the fields differ by data source.
    fn metadata(&self) -> Result<Value, VolumeCause> {
        let keys = self.public_keys()?;
        let (mut document, type_field, keys_field) = match self.kind {
            CloudInitKind::NoCloud => {
                let document = json!({"instance-id": self.uuid, "local-hostname": self.hostname});
                (document, "instance-type", "public-keys")
            }
            CloudInitKind::ConfigDrive => {
                let document = json!({
                    "instance_id": format!("{}.{}", self.name, self.namespace),
                    "hostname": self.hostname,
                    "uuid": self.uuid,
                });
                (document, "instance_type", "public_keys")
            }
        };
        if let Some(instance_type) = &self.instance_type {
            document[type_field] = json!(instance_type);
        }
        if !keys.is_empty() {
            document[keys_field] = Value::Object(keys);
        }
        Ok(document)
    }

    /// SSH keys by number, as cloud-init takes them.
    fn public_keys(&self) -> Result<Map<String, Value>, VolumeCause> {
        let mut keys = Vec::new();
        for folder in &self.key_folders {
            keys.extend(read_keys(folder)?);
        }
        let numbered = keys.into_iter().enumerate();
        Ok(numbered
            .map(|(number, key)| (number.to_string(), Value::String(key)))
            .collect())
    }

    /// Lays out the disk.
    pub(super) fn image(&self) -> Result<IsoBuilder, VolumeCause> {
        let mut iso = IsoBuilder::new(self.kind.label())?;
        for (path, bytes) in self.files()? {
            iso.file(path, bytes)?;
        }
        Ok(iso)
    }
}
