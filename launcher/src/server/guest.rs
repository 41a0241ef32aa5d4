//! From what the guest's agent told to the JSON that clients read (KubeVirt's guest agent types).

use api::guest_agent::{
    Filesystem, FilesystemDisk, FilesystemInfo, GuestAgentCommand, GuestAgentInfo, GuestUser,
};
use api::status::GuestOsInfo;
use proto::domain::FsFreeze;
use serde_json::Result;

use crate::agent::{self, AgentReport, FreezeStatus};

/// All that the agent told.
pub(super) fn info(report: &AgentReport) -> Result<String> {
    serde_json::to_string(&GuestAgentInfo {
        guest_agent_version: report.version.clone().unwrap_or_default(),
        supported_commands: report.supported_commands.iter().map(command).collect(),
        hostname: report.hostname.clone().unwrap_or_default(),
        os: os_info(report),
        timezone: zone(report),
        user_list: report.users.iter().map(user).collect(),
        fs_info: FilesystemInfo {
            disks: report.filesystems.iter().map(filesystem).collect(),
        },
        fs_freeze_status: match report.fs_freeze {
            Some(FreezeStatus::Frozen) => FsFreeze::FROZEN.to_owned(),
            Some(FreezeStatus::Thawed) | None => String::new(),
        },
        ..GuestAgentInfo::new()
    })
}

/// Users, as a list.
pub(super) fn users(report: &AgentReport) -> Result<String> {
    serde_json::to_string(&report.users.iter().map(user).collect::<Vec<_>>())
}

/// File systems, as a list.
pub(super) fn filesystems(report: &AgentReport) -> Result<String> {
    serde_json::to_string(
        &report
            .filesystems
            .iter()
            .map(filesystem)
            .collect::<Vec<_>>(),
    )
}

fn command(command: &agent::AgentCommand) -> GuestAgentCommand {
    GuestAgentCommand {
        name: command.name.clone(),
        enabled: command.enabled,
    }
}

fn user(user: &agent::User) -> GuestUser {
    GuestUser {
        user_name: user.name.clone(),
        domain: user.domain.clone(),
        login_time: Some(user.login_time_secs),
    }
}

fn filesystem(filesystem: &agent::Filesystem) -> Filesystem {
    let bytes = |bytes: Option<u64>| i64::try_from(bytes.unwrap_or_default()).unwrap_or(i64::MAX);
    Filesystem {
        disk_name: filesystem.name.clone(),
        mount_point: filesystem.mountpoint.clone(),
        file_system_type: filesystem.kind.clone(),
        used_bytes: bytes(filesystem.used_bytes),
        total_bytes: bytes(filesystem.total_bytes),
        disk: filesystem.disks.iter().map(disk).collect(),
    }
}

fn disk(disk: &agent::FilesystemDisk) -> FilesystemDisk {
    FilesystemDisk {
        serial: disk.serial.clone().unwrap_or_default(),
        bus_type: disk.bus.clone(),
    }
}

fn os_info(report: &AgentReport) -> GuestOsInfo {
    let os = report.os.clone().unwrap_or_default();
    GuestOsInfo {
        name: os.name,
        kernel_release: os.kernel_release,
        version: os.version,
        pretty_name: os.pretty_name,
        version_id: os.version_id,
        kernel_version: os.kernel_version,
        machine: os.machine,
        id: os.id,
    }
}

fn zone(report: &AgentReport) -> String {
    let zone = report.timezone.as_ref();
    zone.map_or_else(String::new, |zone| {
        format!("{}, {}", zone.zone, zone.offset_secs)
    })
}
