//! What each volume needs, decided from the instance alone.

use std::path::PathBuf;

use api::devices::Disk;
use api::domain::KernelBootContainer;
use api::volumes::{CloudInitSource, HOST_DISK_EXISTS_OR_CREATE, SysprepSource, Volume};
use api::{FieldError, FieldPath, Quantity, Vmi};

use super::access::key_folders;
use super::cloud_init::{CloudInit, CloudInitKind, Data};
use super::place::{ClaimImage, ClaimStatus, ImageFile, ObjectKind, Place};
use super::status::claim_status;
use crate::state_dir::Layout;

/// Label of a disk with a config map or secret.
const OBJECT_LABEL: &str = "cfgdata";
/// Label of a disk with Windows answer files.
const SYSPREP_LABEL: &str = "unattendCD";
/// Annotations with the name of the instance type that a machine was made from.
const INSTANCE_TYPE_ANNOTATIONS: [&str; 2] = [
    "kubevirt.io/instancetype-name",
    "kubevirt.io/cluster-instancetype-name",
];

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
        /// The file.
        image: ImageFile,
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
    /// The image of a claim.
    Claim {
        /// The image.
        image: ClaimImage,
        /// Whether it may not be written.
        read_only: bool,
        /// Whether the cluster says that its room is set aside.
        preallocated: bool,
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
    /// A disk with metrics of the host, in vhostmd's format.
    Metrics {
        /// Image to make.
        file: PathBuf,
    },
    /// A CD-ROM drive without a medium.
    NoMedium,
}

/// A kernel to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelPlan {
    /// Kernel.
    pub kernel: ImageFile,
    /// Initial RAM disk.
    pub initrd: Option<ImageFile>,
}

/// Decides what each disk's volume needs. The instance must be valid.
///
/// # Errors
///
/// Names the first volume of a kind that is not supported.
pub fn plan_volumes(vmi: &Vmi, place: &Place) -> Result<Vec<VolumePlan>, FieldError> {
    let planner = Planner {
        vmi,
        place,
        layout: place.layout(vmi),
    };
    let disks = vmi.spec.domain.devices.disks.iter().enumerate();
    disks
        .map(|(index, disk)| planner.plan(index, disk))
        .collect()
}

/// Decides where the kernel of `firmware.kernelBoot` is. The instance must be valid.
pub fn plan_kernel(vmi: &Vmi, place: &Place) -> Option<KernelPlan> {
    let firmware = vmi.spec.domain.firmware.as_ref()?;
    let container: &KernelBootContainer = firmware.kernel_boot.as_ref()?.container.as_ref()?;
    let initrd = (!container.initrd_path.is_empty())
        .then(|| place.kernel_file(container, &container.initrd_path));
    Some(KernelPlan {
        kernel: place.kernel_file(container, &container.kernel_path),
        initrd,
    })
}

struct Planner<'a> {
    vmi: &'a Vmi,
    place: &'a Place,
    layout: Layout,
}

