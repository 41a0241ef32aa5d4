//! Which files of which containers an instance wants mounted, and where (§2.11, §4.4).

use std::path::Path;

use api::Vmi;
use api::domain::KernelBootContainer;

use super::MountError;
use crate::status::kernel_file;

/// Name by which the kernel boot container is told of.
pub(super) const KERNEL_BOOT: &str = "kernel-boot";

/// Where the file is in a container's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// At this path.
    Path(String),
    /// The one file in `/disk`.
    OnlyDisk,
}

/// A file of a container's image that is wanted as a file of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The volume, or [`KERNEL_BOOT`].
    pub(super) volume: String,
    /// Name of its checksum: the volume's, or that of the kernel boot file.
    pub(super) checksum: String,
    /// Its container's socket, in the pod's folder of container disks.
    pub(super) socket: String,
    /// The file in the container's image.
    pub(super) source: Source,
    /// Folder of the mount point in the folder of container disks; empty for that folder itself.
    pub(super) folder: &'static str,
    /// Name of the mount point.
    pub(super) name: String,
}

/// Returns what the instance wants, in the order of its volumes, the kernel last.
pub(super) fn wanted(vmi: &Vmi) -> Result<Vec<Wanted>, MountError> {
    let volumes = vmi.spec.volumes.iter().enumerate();
    let disks = volumes.filter_map(|(index, volume)| {
        let disk = volume.container_disk.as_ref()?;
        let source = Some(disk.path.clone()).filter(|path| !path.is_empty());
        Some(Wanted {
            volume: volume.name.clone(),
            checksum: volume.name.clone(),
            socket: format!("disk_{index}.sock"),
            source: source.map_or(Source::OnlyDisk, Source::Path),
            folder: "",
            name: format!("disk_{index}.img"),
        })
    });
    let mut wanted: Vec<_> = disks.collect();
    let firmware = vmi.spec.domain.firmware.as_ref();
    let boot = firmware.and_then(|firmware| firmware.kernel_boot.as_ref());
    if let Some(container) = boot.and_then(|boot| boot.container.as_ref()) {
        wanted.extend(kernel(container)?);
    }
    Ok(wanted)
}

fn kernel(container: &KernelBootContainer) -> Result<Vec<Wanted>, MountError> {
    let files = [
        (
            kernel_file::KERNEL,
            "kernelBoot.container.kernelPath",
            &container.kernel_path,
        ),
        (
            kernel_file::INITRD,
            "kernelBoot.container.initrdPath",
            &container.initrd_path,
        ),
    ];
    let present = files.into_iter().filter(|(.., path)| !path.is_empty());
    let wanted: Vec<_> = present
        .map(|(checksum, field, path)| kernel_boot_file(checksum, field, path))
        .collect::<Result<_, _>>()?;
    match wanted.as_slice() {
        [kernel, initrd] if kernel.name == initrd.name => Err(MountError::Field {
            field: "kernelBoot.container.initrdPath",
            reason: format!(
                "its file is called {:?} like the kernel's: both go into one folder, so rename one in the image",
                initrd.name
            ),
        }),
        _ => Ok(wanted),
    }
}

fn kernel_boot_file(checksum: &str, field: &'static str, path: &str) -> Result<Wanted, MountError> {
    let name = Path::new(path).file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| MountError::Field {
        field,
        reason: format!("{path:?} names no file"),
    })?;
    Ok(Wanted {
        volume: KERNEL_BOOT.to_owned(),
        checksum: checksum.to_owned(),
        socket: format!("{KERNEL_BOOT}.sock"),
        source: Source::Path(path.to_owned()),
        folder: KERNEL_BOOT,
        name: name.to_owned(),
    })
}
