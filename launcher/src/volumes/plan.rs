//! What each volume needs, decided from the instance alone.

use std::path::{Path, PathBuf};

use api::devices::Disk;
use api::volumes::{CloudInitSource, HOST_DISK_EXISTS_OR_CREATE, Volume};
use api::{FieldError, FieldPath, Quantity, Vmi};

use super::cloud_init::{CloudInit, CloudInitKind, Data};
use crate::state_dir::Layout;

/// Label of a disk with a config map or secret.
const OBJECT_LABEL: &str = "cfgdata";
/// Label of a disk with Windows answer files.
const SYSPREP_LABEL: &str = "unattendCD";
/// Image file of a claim's volume.
const CLAIM_IMAGE: &str = "disk.img";

/// What one volume needs.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumePlan {
    /// Name of the volume and of its disk.
    pub name: String,
    /// The field that says it.
    pub field: FieldPath,
    /// Where the data come from.
    pub source: VolumeSource,
}

/// Where a volume's data come from.
#[derive(Clone, Debug, PartialEq)]
pub enum VolumeSource {
    /// A file in a container image.
    ContainerDisk {
        /// Name of the image.
        image: String,
        /// Path in it; its only disk when `None`.
        path: Option<String>,
        /// Where the guest's writes go; nowhere when it may not write.
        overlay: Option<PathBuf>,
    },
    /// A new, empty disk.
    EmptyDisk {
        /// Image to make.
        file: PathBuf,
        /// Its size.
        len_bytes: u64,
    },
    /// A file of the host.
    HostDisk {
        /// The file.
        file: PathBuf,
        /// Size to make it with when it is absent; it must exist when `None`.
        create_len_bytes: Option<u64>,
    },
    /// The image in a claim's folder.
    Claim {
        /// The image.
        file: PathBuf,
        /// Whether it may not be written.
        read_only: bool,
        /// Where the guest's writes go instead.
        overlay: Option<PathBuf>,
    },
    /// A disk with cloud-init's data.
    CloudInit {
        /// Image to make.
        file: PathBuf,
        /// What goes into it.
        data: CloudInit,
    },
    /// A disk with the files of a folder.
    Files {
        /// Image to make.
        file: PathBuf,
        /// Label of its file system.
        label: String,
        /// The folder.
        folder: PathBuf,
        /// Whether the folder may be absent.
        optional: bool,
    },
}

/// Decides what each disk's volume needs. The instance must be valid.
///
/// # Errors
///
/// Names the first volume of a kind that is not supported.
pub fn plan_volumes(
    vmi: &Vmi,
    layout: &Layout,
    volume_dir: Option<&Path>,
) -> Result<Vec<VolumePlan>, FieldError> {
    let planner = Planner {
        vmi,
        layout,
        volume_dir,
    };
    let disks = vmi.spec.domain.devices.disks.iter().enumerate();
    disks
        .map(|(index, disk)| planner.plan(index, disk))
        .collect()
}

struct Planner<'a> {
    vmi: &'a Vmi,
    layout: &'a Layout,
    volume_dir: Option<&'a Path>,
}

