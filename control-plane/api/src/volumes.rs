//! `spec.volumes`: where data come from.

use serde_json::Value;

use crate::metadata::LocalObjectReference;
use crate::object::{Presence, object};
use crate::quantity::Quantity;

object! {
    /// A volume; exactly one of its sources is set.
    pub struct Volume {
        /// Name that a disk or file system refers to.
        pub name: String,
        /// A file on the node.
        pub host_disk: Option<HostDisk>,
        /// A claim whose volume holds `disk.img`, or is a block device.
        pub persistent_volume_claim: Option<PersistentVolumeClaimSource>,
        /// cloud-init's NoCloud data source.
        pub cloud_init_no_cloud: Option<CloudInitSource>,
        /// cloud-init's ConfigDrive data source.
        pub cloud_init_config_drive: Option<CloudInitSource>,
        /// Windows answer files.
        pub sysprep: Option<SysprepSource>,
        /// An image inside a container image.
        pub container_disk: Option<ContainerDiskSource>,
        /// A claim that stays unchanged under the guest's writes.
        pub ephemeral: Option<EphemeralSource>,
        /// An empty disk that lives as long as the instance.
        pub empty_disk: Option<EmptyDiskSource>,
        /// A claim that a data volume fills.
        pub data_volume: Option<DataVolumeSource>,
        /// A config map as a read-only disk.
        pub config_map: Option<ConfigMapSource>,
        /// A secret as a read-only disk.
        pub secret: Option<SecretSource>,
        /// Pod fields as a read-only disk.
        #[serde(rename = "downwardAPI")]
        pub downward_api: Option<DownwardApiSource>,
        /// A service account token as a read-only disk.
        pub service_account: Option<ServiceAccountSource>,
        /// Host metrics for the guest, as a read-only disk.
        pub downward_metrics: Option<Presence>,
        /// A claim that takes memory dumps.
        pub memory_dump: Option<PersistentVolumeClaimSource>,
        /// A folder of the launcher's container.
        pub container_path: Option<ContainerPathSource>,
    }

    /// Pod fields as a disk.
    pub struct DownwardApiSource {
        /// The files (untyped, `v1.DownwardAPIVolumeFile`).
        #[cfg_attr(
            feature = "schema",
            schemars(with = "Vec<k8s_openapi::api::core::v1::DownwardAPIVolumeFile>")
        )]
        pub fields: Vec<Value>,
        /// Label of the file system; `cfgdata` when empty.
        pub volume_label: String,
    }

    /// A folder of the launcher's container.
    pub struct ContainerPathSource {
        /// Absolute path.
        pub path: String,
        /// Whether the guest may only read; `true` when unset.
        pub read_only: Option<bool>,
    }

    /// A volume that the launcher sees and the machine has no disk of.
    pub struct UtilityVolume {
        /// Name.
        pub name: String,
        /// Name of the claim.
        pub claim_name: String,
        /// Whether it is mounted read-only.
        pub read_only: Option<bool>,
        /// What it is for, `Backup` or `MemoryDump`.
        #[serde(rename = "type")]
        pub volume_type: Option<String>,
    }

    /// A file on the node.
    pub struct HostDisk {
        /// Absolute path.
        pub path: String,
        /// `Disk` (or empty) must exist, `DiskOrCreate` is made when absent.
        #[serde(rename = "type")]
        pub disk_type: String,
        /// Size of a file that is made.
        pub capacity: Option<Quantity>,
        /// Whether several instances may use it at once.
        pub shared: Option<bool>,
    }

    /// A claim.
    pub struct PersistentVolumeClaimSource {
        /// Name of the claim.
        pub claim_name: String,
        /// Whether it is mounted read-only.
        pub read_only: Option<bool>,
        /// Whether it is attached while the instance runs.
        pub hotpluggable: Option<bool>,
    }

    /// A claim that a data volume fills.
    pub struct DataVolumeSource {
        /// Name of the data volume and of its claim.
        pub name: String,
        /// Whether it is attached while the instance runs.
        pub hotpluggable: Option<bool>,
    }

    /// A claim under an overlay.
    pub struct EphemeralSource {
        /// The claim.
        pub persistent_volume_claim: Option<PersistentVolumeClaimSource>,
    }

    /// User data and network data for cloud-init, given as text, as base64 or by a secret.
    pub struct CloudInitSource {
        /// Secret whose key `userdata` or `userData` holds the user data.
        pub secret_ref: Option<LocalObjectReference>,
        /// User data, base64.
        pub user_data_base64: String,
        /// User data.
        pub user_data: String,
        /// Secret whose key `networkdata` or `networkData` holds the network data.
        pub network_data_secret_ref: Option<LocalObjectReference>,
        /// Network data, base64.
        pub network_data_base64: String,
        /// Network data.
        pub network_data: String,
    }

    /// Windows answer files.
    pub struct SysprepSource {
        /// Config map that holds them.
        pub config_map: Option<LocalObjectReference>,
        /// Secret that holds them.
        pub secret: Option<LocalObjectReference>,
    }

    /// An image inside a container image.
    pub struct ContainerDiskSource {
        /// Name of the container image.
        pub image: String,
        /// Secret for the registry.
        pub image_pull_secret: String,
        /// Path of the disk image; the one file below `/disk` when empty.
        pub path: String,
        /// When the image is fetched.
        pub image_pull_policy: String,
    }

    /// An empty disk.
    pub struct EmptyDiskSource {
        /// Size.
        pub capacity: Option<Quantity>,
    }

    /// A config map as a disk.
    pub struct ConfigMapSource {
        /// Name of the config map.
        pub name: String,
        /// Whether the config map may be absent.
        pub optional: Option<bool>,
        /// Label of the file system; `cfgdata` when empty.
        pub volume_label: String,
    }

    /// A secret as a disk.
    pub struct SecretSource {
        /// Name of the secret.
        pub secret_name: String,
        /// Whether the secret may be absent.
        pub optional: Option<bool>,
        /// Label of the file system; `cfgdata` when empty.
        pub volume_label: String,
    }

    /// A service account token as a disk.
    pub struct ServiceAccountSource {
        /// Name of the service account.
        pub service_account_name: String,
    }
}

/// What [`HostDisk::disk_type`] says of a file that must exist.
pub const HOST_DISK_EXISTS: &str = "Disk";
/// What [`HostDisk::disk_type`] says of a file that is made when absent.
pub const HOST_DISK_EXISTS_OR_CREATE: &str = "DiskOrCreate";

impl Volume {
    /// Returns the JSON names of the sources that are set; a valid volume has exactly one.
    pub fn sources(&self) -> Vec<&'static str> {
        [
            ("hostDisk", self.host_disk.is_some()),
            (
                "persistentVolumeClaim",
                self.persistent_volume_claim.is_some(),
            ),
            ("cloudInitNoCloud", self.cloud_init_no_cloud.is_some()),
            (
                "cloudInitConfigDrive",
                self.cloud_init_config_drive.is_some(),
            ),
            ("sysprep", self.sysprep.is_some()),
            ("containerDisk", self.container_disk.is_some()),
            ("ephemeral", self.ephemeral.is_some()),
            ("emptyDisk", self.empty_disk.is_some()),
            ("dataVolume", self.data_volume.is_some()),
            ("configMap", self.config_map.is_some()),
            ("secret", self.secret.is_some()),
            ("downwardAPI", self.downward_api.is_some()),
            ("serviceAccount", self.service_account.is_some()),
            ("downwardMetrics", self.downward_metrics.is_some()),
            ("memoryDump", self.memory_dump.is_some()),
            ("containerPath", self.container_path.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
        .collect()
    }
}
