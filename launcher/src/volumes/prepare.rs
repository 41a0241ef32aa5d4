//! Making the files that the plan asks for.

use std::fs;
use std::path::Path;

use api::FieldPath;
use api::domain::KernelBoot;
use block::Format;
use block::iso9660::IsoBuilder;
use vmm::config::DiskSource;

use super::cloud_init::read_bounded;
use super::plan::{VolumePlan, VolumeSource};
use super::{ResolvedDisk, ResolvedKernel, ResolvedVolumes, VolumeCause, VolumeError};
use crate::images::ImageStore;
use crate::state_dir::StateDir;

/// Most bytes of a config map or secret; the API server's own bound is 1 MiB.
const MAX_OBJECT_MIB: u64 = 16;
/// Empty space behind an ISO 9660 volume, 150 sectors as xorriso and genisoimage leave.
const PADDING_BYTES: u64 = 150 * 2048;

/// Makes the files that the volumes need and finds those that are there.
///
/// Files made here are registered with `state`, which removes them in the end; those of `hostDisk` stay
/// once the machine [has started](StateDir::started).
///
/// # Errors
///
/// Names the volume's field and the file.
pub fn prepare(
    plans: &[VolumePlan],
    kernel_boot: Option<&KernelBoot>,
    images: &ImageStore,
    state: &mut StateDir,
) -> Result<ResolvedVolumes, VolumeError> {
    let mut volumes = ResolvedVolumes::default();
    for plan in plans {
        let disk = prepare_volume(&plan.source, images, state).map_err(|source| VolumeError {
            field: field_of(plan),
            source: Box::new(source),
        })?;
        volumes.disks.insert(plan.name.clone(), disk);
    }
    if let Some(kernel_boot) = kernel_boot {
        volumes.kernel = Some(find_kernel(kernel_boot, images)?);
    }
    Ok(volumes)
}

/// The field that an error of preparation is about.
fn field_of(plan: &VolumePlan) -> FieldPath {
    match &plan.source {
        VolumeSource::ContainerDisk { .. } => plan.field.child("image"),
        VolumeSource::HostDisk { .. } => plan.field.child("path"),
        _ => plan.field.clone(),
    }
}

fn prepare_volume(
    source: &VolumeSource,
    images: &ImageStore,
    state: &mut StateDir,
) -> Result<ResolvedDisk, VolumeCause> {
    match source {
        VolumeSource::ContainerDisk {
            image,
            path,
            overlay,
        } => {
            let base = match path {
                Some(path) => images.file(image, path)?,
                None => images.only_disk(image)?,
            };
            over(&base, overlay.as_deref(), true, state)
        }
        VolumeSource::EmptyDisk { file, len_bytes } => {
            state.claim(file)?;
            block::create_empty(file, *len_bytes, Format::Qcow2)?;
            Ok(image(file, Some(Format::Qcow2), false))
        }
        VolumeSource::HostDisk {
            file,
            create_len_bytes,
        } => {
            if !file.exists() {
                create_host_disk(file, *create_len_bytes, state)?;
            }
            Ok(image(file, None, false))
        }
        VolumeSource::Claim {
            file,
            read_only,
            overlay,
        } => {
            if !file.exists() {
                let cure = "put the claim's image there";
                return Err(VolumeCause::Absent {
                    path: file.clone(),
                    cure,
                });
            }
            over(file, overlay.as_deref(), *read_only, state)
        }
        VolumeSource::CloudInit { file, data } => write_iso(&data.image()?, file, state),
        VolumeSource::Files {
            file,
            label,
            folder,
            optional,
        } => write_iso(&files_image(folder, label, *optional)?, file, state),
    }
}

fn image(path: &Path, format: Option<Format>, read_only: bool) -> ResolvedDisk {
    let source = DiskSource::Image {
        path: path.to_owned(),
        format,
        follow_backing: false,
    };
    ResolvedDisk { source, read_only }
}