impl Planner<'_> {
    fn plan(&self, index: usize, disk: &Disk) -> Result<VolumePlan, FieldError> {
        let name_field = FieldPath::new("spec.domain.devices.disks")
            .index(index)
            .child("name");
        let plan = |field, source| VolumePlan {
            name: disk.name.clone(),
            field,
            source,
        };
        let mut volumes = self.vmi.spec.volumes.iter().enumerate();
        let Some((index, volume)) = volumes.find(|(_, volume)| volume.name == disk.name) else {
            if disk.cdrom.is_some() {
                return Ok(plan(name_field, VolumeSource::NoMedium));
            }
            let text = "there is no volume of this name: add it to spec.volumes";
            return Err(FieldError::new(name_field, text));
        };
        let field = FieldPath::new("spec.volumes").index(index);
        let field = volume
            .sources()
            .first()
            .map_or(field.clone(), |source| field.child(source));
        let source = self.source(index, volume, is_read_only(disk), &field)?;
        Ok(plan(field, source))
    }

    fn source(
        &self,
        index: usize,
        volume: &Volume,
        read_only: bool,
        field: &FieldPath,
    ) -> Result<VolumeSource, FieldError> {
        let overlay = || (!read_only).then(|| self.layout.overlay(&volume.name));
        if let Some(source) = &volume.container_disk {
            Ok(VolumeSource::ContainerDisk {
                image: self.place.container_disk(index, source),
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
            Ok(VolumeSource::HostDisk {
                file: self.place.host_disk(&volume.name, &source.path),
                create_len_bytes: creates.then(|| units(source.capacity.as_ref())),
            })
        } else if let Some(source) = &volume.cloud_init_no_cloud {
            self.cloud_init(volume, source, CloudInitKind::NoCloud, field)
        } else if let Some(source) = &volume.cloud_init_config_drive {
            self.cloud_init(volume, source, CloudInitKind::ConfigDrive, field)
        } else if volume.downward_metrics.is_some() {
            let file = self.layout.metrics_disk();
            Ok(VolumeSource::Metrics { file })
        } else if let Some(claim) = self.claim(volume, field, overlay())? {
            Ok(claim)
        } else {
            self.files(volume, field)
        }
    }

    /// A claim by whichever of its names it is called.
    fn claim(
        &self,
        volume: &Volume,
        field: &FieldPath,
        overlay: Option<PathBuf>,
    ) -> Result<Option<VolumeSource>, FieldError> {
        let ephemeral = volume.ephemeral.as_ref();
        let ephemeral = ephemeral.and_then(|source| source.persistent_volume_claim.as_ref());
        let is_hotplug = |hotpluggable: Option<bool>| hotpluggable.unwrap_or(false);
        let (claim, field, read_only, overlay, hotplugged) =
            if let Some(source) = &volume.persistent_volume_claim {
                let read_only = source.read_only.unwrap_or(false);
                let hotplugged = is_hotplug(source.hotpluggable);
                let field = field.child("claimName");
                (&source.claim_name, field, read_only, None, hotplugged)
            } else if let Some(source) = &volume.data_volume {
                let hotplugged = is_hotplug(source.hotpluggable);
                (&source.name, field.child("name"), false, None, hotplugged)
            } else if let Some(source) = ephemeral {
                let field = field.child("persistentVolumeClaim.claimName");
                (&source.claim_name, field, true, overlay, false)
            } else {
                return Ok(None);
            };
        let known = claim_status(self.vmi, &volume.name);
        let status = ClaimStatus {
            hotplugged: hotplugged || known.hotplugged,
            // What must not be written is not made either.
            capacity_bytes: known.capacity_bytes.filter(|_| !read_only),
            ..known
        };
        Ok(Some(VolumeSource::Claim {
            image: self.place.claim(&volume.name, claim, status, &field)?,
            read_only,
            preallocated: known.preallocated,
            overlay,
        }))
    }

    fn cloud_init(
        &self,
        volume: &Volume,
        source: &CloudInitSource,
        kind: CloudInitKind,
        field: &FieldPath,
    ) -> Result<VolumeSource, FieldError> {
        let secret = |reference: &Option<_>, name: &str, keys| {
            let reference: Option<&api::metadata::LocalObjectReference> = reference.as_ref();
            reference
                .map(|reference| {
                    let field = field.child(name);
                    let folder =
                        self.place
                            .cloud_init_secret(&volume.name, &reference.name, &field)?;
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
        let metadata = &self.vmi.metadata;
        let firmware = self.vmi.spec.domain.firmware.as_ref();
        let data = CloudInit {
            kind,
            name: metadata.name.clone(),
            namespace: metadata.namespace_or_default().to_owned(),
            hostname: self.vmi.guest_hostname().to_owned(),
            uuid: firmware
                .map(|firmware| firmware.uuid.clone())
                .unwrap_or_default(),
            instance_type: INSTANCE_TYPE_ANNOTATIONS
                .iter()
                .find_map(|name| metadata.annotations.get(*name).cloned()),
            user: user.or_else(|| inline(&source.user_data, &source.user_data_base64)),
            network: network.or_else(|| inline(&source.network_data, &source.network_data_base64)),
            key_folders: key_folders(self.vmi, kind, self.place)?,
        };
        Ok(VolumeSource::CloudInit {
            file: self.layout.cloud_init_image(kind.file_name()),
            data,
        })
    }

    /// A volume whose object's files go onto a disk.
    fn files(&self, volume: &Volume, field: &FieldPath) -> Result<VolumeSource, FieldError> {
        let of = |kind, object, label, optional: Option<bool>| FilesOf {
            kind,
            object,
            label,
            optional: optional.unwrap_or(false),
        };
        let name = volume.name.as_str();
        let (files, name_field) = if let Some(source) = &volume.config_map {
            let label = label(&source.volume_label);
            let files = of(ObjectKind::ConfigMap, &source.name, label, source.optional);
            (files, "name")
        } else if let Some(source) = &volume.secret {
            let label = label(&source.volume_label);
            let object = &source.secret_name;
            let files = of(ObjectKind::Secret, object, label, source.optional);
            (files, "secretName")
        } else if let Some(source) = &volume.downward_api {
            let label = label(&source.volume_label);
            let files = of(ObjectKind::DownwardApi, name, label, None);
            (files, "fields")
        } else if let Some(source) = &volume.service_account {
            let object = &source.service_account_name;
            let files = of(ObjectKind::ServiceAccount, object, OBJECT_LABEL, None);
            (files, "serviceAccountName")
        } else if let Some(source) = &volume.sysprep {
            let (object, name_field) = sysprep_object(source, field)?;
            let files = of(ObjectKind::Sysprep, object, SYSPREP_LABEL, None);
            (files, name_field)
        } else {
            let text = "volumes of this kind are not supported yet: remove the volume and its disk";
            return Err(FieldError::new(field.clone(), text));
        };
        let field = field.child(name_field);
        let (folder, file) =
            self.place
                .files(files.kind, name, files.object, &field, &self.layout)?;
        Ok(VolumeSource::Files {
            file,
            label: files.label.to_owned(),
            folder,
            optional: files.optional,
        })
    }
}

/// An object whose files go onto a disk.
struct FilesOf<'v> {
    kind: ObjectKind,
    object: &'v str,
    label: &'v str,
    optional: bool,
}

fn label(given: &str) -> &str {
    if given.is_empty() {
        OBJECT_LABEL
    } else {
        given
    }
}

fn sysprep_object<'s>(
    source: &'s SysprepSource,
    field: &FieldPath,
) -> Result<(&'s str, &'static str), FieldError> {
    match (&source.config_map, &source.secret) {
        (Some(reference), _) => Ok((&reference.name, "configMap.name")),
        (None, Some(reference)) => Ok((&reference.name, "secret.name")),
        (None, None) => {
            let text = "no source is set: name a configMap or a secret";
            Err(FieldError::new(field.clone(), text))
        }
    }
}

/// Whether a disk may only be read: as it says, and CD-ROMs unless they say otherwise.
pub(crate) fn is_read_only(disk: &Disk) -> bool {
    if let Some(cdrom) = &disk.cdrom {
        return cdrom.readonly.unwrap_or(true);
    }
    let disk_says = disk.disk.as_ref().and_then(|disk| disk.readonly);
    let lun_says = disk.lun.as_ref().and_then(|lun| lun.readonly);
    disk_says.or(lun_says).unwrap_or(false)
}

fn inline(text: &str, base64: &str) -> Option<Data> {
    if !text.is_empty() {
        return Some(Data::Bytes(text.as_bytes().to_vec()));
    }
    (!base64.is_empty()).then(|| Data::Bytes(api::base64::decode(base64).unwrap_or_default()))
}

fn units(quantity: Option<&Quantity>) -> u64 {
    quantity.and_then(Quantity::units).unwrap_or(0)
}
