//! What KubeVirt remembers with a domain.

use serde::{Deserialize, Serialize};

/// What is remembered with a domain, by whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// What KubeVirt remembers.
    #[serde(rename = "KubeVirt")]
    pub kubevirt: KubeVirtMetadata,
}

/// What KubeVirt remembers with a domain, without what it remembers of backups. The timestamps in it are RFC 3339, and must be: Go refuses
/// the whole domain otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct KubeVirtMetadata {
    /// UID of the VirtualMachineInstance that the domain was made for.
    #[serde(rename = "UID")]
    pub uid: String,
    /// How an orderly end goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<GracePeriod>,
    /// The migration under way, or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration: Option<Migration>,
    /// Whether credentials reached the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_credential: Option<AccessCredential>,
    /// The memory dump under way, or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_dump: Option<MemoryDump>,
}

/// How an orderly end goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GracePeriod {
    /// Seconds between the wish to end and the kill.
    pub deletion_grace_period_seconds: i64,
    /// When the end was first asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// Whether the launcher wishes an orderly end because its pod is about to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked_for_graceful_shutdown: Option<bool>,
}

/// A migration as its source sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Migration {
    /// UID of the migration object.
    #[serde(rename = "UID")]
    pub uid: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<String>,
    /// When it ended, well or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_timestamp: Option<String>,
    /// Whether it failed.
    pub failed: bool,
    /// Why it failed.
    pub failure_reason: String,
    /// How far an abort is ("Succeeded", "Failed", "Aborting"); empty when nobody asked.
    pub abort_status: String,
    /// "PreCopy" or "PostCopy".
    pub mode: String,
}

/// Whether credentials reached the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AccessCredential {
    /// Whether the last attempt went well.
    pub succeeded: bool,
    /// Why not.
    pub message: String,
}

/// A dump of the guest's memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MemoryDump {
    /// Name of the file, without its directory.
    pub file_name: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<String>,
    /// When it ended, well or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_timestamp: Option<String>,
    /// Whether it has ended, well or not.
    pub completed: bool,
    /// Whether it failed.
    pub failed: bool,
    /// Why it failed.
    pub failure_reason: String,
}
