//! `virtctl addvolume`.

use api::devices::Disk;
use api::options::{AddVolumeOptions, HotplugVolumeSource};
use api::volumes::{DataVolumeSource, PersistentVolumeClaimSource};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{DryRun, Session};
use crate::argument;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::report;

/// Length of names of volumes.
const NAME_LEN_MAX: usize = 63;

/// Plug a volume into a running virtual machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Plug the claim or data volume 'data', with a serial number that the guest can find it by:
  virtctl addvolume myvm --volume-name=data --serial=1234567890")]
pub(crate) struct AddVolume {
    /// Virtual machine, or instance
    #[arg(value_name = "VM", value_parser = argument::instance)]
    name: String,
    /// Data volume or claim
    #[arg(long, value_name = "NAME", value_parser = argument::name)]
    volume_name: String,
    #[command(flatten)]
    disk: DiskFlags,
    #[command(flatten)]
    persist: Persist,
    #[command(flatten)]
    dry_run: DryRun,
}

/// How the guest sees a volume.
#[derive(Debug, Args)]
struct DiskFlags {
    /// Name of the disk in the virtual machine [default: the volume's]
    #[arg(long, value_name = "NAME", value_parser = argument::name)]
    disk_name: Option<String>,
    /// Serial number of the disk [default: its name]
    #[arg(long)]
    serial: Option<String>,
    /// How the disk is cached
    #[arg(long, value_parser = ["none", "writethrough", "writeback"])]
    cache: Option<String>,
    /// Whether it is a disk or a SCSI device of the host
    #[arg(long, value_enum, default_value = "disk")]
    disk_type: DiskType,
    /// Bus of the disk
    #[arg(long, default_value = "scsi", value_parser = ["scsi", "virtio"])]
    bus: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DiskType {
    Disk,
    Lun,
}

/// A flag that scripts still have.
#[derive(Debug, Args)]
pub(super) struct Persist {
    /// Has no effect: changes are always kept in the virtual machine
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    persist: Option<bool>,
}

impl AddVolume {
    /// Asks for it.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let disk = self.disk()?;
        let cluster = session.cluster().await?;
        let options = AddVolumeOptions {
            name: disk.name.clone(),
            disk: Some(disk),
            volume_source: Some(self.source(&cluster).await?),
            dry_run: self.dry_run.values()?,
        };
        super::change_volumes(&cluster, &self.name, "add", &json!(options)).await?;
        report::line(&format!(
            "Successfully submitted add volume request to VM {} for volume {}",
            self.name, self.volume_name
        ))
    }

    /// Returns the disk that the guest is to see.
    fn disk(&self) -> Result<Disk, Failure> {
        let flags = &self.disk;
        let name = flags.disk_name.as_deref().unwrap_or(&self.volume_name);
        if name.len() > NAME_LEN_MAX {
            return Err(Failure::Argument(format!(
                "{name:?} has more than {NAME_LEN_MAX} characters: give a shorter one with --disk-name"
            )));
        }
        if flags.disk_type == DiskType::Lun && flags.bus != "scsi" {
            return Err(Failure::Argument(format!(
                "Invalid bus type '{}' for LUN disk. Only 'scsi' bus is supported.",
                flags.bus
            )));
        }
        let device = if flags.disk_type == DiskType::Lun {
            "lun"
        } else {
            "disk"
        };
        let mut disk = json!({
            "name": name,
            "serial": flags.serial.as_deref().unwrap_or(name),
            device: {"bus": flags.bus},
        });
        if let Some(cache) = &flags.cache {
            disk["cache"] = json!(cache);
        }
        serde_json::from_value(disk)
            .map_err(|error| Failure::Argument(format!("the disk makes no sense: {error}")))
    }

    /// Looks whether the volume is a data volume or a claim.
    async fn source(&self, cluster: &Cluster) -> Result<HotplugVolumeSource, Failure> {
        let (namespace, name) = (&cluster.namespace, &self.volume_name);
        let data_volume =
            format!("/apis/cdi.kubevirt.io/v1beta1/namespaces/{namespace}/datavolumes/{name}");
        if cluster.get(&data_volume).await.is_ok() {
            return Ok(HotplugVolumeSource {
                data_volume: Some(DataVolumeSource {
                    name: name.clone(),
                    hotpluggable: Some(true),
                }),
                ..HotplugVolumeSource::default()
            });
        }
        let claim = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}");
        cluster.get(&claim).await.map_err(|refusal| match refusal.code() {
            404 => Failure::Argument(format!(
                "error adding volume, Volume {name} is not a DataVolume or PersistentVolumeClaim in namespace {namespace}"
            )),
            _ => refusal.of("error adding volume,"),
        })?;
        Ok(HotplugVolumeSource {
            persistent_volume_claim: Some(PersistentVolumeClaimSource {
                claim_name: name.clone(),
                hotpluggable: Some(true),
                ..PersistentVolumeClaimSource::default()
            }),
            ..HotplugVolumeSource::default()
        })
    }
}