/// A base image, under an overlay where there is one.
fn over(
    base: &Path,
    overlay: Option<&Path>,
    read_only: bool,
    state: &mut StateDir,
) -> Result<ResolvedDisk, VolumeCause> {
    let Some(overlay) = overlay else {
        return Ok(image(base, None, read_only));
    };
    state.claim(overlay)?;
    let source = DiskSource::Overlay {
        base: base.to_owned(),
        base_format: None,
        overlay: overlay.to_owned(),
    };
    Ok(ResolvedDisk {
        source,
        read_only: false,
    })
}

fn create_host_disk(
    file: &Path,
    len_bytes: Option<u64>,
    state: &mut StateDir,
) -> Result<(), VolumeCause> {
    let Some(len_bytes) = len_bytes else {
        let cure = "make it, or use type DiskOrCreate with a capacity";
        return Err(VolumeCause::Absent {
            path: file.to_owned(),
            cure,
        });
    };
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).map_err(|source| VolumeCause::Read {
            path: parent.to_owned(),
            source,
        })?;
    }
    block::create_empty(file, len_bytes, Format::Raw)?;
    state.provisional(file.to_owned());
    Ok(())
}

fn write_iso(
    iso: &IsoBuilder,
    file: &Path,
    state: &mut StateDir,
) -> Result<ResolvedDisk, VolumeCause> {
    state.claim(file)?;
    iso.write_to(file)?;
    pad(file)?;
    Ok(image(file, Some(Format::Raw), true))
}

/// Adds the empty sectors that mastering programs leave at the end: programs that look for labels give
/// up on devices shorter than the superblocks they know.
fn pad(file: &Path) -> Result<(), VolumeCause> {
    let read = |source| VolumeCause::Read {
        path: file.to_owned(),
        source,
    };
    let image = fs::File::options().write(true).open(file).map_err(read)?;
    let len_bytes = image.metadata().map_err(read)?.len();
    image.set_len(len_bytes + PADDING_BYTES).map_err(read)
}

/// A disk with the files of a folder, as a kubelet lays them out: what begins with two dots is its own.
fn files_image(folder: &Path, label: &str, optional: bool) -> Result<IsoBuilder, VolumeCause> {
    let mut iso = IsoBuilder::new(label)?;
    if !folder.is_dir() {
        if optional {
            return Ok(iso);
        }
        let cure = "put the object's keys there as files";
        return Err(VolumeCause::Absent {
            path: folder.to_owned(),
            cure,
        });
    }
    let read = |source| VolumeCause::Read {
        path: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        names.push(entry.map_err(read)?.file_name());
    }
    names.sort();
    let mut total = 0;
    for name in names {
        let path = folder.join(&name);
        let name = name.to_string_lossy();
        if name.starts_with("..") || !path.is_file() {
            continue;
        }
        let bytes = read_bounded(&path, MAX_OBJECT_MIB)?;
        total += bytes.len() as u64;
        if total > MAX_OBJECT_MIB << 20 {
            return Err(VolumeCause::TooLarge {
                path: folder.to_owned(),
                limit_mib: MAX_OBJECT_MIB,
            });
        }
        iso.file(&name, bytes)?;
    }
    Ok(iso)
}

fn find_kernel(
    kernel_boot: &KernelBoot,
    images: &ImageStore,
) -> Result<ResolvedKernel, VolumeError> {
    let field = FieldPath::new("spec.domain.firmware.kernelBoot.container");
    let container = kernel_boot.container.clone().unwrap_or_default();
    let find = |name: &str, path: &str| {
        images.file(&container.image, path).map_err(|source| {
            let in_image = matches!(source, crate::images::ImageError::NoFile { .. });
            let field = field.child(if in_image { name } else { "image" });
            VolumeError {
                field,
                source: Box::new(source.into()),
            }
        })
    };
    let kernel = find("kernelPath", &container.kernel_path)?;
    let initrd = match container.initrd_path.as_str() {
        "" => None,
        path => Some(find("initrdPath", path)?),
    };
    Ok(ResolvedKernel { kernel, initrd })
}
