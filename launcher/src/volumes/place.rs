//! Where a launcher finds what its instance's volumes name: below folders that the user gave, or at the
//! paths of a KubeVirt pod.

use std::path::{Path, PathBuf};

use api::domain::KernelBootContainer;
use api::volumes::ContainerDiskSource;
use api::{FieldError, FieldPath, Vmi};

use crate::images::{ImageError, ImageStore, mounted_disk, mounted_file};
use crate::pod::PodPaths;
use crate::state_dir::Layout;

/// Where the kubelet puts claims of volume mode Block, by volume name.
const BLOCK_DEVICE_DIR: &str = "/dev";
/// Image file of a claim's volume.
const CLAIM_IMAGE: &str = "disk.img";

/// Where a launcher runs, which decides where volumes lie.
#[derive(Clone, Debug)]
pub enum Place {
    /// Without a cluster.
    Standalone(Standalone),
    /// In the `compute` container of a launcher pod.
    Pod {
        /// The pod's folders.
        paths: PodPaths,
        /// Whether container disks are image volumes of the kubelet (gate `ImageVolume`) instead of files
        /// that the node agent mounts.
        image_volume: bool,
    },
}

/// Where a launcher without a cluster finds things.
#[derive(Clone, Debug)]
pub struct Standalone {
    /// Folder for the files that it makes.
    pub root: PathBuf,
    /// Folder with a folder for each config map, secret and claim.
    pub volume_dir: Option<PathBuf>,
    /// Container images.
    pub images: ImageStore,
}

/// A file of a container image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageFile {
    /// In an image of the image folder.
    Stored {
        /// Name of the image.
        image: String,
        /// Path in it; its only disk when `None`.
        path: Option<String>,
    },
    /// Mounted by the node agent.
    File(PathBuf),
    /// In an image that the kubelet mounts.
    Mounted {
        /// Where.
        root: PathBuf,
        /// Name of the image.
        image: String,
        /// Path in it; its only disk when `None`.
        path: Option<String>,
    },
}

/// The image of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimImage {
    /// A file, made when it is absent and the claim's size is known.
    File {
        /// The file.
        file: PathBuf,
        /// Size of the claim, bytes.
        create_len_bytes: Option<u64>,
    },
    /// A block device.
    Device(PathBuf),
    /// Whichever is there.
    FileOrDevice {
        /// The file of a claim that is mounted.
        file: PathBuf,
        /// The device of one that is not.
        device: PathBuf,
    },
}

/// What a pod knows of a claim by its volume's status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ClaimStatus {
    /// Whether it is a block device.
    pub(super) block: Option<bool>,
    /// Whether its room is set aside.
    pub(super) preallocated: bool,
    /// Its size, bytes.
    pub(super) capacity_bytes: Option<u64>,
    /// Whether it is attached while the machine runs.
    pub(super) hotplugged: bool,
}

/// Which kind of object becomes a disk of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ObjectKind {
    ConfigMap,
    Secret,
    DownwardApi,
    ServiceAccount,
    Sysprep,
}

impl ObjectKind {
    /// Folder with the object's files, in a pod's private folder.
    fn source_dir(self) -> &'static str {
        match self {
            Self::ConfigMap => "config-map",
            Self::Secret => "secret",
            Self::DownwardApi => "downwardapi",
            // Not in the private folder; the kubelet has a place of its own for it.
            Self::ServiceAccount => "",
            Self::Sysprep => "sysprep",
        }
    }

    /// Folder with the image, in the private folder.
    fn image_dir(self) -> &'static str {
        match self {
            Self::ConfigMap => "config-map-disks",
            Self::Secret => "secret-disks",
            Self::DownwardApi => "downwardapi-disks",
            Self::ServiceAccount => "service-account-disk",
            Self::Sysprep => "sysprep-disks",
        }
    }
}

impl Place {
    /// Returns where the files lie that are made for an instance.
    pub fn layout(&self, vmi: &Vmi) -> Layout {
        match self {
            Self::Standalone(place) => Layout::new(&place.root, vmi),
            Self::Pod { paths, .. } => Layout::in_pod(paths, vmi),
        }
    }

    /// The image of a container disk, `index` being its volume's place in the specification.
    pub(super) fn container_disk(&self, index: usize, source: &ContainerDiskSource) -> ImageFile {
        let image = source.image.clone();
        let path = (!source.path.is_empty()).then(|| source.path.clone());
        match self {
            Self::Standalone(_) => ImageFile::Stored { image, path },
            Self::Pod {
                paths,
                image_volume: true,
            } => ImageFile::Mounted {
                root: paths.image_volume_dir.join(format!("disk_{index}")),
                image,
                path,
            },
            Self::Pod { paths, .. } => {
                ImageFile::File(paths.container_disk_dir.join(format!("disk_{index}.img")))
            }
        }
    }

    /// A file of the kernel's image.
    pub(super) fn kernel_file(&self, container: &KernelBootContainer, path: &str) -> ImageFile {
        let image = container.image.clone();
        match self {
            Self::Standalone(_) => ImageFile::Stored {
                image,
                path: Some(path.to_owned()),
            },
            Self::Pod {
                paths,
                image_volume: true,
            } => ImageFile::Mounted {
                root: paths.kernel_boot_image_dir.clone(),
                image,
                path: Some(path.to_owned()),
            },
            Self::Pod { paths, .. } => {
                let name = Path::new(path).file_name().unwrap_or_default();
                ImageFile::File(paths.container_disk_dir.join("kernel-boot").join(name))
            }
        }
    }

