//! Disks for cloud-init: the NoCloud and ConfigDrive data sources.

use std::path::{Path, PathBuf};

use block::iso9660::IsoBuilder;
use serde_json::json;

use super::VolumeCause;

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
    /// User data.
    pub user: Option<Data>,
    /// Network data.
    pub network: Option<Data>,
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
                let Some(path) = paths.iter().find(|path| path.exists()) else {
                    let [path, _] = paths;
                    let cure = "put the secret's keys there as files";
                    return Err(VolumeCause::Absent { path, cure });
                };
                read_bounded(path, MAX_DATA_MIB)
            }
        }
    }
}

/// Reads a small file.
pub(super) fn read_bounded(path: &Path, limit_mib: u64) -> Result<Vec<u8>, VolumeCause> {
    use std::io::Read;
    let read = |source| VolumeCause::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    file.take((limit_mib << 20) + 1)
        .read_to_end(&mut bytes)
        .map_err(read)?;
    if bytes.len() as u64 > limit_mib << 20 {
        return Err(VolumeCause::TooLarge {
            path: path.to_owned(),
            limit_mib,
        });
    }
    Ok(bytes)
}

impl CloudInit {
    /// The files of the disk, by path.
    pub(super) fn files(&self) -> Result<Vec<(&'static str, Vec<u8>)>, VolumeCause> {
        let user = self.user.as_ref().map(Data::read).transpose()?;
        let network = self.network.as_ref().map(Data::read).transpose()?;
        let files = match self.kind {
            CloudInitKind::NoCloud => [
                ("meta-data", Some(self.no_cloud_metadata())),
                ("user-data", Some(user.unwrap_or_default())),
                ("network-config", network),
            ],
            CloudInitKind::ConfigDrive => [
                (
                    "openstack/latest/meta_data.json",
                    Some(self.config_drive_metadata()),
                ),
                ("openstack/latest/user_data", user),
                ("openstack/latest/network_data.json", network),
            ],
        };
        Ok(files
            .into_iter()
            .filter_map(|(path, bytes)| Some((path, bytes?)))
            .collect())
    }

    fn no_cloud_metadata(&self) -> Vec<u8> {
        let document = json!({"instance-id": self.uuid, "local-hostname": self.hostname});
        document.to_string().into_bytes()
    }

    fn config_drive_metadata(&self) -> Vec<u8> {
        let document = json!({
            "instance_id": format!("{}.{}", self.name, self.namespace),
            "hostname": self.hostname,
            "uuid": self.uuid,
        });
        document.to_string().into_bytes()
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
