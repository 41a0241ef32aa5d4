//! Files and sockets of a launcher, relative to the pod's `/var/run`.

/// Folder of the instance's private files; below it one folder per uid with the console sockets.
pub const PRIVATE_DIR: &str = "kubevirt-private";
/// Folder of overlays and cloud-init images.
pub const EPHEMERAL_DISK_DIR: &str = "kubevirt-ephemeral-disks";
/// Folder of empty disks.
pub const EMPTY_DISK_DIR: &str = "libvirt/empty-disks";
/// Socket of the first serial port.
pub const SERIAL_SOCKET: &str = "virt-serial0";
/// Socket of the display.
pub const VNC_SOCKET: &str = "virt-vnc";
/// Command socket of a launcher that is starting.
pub const INIT_COMMAND_SOCKET: &str = "kubevirt/sockets/launcher-init-sock";
/// Command socket of a launcher that is ready.
pub const COMMAND_SOCKET: &str = "kubevirt/sockets/launcher-sock";
/// Socket on which the node agent takes events.
pub const NOTIFY_SOCKET: &str = "kubevirt/domain-notify-pipe.sock";
