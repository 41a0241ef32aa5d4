//! Making the files that the plan asks for.

use std::fs;
use std::path::{Path, PathBuf};

use api::{FieldError, FieldPath};
use block::Format;
use block::iso9660::IsoBuilder;
use vmm::config::DiskSource;

use super::folder::read_files;
use super::place::{ClaimImage, ImageFile, Place};
use super::plan::{KernelPlan, VolumePlan, VolumeSource};
use super::{Medium, ResolvedDisk, ResolvedKernel, ResolvedVolumes, VolumeCause, VolumeError};
use super::{host_disk, metrics, probe};
use crate::images::ImageError;
use crate::state_dir::StateDir;

/// Most bytes of a config map or secret; the API server's own bound is 1 MiB.
const MAX_OBJECT_MIB: u64 = 16;
/// Empty space behind an ISO 9660 volume, 150 sectors as xorriso and genisoimage leave.
const PADDING_BYTES: u64 = 150 * 2048;

/// Makes the files that the volumes need and finds those that are there.
///
/// Files made here are registered with `state`, which removes them in the end; those of `hostDisk` and of
/// claims stay once the machine [has started](StateDir::started). It may be called again as long as no
/// machine runs: overlays, empty disks and images of data are then made anew, and what belongs to
/// the user is found again.
///
/// # Errors
///
/// Names the volume's field and the file.
pub fn prepare(
    plans: &[VolumePlan],
    kernel: Option<&KernelPlan>,
    place: &Place,
    state: &mut StateDir,
) -> Result<ResolvedVolumes, VolumeError> {
    let mut volumes = ResolvedVolumes::default();
    for plan in plans {
        let field = field_of(plan);
        let mut maker = Maker {
            place,
            state,
            field: &field,
            warnings: &mut volumes.warnings,
        };
        let disk = maker.disk(&plan.source).map_err(|source| VolumeError {
            field: field.clone(),
            source: Box::new(source),
        })?;
        volumes.disks.insert(plan.name.clone(), disk);
    }
    volumes.kernel = kernel.map(|plan| find_kernel(plan, place)).transpose()?;
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

/// Makes one volume's disk.
struct Maker<'a> {
    place: &'a Place,
    state: &'a mut StateDir,
    field: &'a FieldPath,
    warnings: &'a mut Vec<FieldError>,
}

impl Maker<'_> {
    fn disk(&mut self, source: &VolumeSource) -> Result<ResolvedDisk, VolumeCause> {
        match source {
            VolumeSource::ContainerDisk { image, overlay } => {
                let base = self.container_disk(image)?;
                self.over(&base, None, overlay.as_deref(), true)
            }
            VolumeSource::EmptyDisk { file, len_bytes } => {
                self.state.claim(file)?;
                block::create_empty(file, *len_bytes, Format::Qcow2)?;
                image(file, Some(Format::Qcow2), false)
            }
            VolumeSource::HostDisk {
                file,
                create_len_bytes,
            } => {
                if !file.exists() {
                    let cure = "make it, or use type DiskOrCreate with a capacity";
                    self.create(file, *create_len_bytes, cure)?;
                }
                image(file, None, false)
            }
            VolumeSource::Claim {
                image,
                read_only,
                preallocated,
                overlay,
            } => {
                let (base, format) = self.claim(image)?;
                let mut disk = self.over(&base, format, overlay.as_deref(), *read_only)?;
                disk.medium.preallocated |= *preallocated && overlay.is_none();
                Ok(disk)
            }
            VolumeSource::CloudInit { file, data } => self.write_iso(&data.image()?, file),
            VolumeSource::Files {
                file,
                label,
                folder,
                optional,
            } => self.write_iso(&files_image(folder, label, *optional)?, file),
            VolumeSource::Metrics { file } => self.metrics(file),
            VolumeSource::NoMedium => Ok(ResolvedDisk {
                source: DiskSource::Empty,
                read_only: true,
                medium: Medium::default(),
            }),
        }
    }

    fn container_disk(&self, file: &ImageFile) -> Result<PathBuf, VolumeCause> {
        let path = self.place.find(file)?;
        if path.exists() {
            return Ok(path);
        }
        let cure = "the node agent mounts it there once the image's container runs";
        Err(VolumeCause::Absent { path, cure })
    }

    /// Finds or makes the image of a claim. A device is raw, whatever its first bytes say.
    fn claim(&mut self, claim: &ClaimImage) -> Result<(PathBuf, Option<Format>), VolumeCause> {
        let cure = "put the claim's image there";
        match claim {
            ClaimImage::Device(path) if path.exists() => Ok((path.clone(), Some(Format::Raw))),
            ClaimImage::Device(path) => {
                let path = path.clone();
                let cure = "see the pod's events for what keeps the claim from being mounted";
                Err(VolumeCause::Absent { path, cure })
            }
            ClaimImage::File {
                file,
                create_len_bytes,
            } => {
                if !file.exists() {
                    self.create(file, *create_len_bytes, cure)?;
                }
                Ok((file.clone(), None))
            }
            ClaimImage::FileOrDevice { file, .. } if file.exists() => Ok((file.clone(), None)),
            ClaimImage::FileOrDevice { device, .. } if device.exists() => {
                Ok((device.clone(), Some(Format::Raw)))
            }
            ClaimImage::FileOrDevice { file, device } => Err(VolumeCause::NoClaim {
                file: file.clone(),
                device: device.clone(),
            }),
        }
    }

    /// Makes an image that is to stay, unless the machine does not start.
    fn create(
        &mut self,
        file: &Path,
        len_bytes: Option<u64>,
        cure: &'static str,
    ) -> Result<(), VolumeCause> {
        let Some(wanted_bytes) = len_bytes else {
            let path = file.to_owned();
            return Err(VolumeCause::Absent { path, cure });
        };
        let made_bytes = host_disk::create(file, wanted_bytes)?;
        self.state.provisional(file.to_owned());
        if wanted_bytes - made_bytes >= 1 << 20 {
            let text = format!(
                "the volume has room for {made_bytes} bytes of {wanted_bytes}: the disk is made with that, which is tolerated"
            );
            self.warnings
                .push(FieldError::new(self.field.clone(), text));
        }
        Ok(())
    }

    /// A base image, under an overlay where there is one.
    fn over(
        &mut self,
        base: &Path,
        base_format: Option<Format>,
        overlay: Option<&Path>,
        read_only: bool,
    ) -> Result<ResolvedDisk, VolumeCause> {
        let Some(overlay) = overlay else {
            return image(base, base_format, read_only);
        };
        let medium = probe::medium(base)?;
        self.state.claim(overlay)?;
        let source = DiskSource::Overlay {
            base: base.to_owned(),
            base_format,
            overlay: overlay.to_owned(),
        };
        Ok(ResolvedDisk {
            source,
            read_only: false,
            medium: Medium {
                preallocated: false,
                ..medium
            },
        })
    }

    fn write_iso(&mut self, iso: &IsoBuilder, file: &Path) -> Result<ResolvedDisk, VolumeCause> {
        self.state.claim(file)?;
        iso.write_to(file)?;
        pad(file)?;
        image(file, Some(Format::Raw), true)
    }

    fn metrics(&mut self, file: &Path) -> Result<ResolvedDisk, VolumeCause> {
        self.state.claim(file)?;
        metrics::create_metrics_disk(file).map_err(|source| VolumeCause::Make {
            path: file.to_owned(),
            source,
        })?;
        let disk = image(file, Some(Format::Raw), true)?;
        // It is written past the guest, whose reads must see that.
        let medium = Medium {
            direct_io: false,
            ..disk.medium
        };
        Ok(ResolvedDisk { medium, ..disk })
    }
}