impl Planner<'_> {
    fn plan(&self, index: usize, disk: &Disk) -> Result<VolumePlan, FieldError> {
        let disk_field = FieldPath::new("spec.domain.devices.disks").index(index);
        if disk.lun.is_some() {
            let text = "passing a SCSI unit through is not supported yet: use disk";
            return Err(FieldError::new(disk_field.child("lun"), text));
        }
        let mut volumes = self.vmi.spec.volumes.iter().enumerate();
        let (index, volume) = volumes
            .find(|(_, volume)| volume.name == disk.name)
            .ok_or_else(|| {
                FieldError::new(
                    disk_field.child("name"),
                    "there is no volume of this name: add it to spec.volumes",
                )
            })?;
        let field = FieldPath::new("spec.volumes").index(index);
        let field = volume
            .sources()
            .first()
            .map_or(field.clone(), |source| field.child(source));
        let source = self.source(volume, is_read_only(disk), &field)?;
        Ok(VolumePlan {
            name: disk.name.clone(),
            field,
            source,
        })
    }

    fn source(
        &self,
        volume: &Volume,
        read_only: bool,
        field: &FieldPath,
    ) -> Result<VolumeSource, FieldError> {
        let overlay = || (!read_only).then(|| self.layout.overlay(&volume.name));
        if let Some(source) = &volume.container_disk {
            Ok(VolumeSource::ContainerDisk {
                image: source.image.clone(),
                path: (!source.path.is_empty()).then(|| source.path.clone()),
                overlay: overlay(),
            })
        } else if let Some(source) = &volume.empty_disk {
            let file = self.layout.empty_disk(&volume.name);
            Ok(VolumeSource::EmptyDisk {
                file,
                len_bytes: units(source.capacity.as_ref()),
            })
        } else if let Some(source) = &volume.host_disk {
            let creates = source.disk_type == HOST_DISK_EXISTS_OR_CREATE;
            let create_len_bytes = creates.then(|| units(source.capacity.as_ref()));
            Ok(VolumeSource::HostDisk {
                file: PathBuf::from(&source.path),
                create_len_bytes,
            })
        } else if let Some(source) = &volume.persistent_volume_claim {
            let read_only = source.read_only.unwrap_or(false);
            self.claim(
                &source.claim_name,
                &field.child("claimName"),
                read_only,
                None,
            )
        } else if let Some(source) = &volume.data_volume {
            self.claim(&source.name, &field.child("name"), false, None)
        } else if let Some(claim) = volume
            .ephemeral
            .as_ref()
            .and_then(|source| source.persistent_volume_claim.as_ref())
        {
            let field = field.child("persistentVolumeClaim.claimName");
            self.claim(&claim.claim_name, &field, true, overlay())
        } else if let Some(source) = &volume.cloud_init_no_cloud {
            self.cloud_init(source, CloudInitKind::NoCloud, field)
        } else if let Some(source) = &volume.cloud_init_config_drive {
            self.cloud_init(source, CloudInitKind::ConfigDrive, field)
        } else {
            self.files(volume, field)
        }
    }

    fn claim(
        &self,
        claim: &str,
        field: &FieldPath,
        read_only: bool,
        overlay: Option<PathBuf>,
    ) -> Result<VolumeSource, FieldError> {
        let file = self.folder(claim, field)?.join(CLAIM_IMAGE);
        Ok(VolumeSource::Claim {
            file,
            read_only,
            overlay,
        })
    }

    fn cloud_init(
        &self,
        source: &CloudInitSource,
        kind: CloudInitKind,
        field: &FieldPath,
    ) -> Result<VolumeSource, FieldError> {
        let secret = |reference: &Option<_>, name: &str, keys| {
            let reference: Option<&api::metadata::LocalObjectReference> = reference.as_ref();
            reference
                .map(|reference| {
                    let folder = self.folder(&reference.name, &field.child(name))?;
                    Ok(Data::Secret { folder, keys })
                })
                .transpose()
        };
        let user = secret(&source.secret_ref, "secretRef", ["userdata", "userData"])?;
        let network = secret(
            &source.network_data_secret_ref,
            "networkDataSecretRef",
            ["networkdata", "networkData"],
        )?;
        let firmware = self.vmi.spec.domain.firmware.as_ref();
        let data = CloudInit {
            kind,
            name: self.vmi.metadata.name.clone(),
            namespace: self.vmi.metadata.namespace_or_default().to_owned(),
            hostname: self.vmi.guest_hostname().to_owned(),
            uuid: firmware
                .map(|firmware| firmware.uuid.clone())
                .unwrap_or_default(),
            user: user.or_else(|| inline(&source.user_data, &source.user_data_base64)),
            network: network.or_else(|| inline(&source.network_data, &source.network_data_base64)),
        };
        Ok(VolumeSource::CloudInit {
            file: self.layout.cloud_init_image(kind.file_name()),
            data,
        })
    }

    fn files(&self, volume: &Volume, field: &FieldPath) -> Result<VolumeSource, FieldError> {
        let label = |label: &str| {
            if label.is_empty() {
                OBJECT_LABEL
            } else {
                label
            }
            .to_owned()
        };
        let (kind, label, name, optional, name_field) = if let Some(source) = &volume.config_map {
            let optional = source.optional.unwrap_or(false);
            (
                "config-map-disks",
                label(&source.volume_label),
                &source.name,
                optional,
                "name",
            )
        } else if let Some(source) = &volume.secret {
            let optional = source.optional.unwrap_or(false);
            (
                "secret-disks",
                label(&source.volume_label),
                &source.secret_name,
                optional,
                "secretName",
            )
        } else if let Some(source) = &volume.sysprep {
            let (reference, name_field) = match (&source.config_map, &source.secret) {
                (Some(reference), _) => (reference, "configMap.name"),
                (None, Some(reference)) => (reference, "secret.name"),
                (None, None) => {
                    let text = "no source is set: name a configMap or a secret";
                    return Err(FieldError::new(field.clone(), text));
                }
            };
            (
                "sysprep-disks",
                SYSPREP_LABEL.to_owned(),
                &reference.name,
                false,
                name_field,
            )
        } else {
            let text = "volumes of this kind are not supported yet: remove the volume and its disk";
            return Err(FieldError::new(field.clone(), text));
        };
        let folder = self.folder(name, &field.child(name_field))?;
        let file = self.layout.object_image(kind, &volume.name);
        Ok(VolumeSource::Files {
            file,
            label,
            folder,
            optional,
        })
    }

    /// The folder that stands for a config map, secret or claim.
    fn folder(&self, name: &str, field: &FieldPath) -> Result<PathBuf, FieldError> {
        let Some(volume_dir) = self.volume_dir else {
            return Err(FieldError::new(
                field.clone(),
                format!(
                    "{name:?} is an object of a cluster: give the folder that holds {name}/ with --volume-dir"
                ),
            ));
        };
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return Err(FieldError::new(
                field.clone(),
                format!("{name:?} is no object's name"),
            ));
        }
        Ok(volume_dir.join(name))
    }
}

/// Whether a disk may only be read: as it says, and CD-ROMs unless they say otherwise.
pub(crate) fn is_read_only(disk: &Disk) -> bool {
    if let Some(cdrom) = &disk.cdrom {
        return cdrom.readonly.unwrap_or(true);
    }
    disk.disk
        .as_ref()
        .and_then(|disk| disk.readonly)
        .unwrap_or(false)
}

fn inline(text: &str, base64: &str) -> Option<Data> {
    if !text.is_empty() {
        return Some(Data::Bytes(text.as_bytes().to_vec()));
    }
    (!base64.is_empty()).then(|| Data::Bytes(api::base64::decode(base64).unwrap_or_default()))
}

fn units(quantity: Option<&Quantity>) -> u64 {
    quantity.and_then(|quantity| quantity.units()).unwrap_or(0)
}
