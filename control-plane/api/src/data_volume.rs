//! `dataVolumeTemplates`: claims to be made and filled by the Containerized Data Importer
//! (`cdi.kubevirt.io/v1beta1`). What only the importer reads stays untyped.

use serde_json::Value;

use crate::metadata::ObjectMeta;
use crate::object::{Presence, object};

/// Group and version of data volumes.
pub const DATA_VOLUME_API_VERSION: &str = "cdi.kubevirt.io/v1beta1";
/// Kind of data volumes.
pub const DATA_VOLUME_KIND: &str = "DataVolume";

object! {
    /// A data volume before it is made.
    pub struct DataVolumeTemplate {
        /// Group and version, `cdi.kubevirt.io/v1beta1`.
        pub api_version: String,
        /// `DataVolume`.
        pub kind: String,
        /// Name, labels and annotations of the data volume.
        pub metadata: ObjectMeta,
        /// What is wanted.
        pub spec: DataVolumeSpec,
        /// Ignored.
        pub status: Option<Presence>,
    }

    /// What is wanted of a data volume.
    pub struct DataVolumeSpec {
        /// Where its content comes from.
        pub source: Option<ImportSource>,
        /// A data source that says where its content comes from.
        pub source_ref: Option<ImportSourceRef>,
        /// The claim to make (untyped, `v1.PersistentVolumeClaimSpec`).
        pub pvc: Option<Value>,
        /// The claim to make, its gaps filled from the storage class (untyped).
        pub storage: Option<Value>,
        /// `kubevirt` (default) or `archive`.
        pub content_type: String,
        /// Pod priority class of the importer.
        pub priority_class_name: String,
        /// Whether all space is taken up at once.
        pub preallocation: Option<bool>,
        /// Whether the last checkpoint has been listed.
        pub final_checkpoint: Option<bool>,
        /// Checkpoints of an import in stages (untyped).
        pub checkpoints: Vec<Value>,
    }

    /// Where the content comes from; one of the fields is set.
    pub struct ImportSource {
        /// A web server (untyped).
        pub http: Option<Value>,
        /// A container registry (untyped).
        pub registry: Option<Value>,
        /// Another claim.
        pub pvc: Option<ImportSourceObject>,
        /// A volume snapshot.
        pub snapshot: Option<ImportSourceObject>,
        /// S3 (untyped).
        pub s3: Option<Value>,
        /// Google cloud storage (untyped).
        pub gcs: Option<Value>,
        /// oVirt (untyped).
        pub imageio: Option<Value>,
        /// vSphere (untyped).
        pub vddk: Option<Value>,
        /// Nothing.
        pub blank: Option<Presence>,
        /// An upload.
        pub upload: Option<Presence>,
    }

    /// A claim or a snapshot of a namespace.
    pub struct ImportSourceObject {
        /// Namespace; the data volume's own when empty.
        pub namespace: String,
        /// Name.
        pub name: String,
    }

    /// A data source.
    pub struct ImportSourceRef {
        /// `DataSource`.
        pub kind: String,
        /// Namespace; the data volume's own when unset.
        pub namespace: Option<String>,
        /// Name.
        pub name: String,
    }
}
