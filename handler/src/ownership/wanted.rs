//! Which disks an instance wants, where its launcher has them (§4.1).

use std::path::{Path, PathBuf};

use api::Vmi;
use api::volumes::Volume;

use super::ImageRule;

/// Folder with a folder for each claim and host disk, in the launcher's `/var/run`.
const IMAGES: &str = "kubevirt-private/vmi-disks";
/// Image file of a claim's volume.
const CLAIM_IMAGE: &str = "disk.img";
/// Type of a host disk that is made when it is absent.
const CREATE: &str = "DiskOrCreate";

/// A disk of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    /// A claim of volume mode Block, if there is such a device.
    Device {
        /// The path below the root.
        path: PathBuf,
    },
    /// An image.
    Image {
        /// Its folder below `/var/run`.
        folder: PathBuf,
        /// Its name there.
        name: PathBuf,
        rule: ImageRule,
    },
}

/// Returns the disks of an instance that are not made by its launcher in folders of its own.
pub(super) fn disks(vmi: &Vmi) -> Vec<Disk> {
    let usable = vmi.spec.volumes.iter().filter(|it| is_name(&it.name));
    usable.flat_map(of_volume).collect()
}

fn of_volume(volume: &Volume) -> Vec<Disk> {
    let image = |name: &Path, rule| Disk::Image {
        folder: Path::new(IMAGES).join(&volume.name),
        name: name.to_owned(),
        rule,
    };
    if let Some(disk) = &volume.host_disk {
        let rule = match disk.disk_type.as_str() {
            CREATE => ImageRule::NodeFolder,
            _ => ImageRule::Existing,
        };
        let name = Path::new(&disk.path).file_name();
        return name
            .map(|name| image(name.as_ref(), rule))
            .into_iter()
            .collect();
    }
    let rule = if volume.ephemeral.is_some() {
        ImageRule::Existing
    } else if volume.persistent_volume_claim.is_some() || volume.data_volume.is_some() {
        ImageRule::OwnFolder
    } else {
        return Vec::new();
    };
    let device = Disk::Device {
        path: Path::new("dev").join(&volume.name),
    };
    vec![device, image(CLAIM_IMAGE.as_ref(), rule)]
}

/// Whether a volume's name is one component of a path.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains('/')
}