fn image(
    path: &Path,
    format: Option<Format>,
    read_only: bool,
) -> Result<ResolvedDisk, VolumeCause> {
    let medium = probe::medium(path)?;
    let source = DiskSource::Image {
        path: path.to_owned(),
        format,
        follow_backing: false,
    };
    Ok(ResolvedDisk {
        source,
        read_only,
        medium,
    })
}

/// Adds the empty sectors that mastering programs leave at the end: programs that look for labels give
/// up on devices shorter than the superblocks they know.
fn pad(file: &Path) -> Result<(), VolumeCause> {
    let make = |source| VolumeCause::Make {
        path: file.to_owned(),
        source,
    };
    let image = fs::File::options().write(true).open(file).map_err(make)?;
    let len_bytes = image.metadata().map_err(make)?.len();
    image.set_len(len_bytes + PADDING_BYTES).map_err(make)
}

/// A disk with the files of a folder.
fn files_image(folder: &Path, label: &str, optional: bool) -> Result<IsoBuilder, VolumeCause> {
    let mut iso = IsoBuilder::new(label)?;
    if optional && !folder.is_dir() {
        return Ok(iso);
    }
    let cure = "put the object's keys there as files";
    for (name, bytes) in read_files(folder, MAX_OBJECT_MIB, cure)? {
        iso.file(&name, bytes)?;
    }
    Ok(iso)
}

fn find_kernel(plan: &KernelPlan, place: &Place) -> Result<ResolvedKernel, VolumeError> {
    let field = FieldPath::new("spec.domain.firmware.kernelBoot.container");
    let find = |name: &str, file: &ImageFile| {
        let error = |source: VolumeCause| {
            let in_image = matches!(
                source,
                VolumeCause::Image(ImageError::NoFile { .. }) | VolumeCause::Absent { .. }
            );
            VolumeError {
                field: field.child(if in_image { name } else { "image" }),
                source: Box::new(source),
            }
        };
        let path = place.find(file).map_err(|source| error(source.into()))?;
        if path.is_file() {
            return Ok(path);
        }
        let cure = "the node agent mounts it there once the image's container runs";
        Err(error(VolumeCause::Absent { path, cure }))
    };
    let kernel = find("kernelPath", &plan.kernel)?;
    let initrd = plan.initrd.as_ref();
    let initrd = initrd.map(|file| find("initrdPath", file)).transpose()?;
    Ok(ResolvedKernel { kernel, initrd })
}
