//! What the command line says about the node's devices.

use std::io::Write;
use std::path::{Path, PathBuf};

use api::error_chain::chain;
use clap::{Args, Subcommand};

use crate::devices::{DeviceFlags, Format, MAX_DEVICES_MAX, show};

/// Arguments about devices.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Devices")]
pub struct DeviceArgs {
    /// Units of each shared device (kvm, tun, vhost-net, vhost-vsock) that the kubelet is offered, unless the KubeVirt
    /// object has virtualMachineInstancesPerNode
    #[arg(long, default_value_t = device_plugins::char_device::MAX_DEVICES, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_DEVICES_MAX)))]
    pub max_devices: u32,

    /// USB devices to offer, beside those of the KubeVirt object: resource;vendor;product, several with commas between,
    /// such as `kubevirt.io/wifi-dongle;0bda;0811`
    #[arg(
        long,
        env = "USB_LIST",
        default_value = "",
        hide_default_value = true,
        value_name = "LIST"
    )]
    pub usb_list: String,

    /// Bind PCI functions that the KubeVirt object permits to vfio-pci; without this only those that are bound already
    /// are offered
    #[arg(long)]
    pub bind_vfio: bool,

    /// Where the host's devices are [default: 1/root/dev below --proc-dir, where that can be read, else /dev]
    #[arg(long, value_name = "DIR")]
    pub dev_dir: Option<PathBuf>,
}

/// What else the program does.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show the devices that this node's virt-handler offers, who has them, and why others are missing
    Devices {
        /// How
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
}

impl DeviceArgs {
    pub(super) fn flags(&self, accel: super::Accel) -> DeviceFlags {
        DeviceFlags {
            max_devices: self.max_devices,
            usb_list: self.usb_list.clone(),
            bind_vfio: self.bind_vfio,
            accel,
        }
    }

    /// Returns where the host's devices are. The handler's own `/dev` in its pod does not get new ones.
    pub(super) fn dev_dir(&self, proc_dir: &Path) -> PathBuf {
        let of_host = proc_dir.join("1/root/dev");
        match &self.dev_dir {
            Some(folder) => folder.clone(),
            None if std::fs::read_dir(&of_host).is_ok() => of_host,
            None => "/dev".into(),
        }
    }
}

impl Command {
    pub(super) fn run(&self, private_dir: &Path) -> Result<(), String> {
        let Self::Devices { output } = self;
        let shown = show(private_dir, *output).map_err(|error| chain(&error))?;
        // Whoever reads may have had enough.
        let _unprintable = std::io::stdout().write_all(shown.as_bytes());
        Ok(())
    }
}