    /// The image of a claim.
    pub(super) fn claim(
        &self,
        volume: &str,
        claim: &str,
        status: ClaimStatus,
        field: &FieldPath,
    ) -> Result<ClaimImage, FieldError> {
        let paths = match self {
            Self::Standalone(place) => {
                return Ok(ClaimImage::File {
                    file: place.object(claim, field)?.join(CLAIM_IMAGE),
                    create_len_bytes: None,
                });
            }
            Self::Pod { paths, .. } => paths,
        };
        let (file, device) = if status.hotplugged {
            let dir = &paths.hotplug_disk_dir;
            (dir.join(format!("{volume}.img")), dir.join(volume))
        } else {
            let dir = paths.private_dir.join("vmi-disks");
            let device = Path::new(BLOCK_DEVICE_DIR).join(volume);
            (dir.join(volume).join(CLAIM_IMAGE), device)
        };
        Ok(match status.block {
            Some(true) => ClaimImage::Device(device),
            Some(false) => ClaimImage::File {
                file,
                // The file of a claim that is attached later is made by whoever attaches it.
                create_len_bytes: status.capacity_bytes.filter(|_| !status.hotplugged),
            },
            None => ClaimImage::FileOrDevice { file, device },
        })
    }

    /// The file of a `hostDisk`: in a pod, its folder is mounted.
    pub(super) fn host_disk(&self, volume: &str, path: &str) -> PathBuf {
        match self {
            Self::Standalone(_) => PathBuf::from(path),
            Self::Pod { paths, .. } => {
                let name = Path::new(path).file_name().unwrap_or_default();
                paths.private_dir.join("vmi-disks").join(volume).join(name)
            }
        }
    }

    /// The folder with the files of a volume's object, and the image that they go into.
    pub(super) fn files(
        &self,
        kind: ObjectKind,
        volume: &str,
        object: &str,
        field: &FieldPath,
        layout: &Layout,
    ) -> Result<(PathBuf, PathBuf), FieldError> {
        let folder = match (self, kind) {
            (Self::Standalone(place), _) => place.object(object, field)?,
            (Self::Pod { paths, .. }, ObjectKind::ServiceAccount) => {
                paths.service_account_dir.clone()
            }
            (Self::Pod { paths, .. }, _) => paths.private_dir.join(kind.source_dir()).join(volume),
        };
        let name = match kind {
            ObjectKind::ServiceAccount => "service-account",
            _ => volume,
        };
        Ok((folder, layout.object_image(kind.image_dir(), name)))
    }

    /// The folder with the files of a secret for cloud-init.
    pub(super) fn cloud_init_secret(
        &self,
        volume: &str,
        secret: &str,
        field: &FieldPath,
    ) -> Result<PathBuf, FieldError> {
        match self {
            Self::Standalone(place) => place.object(secret, field),
            Self::Pod { paths, .. } => Ok(paths.private_dir.join("secret").join(volume)),
        }
    }

    /// The folder with the files of a secret that holds keys or passwords.
    pub(super) fn access_secret(
        &self,
        secret: &str,
        field: &FieldPath,
    ) -> Result<PathBuf, FieldError> {
        match self {
            Self::Standalone(place) => place.object(secret, field),
            Self::Pod { paths, .. } => {
                let name = format!("{}-access-cred", object_name(secret, field)?);
                Ok(paths.private_dir.join("secret").join(name))
            }
        }
    }

    /// Finds a file of a container image.
    pub(super) fn find(&self, file: &ImageFile) -> Result<PathBuf, ImageError> {
        match (file, self) {
            (ImageFile::File(path), _) => Ok(path.clone()),
            (ImageFile::Mounted { root, image, path }, _) => match path {
                Some(path) => mounted_file(root, image, path),
                None => mounted_disk(root, image),
            },
            (ImageFile::Stored { image, path }, Self::Standalone(place)) => match path {
                Some(path) => place.images.file(image, path),
                None => place.images.only_disk(image),
            },
            (ImageFile::Stored { image, path }, Self::Pod { .. }) => {
                let nowhere = ImageStore::new(None, PathBuf::new());
                nowhere.file(image, path.as_deref().unwrap_or_default())
            }
        }
    }
}

impl Standalone {
    /// The folder that stands for a config map, secret or claim.
    fn object(&self, name: &str, field: &FieldPath) -> Result<PathBuf, FieldError> {
        let Some(volume_dir) = &self.volume_dir else {
            return Err(FieldError::new(
                field.clone(),
                format!(
                    "{name:?} is an object of a cluster: give the folder that holds {name}/ with --volume-dir"
                ),
            ));
        };
        Ok(volume_dir.join(object_name(name, field)?))
    }
}

/// A name that leads to no other folder.
fn object_name<'n>(name: &'n str, field: &FieldPath) -> Result<&'n str, FieldError> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        let text = format!("{name:?} is no object's name");
        return Err(FieldError::new(field.clone(), text));
    }
    Ok(name)
}
