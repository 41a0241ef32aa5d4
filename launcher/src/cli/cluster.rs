//! What KubeVirt's controller renders into the command line of a launcher's pod.

use std::path::PathBuf;
use std::time::Duration;

use api::duration;
use clap::Args;

use crate::pod::PodPaths;

/// Arguments that KubeVirt's controller renders into the launcher's pod. All are accepted, so that the
/// pod starts; those that only make sense with QEMU do nothing.
#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// Name of the instance.
    #[arg(long, hide = true)]
    pub name: Option<String>,
    /// Uid of the instance.
    #[arg(long, hide = true)]
    pub uid: Option<String>,
    /// Namespace of the instance.
    #[arg(long, hide = true)]
    pub namespace: Option<String>,
    /// Seconds between the pod's end being asked for and the pulled plug.
    #[arg(long, hide = true)]
    pub grace_period_seconds: Option<u64>,
    /// How long to wait for an instance.
    #[arg(long, hide = true, default_value = "3m", value_parser = duration::parse)]
    pub qemu_timeout: Duration,
    /// Whether the process stays after a failure, for a look at its pod.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    pub keep_after_failure: bool,
    /// Whether the kubelet mounts the images of container disks.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    pub image_volume: bool,
    /// How often the guest agent is asked.
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Where things lie in the pod.
    #[command(flatten)]
    pub dirs: DirArgs,
    /// Arguments with a value that does nothing.
    #[command(flatten)]
    pub ignored: IgnoredArgs,
}

/// Declares durations with their defaults.
macro_rules! agent_args {
    ($( $(#[$attr:meta])* $name:ident = $default:literal )*) => {
        /// How often the guest agent is asked.
        #[derive(Clone, Debug, Args)]
        pub struct AgentArgs {
            $( $(#[$attr])*
            #[arg(long, hide = true, default_value = $default, value_parser = duration::parse)]
            pub $name: Duration, )*
        }
    };
}

agent_args! {
    /// For host name, operating system and the like.
    qemu_agent_sys_interval = "120s"
    /// For file systems.
    qemu_agent_file_interval = "300s"
    /// For users.
    qemu_agent_user_interval = "10s"
    /// For the agent's version.
    qemu_agent_version_interval = "300s"
    /// For whether file systems are frozen.
    qemu_fsfreeze_status_interval = "5s"
}

/// Declares optional folders by the field of [`PodPaths`] that they override.
macro_rules! dir_args {
    ($( $name:ident => $field:ident )*) => {
        /// Folders of the pod; those that upstream's launcher knows no argument for are for tests.
        #[derive(Clone, Debug, Default, Args)]
        pub struct DirArgs {
            $(
                #[doc = concat!("Overrides [`PodPaths::", stringify!($field), "`].")]
                #[arg(long, hide = true)]
                pub $name: Option<PathBuf>,
            )*
        }

        impl DirArgs {
            /// Returns the pod's folders.
            pub fn paths(&self) -> PodPaths {
                let default = PodPaths::default();
                PodPaths {
                    $( $field: self.$name.clone().unwrap_or(default.$field), )*
                }
            }
        }
    };
}

dir_args! {
    kubevirt_share_dir => share_dir
    private_dir => private_dir
    ephemeral_disk_dir => ephemeral_disk_dir
    container_disk_dir => container_disk_dir
    hotplug_disk_dir => hotplug_disk_dir
    libvirt_dir => libvirt_dir
    image_volume_dir => image_volume_dir
    kernel_boot_image_dir => kernel_boot_image_dir
    service_account_dir => service_account_dir
}

/// Declares accepted arguments without meaning, of both forms.
macro_rules! ignored_args {
    (values: $($value:ident)*; switches: $($switch:ident)*;) => {
        /// Arguments that are accepted and do nothing.
        #[derive(Clone, Debug, Default, Args)]
        pub struct IgnoredArgs {
            $(
                #[doc = "Accepted without effect."]
                #[arg(long, hide = true, allow_hyphen_values = true)]
                pub $value: Option<String>,
            )*
            $(
                #[doc = "Accepted without effect."]
                #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
                pub $switch: Option<bool>,
            )*
            /// Verbosity.
            #[arg(short = 'v', long = "v", hide = true)]
            pub verbosity: Option<String>,
        }
    };
}

ignored_args! {
    values: hook_sidecars ovmf_path disk_memory_limit hypervisor libvirt_log_filters;
    switches:
        run_as_nonroot allow_emulation allow_cross_arch_emulation upgrade_ordinal_ifaces
        vgpu_dedicated_hook vm_stats_collector firmware_auto_selection simulate_crash;
}
