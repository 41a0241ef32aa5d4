//! Files and sockets of a launcher, and where the node agent finds them.
//!
//! Paths of a launcher are relative to the pod's `/var/run`; those of the node agent are the host's.

/// Folder that the paths of a launcher are relative to.
pub const POD_RUN_DIR: &str = "/var/run";

/// Folder that a launcher shares with the node agent.
pub const SHARE_DIR: &str = "kubevirt";
/// Folder of the instance's private files; below it one folder per uid with the console sockets.
pub const PRIVATE_DIR: &str = "kubevirt-private";
/// Folder of overlays and cloud-init images.
pub const EPHEMERAL_DISK_DIR: &str = "kubevirt-ephemeral-disks";
/// Folder of what libvirt would keep, empty disks among it.
pub const LIBVIRT_DIR: &str = "libvirt";
/// Folder of empty disks.
pub const EMPTY_DISK_DIR: &str = "libvirt/empty-disks";
/// Folder of container disks that the node agent mounts, and of the sockets of their containers.
pub const CONTAINER_DISK_DIR: &str = "kubevirt/container-disks";
/// Folder of volumes that come and go while the guest runs.
pub const HOTPLUG_DISK_DIR: &str = "kubevirt/hotplug-disks";
/// Folder of container disks that the kubelet mounts.
pub const IMAGE_VOLUME_DIR: &str = "kubevirt-image-volume";
/// Folder of a kernel boot container that the kubelet mounts.
pub const KERNEL_BOOT_IMAGE_DIR: &str = "kubevirt-kernel-boot";
/// Folder of sockets of migrations.
pub const MIGRATION_PROXY_DIR: &str = "kubevirt/migrationproxy";
/// Folder of sockets of hook sidecars.
pub const HOOKS_DIR: &str = "kubevirt-hooks";
/// Folder of claims mounted as file systems, one folder per volume.
pub const VMI_DISKS_DIR: &str = "kubevirt-private/vmi-disks";
/// Folder with the pod's token.
pub const SERVICE_ACCOUNT_DIR: &str = "secrets/kubernetes.io/serviceaccount";
/// File of a claim's file system that holds the disk.
pub const DISK_IMAGE: &str = "disk.img";

/// Socket of the first serial port.
pub const SERIAL_SOCKET: &str = "virt-serial0";
/// File with what the guest wrote to the first serial port.
pub const SERIAL_LOG: &str = "virt-serial0-log";
/// Socket of the display.
pub const VNC_SOCKET: &str = "virt-vnc";
/// Sockets of redirected USB devices, followed by a number from 0 to 3.
pub const USBREDIR_SOCKET_PREFIX: &str = "virt-usbredir-";
/// Folder of command sockets, a volume of its own.
pub const COMMAND_SOCKET_DIR: &str = "kubevirt/sockets";
/// Name of the command socket of a launcher that is starting, in its folder.
pub const INIT_COMMAND_SOCKET_NAME: &str = "launcher-init-sock";
/// Command socket of a launcher that is starting.
pub const INIT_COMMAND_SOCKET: &str = "kubevirt/sockets/launcher-init-sock";
/// Command socket of a launcher that is ready.
pub const COMMAND_SOCKET: &str = "kubevirt/sockets/launcher-sock";
/// Mark of a launcher that no longer answers.
pub const UNRESPONSIVE_MARKER: &str = "kubevirt/sockets/launcher-unresponsive";
/// Name of the command socket in its folder.
pub const COMMAND_SOCKET_NAME: &str = "launcher-sock";
/// Name of the mark of a launcher that no longer answers, in the same folder.
pub const UNRESPONSIVE_MARKER_NAME: &str = "launcher-unresponsive";
/// Name of the socket on which the node agent takes events, in the folder that both share.
pub const NOTIFY_SOCKET_NAME: &str = "domain-notify-pipe.sock";
/// Socket on which the node agent takes events.
pub const NOTIFY_SOCKET: &str = "kubevirt/domain-notify-pipe.sock";
/// File with the networks' devices, outside `/var/run`.
pub const NETWORK_INFO_FILE: &str = "/etc/podinfo/network-info";

/// Folder of pods' volumes on the host.
pub const KUBELET_PODS_DIR: &str = "/var/lib/kubelet/pods";
/// The same folder in the node agent, short enough for paths of sockets.
pub const HANDLER_PODS_DIR: &str = "/pods";
/// Folder of a pod's empty directories, below the folder of the pod.
pub const EMPTY_DIR_VOLUMES: &str = "volumes/kubernetes.io~empty-dir";
/// Volume that holds the command sockets.
pub const SOCKETS_VOLUME: &str = "sockets";
/// Volume that a launcher shares with the node agent.
pub const PUBLIC_VOLUME: &str = "public";
/// Volume of the instance's private files.
pub const PRIVATE_VOLUME: &str = "private";
/// Volume that holds the mounted container disks.
pub const CONTAINER_DISKS_VOLUME: &str = "container-disks";
/// Volume that holds what is plugged while the guest runs.
pub const HOTPLUG_DISKS_VOLUME: &str = "hotplug-disks";
/// Folder that node agent and launchers share.
pub const HANDLER_SHARE_DIR: &str = "/var/run/kubevirt";
/// Folder of the node agent's own files.
pub const HANDLER_PRIVATE_DIR: &str = "/var/run/kubevirt-private";
/// Socket of the node agent to which the sockets in the pods lead, in [`HANDLER_SHARE_DIR`].
pub const HANDLER_NOTIFY_SOCKET_NAME: &str = "domain-notify.sock";
/// Folder of what is known of launchers, a file per uid, in [`HANDLER_PRIVATE_DIR`].
pub const GHOST_RECORDS_DIR_NAME: &str = "ghost-records";
/// Folder of how domains ended whose launchers were told that this is known, a file per uid, in
/// [`HANDLER_PRIVATE_DIR`].
pub const FINAL_DOMAINS_DIR_NAME: &str = "final-domains";
/// Folder of what is mounted of container disks, a file per uid, in [`HANDLER_PRIVATE_DIR`].
pub const CONTAINER_DISK_STATE_DIR_NAME: &str = "container-disk-mount-state";
/// Folder of what is mounted of plugged volumes, a file per uid, in [`HANDLER_PRIVATE_DIR`].
pub const HOTPLUG_STATE_DIR_NAME: &str = "hotplug-volume-mount-state";
/// Folder of what is known of pods' networks, a folder per uid, in [`HANDLER_PRIVATE_DIR`].
pub const NETWORK_INFO_CACHE_DIR_NAME: &str = "network-info-cache";
/// Certificate and key of the node agent's server.
pub const HANDLER_SERVER_CERTIFICATES_DIR: &str = "/etc/virt-handler/servercertificates";
/// Certificate and key with which clients of node agents identify themselves.
pub const HANDLER_CLIENT_CERTIFICATES_DIR: &str = "/etc/virt-handler/clientcertificates";
/// Config map with the certificates of the authority.
pub const CA_CONFIG_MAP: &str = "kubevirt-ca";
/// Key of [`CA_CONFIG_MAP`].
pub const CA_CONFIG_MAP_KEY: &str = "ca-bundle";

/// Returns the place of a launcher's command socket below the folder of all pods.
pub fn command_socket_of_pod(pod_uid: &str) -> String {
    format!("{pod_uid}/{EMPTY_DIR_VOLUMES}/{SOCKETS_VOLUME}/{COMMAND_SOCKET_NAME}")
}

#[cfg(test)]
mod tests {
    use super::{COMMAND_SOCKET, COMMAND_SOCKET_DIR, COMMAND_SOCKET_NAME, command_socket_of_pod};

    #[test]
    fn both_sides_speak_of_the_same_socket() {
        assert_eq!(
            COMMAND_SOCKET,
            format!("{COMMAND_SOCKET_DIR}/{COMMAND_SOCKET_NAME}")
        );
        assert_eq!(
            command_socket_of_pod("p"),
            "p/volumes/kubernetes.io~empty-dir/sockets/launcher-sock"
        );
    }
}
