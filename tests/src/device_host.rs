//! A host with devices, made of files in a folder of its own, with the device plugins and the kubelet's stand-in.
//!
//! Devices come and go as files of sysfs and `/dev`, and the plugins see that by `inotify` alone: what the kernel tells of the
//! machine that the tests run on is not about these devices.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use device_plugins::plugins::{self, Setup};
use device_plugins::report::{Report, ResourceReport};
use device_plugins::source::Host;
use device_plugins::wanted::Wanted;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::kubelet::Kubelet;

/// Folder of the controller to which USB devices are plugged in.
const CONTROLLER: &str = "sys/devices/pci0000:00/0000:00:14.0";

/// A host; dropped, it is gone with all that runs on it.
pub struct DeviceHost {
    /// The kubelet, not started.
    pub kubelet: Kubelet,
    dir: TempDir,
    launcher_id: u32,
    wanted: watch::Sender<Wanted>,
    report: watch::Sender<Arc<Report>>,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

/// A USB device.
#[derive(Clone, Debug)]
pub struct UsbDevice {
    /// Bus and ports as the kernel names them: `1-1.4`.
    pub name: String,
    /// `idVendor` and `idProduct`.
    pub make: (u16, u16),
    /// Its number on the bus.
    pub number: u16,
}

impl UsbDevice {
    /// A device of a name.
    #[must_use]
    pub fn new(name: &str, make: (u16, u16), number: u16) -> Self {
        Self {
            name: name.to_owned(),
            make,
            number,
        }
    }

    /// Its node, as the host names it.
    #[must_use]
    pub fn node(&self) -> String {
        format!("/dev/bus/usb/001/{:03}", self.number)
    }

    /// Its address in a container's environment.
    #[must_use]
    pub fn address(&self) -> String {
        format!("1:{}", self.number)
    }
}

impl DeviceHost {
    /// Makes a host with one USB controller and no devices. Neither plugins nor kubelet run.
    ///
    /// # Errors
    ///
    /// Fails when its files cannot be made.
    pub fn new(wanted: Wanted) -> io::Result<Self> {
        let dir = TempDir::new()?;
        for folder in ["dev/net", "dev/bus/usb/001", "sys/class/misc", "private"] {
            fs::create_dir_all(dir.path().join(folder))?;
        }
        let host = Self {
            kubelet: Kubelet::new(&dir.path().join("kubelet")),
            dir,
            launcher_id: nix::unistd::geteuid().as_raw(),
            wanted: watch::Sender::new(wanted),
            report: watch::Sender::default(),
            running: None,
        };
        host.put_root_hub()?;
        Ok(host)
    }

    /// Has nodes that containers have belong to this user.
    pub fn set_launcher_id(&mut self, id: u32) {
        self.launcher_id = id;
    }

    /// The host's folders.
    #[must_use]
    pub fn host(&self) -> Host {
        Host {
            sys_dir: self.path("sys"),
            dev_dir: self.path("dev"),
            plugin_dir: self.kubelet.plugin_dir(),
            pods_dir: self.kubelet.pods_dir(),
            private_dir: self.path("private"),
        }
    }

    /// A path on the host, `/dev/kvm` or `sys/class`, as a path of this machine.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.dir.path().join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Starts the plugins. Must be called on a runtime.
    pub fn start_plugins(&mut self) {
        let setup = Setup {
            host: self.host(),
            launcher_id: self.launcher_id,
        };
        let stop = CancellationToken::new();
        let plugins = plugins::run(
            setup,
            self.wanted.subscribe(),
            self.report.clone(),
            stop.clone(),
        );
        self.running = Some((stop, tokio::spawn(Box::pin(plugins))));
    }

    /// Stops the plugins; false if they did not end in time.
    pub async fn stop_plugins(&mut self, limit: Duration) -> bool {
        let Some((stop, running)) = self.running.take() else {
            return true;
        };
        stop.cancel();
        timeout(limit, running).await.is_ok()
    }

    /// Ends the plugins as if they were killed.
    pub async fn kill_plugins(&mut self) {
        if let Some((_, running)) = self.running.take() {
            running.abort();
            // What was aborted ends with an error that says so.
            let _aborted = running.await;
        }
    }

    /// Asks for other devices.
    pub fn want(&self, wanted: Wanted) {
        self.wanted.send_replace(wanted);
    }

    /// What the plugins tell, as it changes.
    #[must_use]
    pub fn report(&self) -> watch::Receiver<Arc<Report>> {
        self.report.subscribe()
    }

    /// Waits until the plugins tell something of a resource; false if they do not in time.
    pub async fn until_told(
        &self,
        limit: Duration,
        resource: &str,
        mut is_so: impl FnMut(&ResourceReport) -> bool,
    ) -> bool {
        let mut report = self.report();
        let told = report.wait_for(|report| {
            let mut resources = report.resources.iter();
            resources.any(|told| told.resource.as_str() == resource && is_so(told))
        });
        matches!(timeout(limit, told).await, Ok(Ok(_)))
    }

    /// Puts a character device there that has a driver: `kvm` or `net/tun`.
    ///
    /// # Errors
    ///
    /// Fails when its files cannot be made.
    pub fn put_char_device(&self, name: &str) -> io::Result<()> {
        let driver = Path::new(name).file_name().unwrap_or_default();
        fs::create_dir_all(self.path("sys/class/misc").join(driver))?;
        fs::write(self.path("dev").join(name), "")
    }

    /// Takes a character device away.
    ///
    /// # Errors
    ///
    /// Fails when it is not there.
    pub fn take_char_device(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path("dev").join(name))
    }

    fn put_root_hub(&self) -> io::Result<()> {
        let folder = self.path(CONTROLLER).join("usb1");
        put(&folder, "idVendor", "1d6b")?;
        put(&folder, "idProduct", "0002")?;
        put(&folder, "bDeviceClass", "09")?;
        self.link("usb1", &format!("../../../../{CONTROLLER}/usb1"))
    }

    fn link(&self, name: &str, target: &str) -> io::Result<()> {
        let folder = self.path("sys/bus/usb/devices");
        fs::create_dir_all(&folder)?;
        symlink(target, folder.join(name))
    }

    /// Plugs a USB device in.
    ///
    /// # Errors
    ///
    /// Fails when its files cannot be made.
    pub fn plug(&self, device: &UsbDevice) -> io::Result<()> {
        self.plug_without_node(device)?;
        fs::write(self.path(device.node()), "")
    }

    /// Does what the kernel does for a USB device but for the node.
    ///
    /// # Errors
    ///
    /// Fails when its files cannot be made.
    pub fn plug_without_node(&self, device: &UsbDevice) -> io::Result<()> {
        let name = &device.name;
        let folder = self.path(CONTROLLER).join("usb1").join(name);
        put(&folder, "idVendor", &format!("{:04x}", device.make.0))?;
        put(&folder, "idProduct", &format!("{:04x}", device.make.1))?;
        put(&folder, "bDeviceClass", "00")?;
        put(&folder, "busnum", "1")?;
        put(&folder, "devnum", &device.number.to_string())?;
        put(&folder, "authorized", "1")?;
        self.link(name, &format!("../../../../{CONTROLLER}/usb1/{name}"))
    }

    /// Plugs a USB device out.
    ///
    /// # Errors
    ///
    /// Fails when it is not there.
    pub fn unplug(&self, device: &UsbDevice) -> io::Result<()> {
        fs::remove_file(self.path("sys/bus/usb/devices").join(&device.name))?;
        fs::remove_dir_all(self.path(CONTROLLER).join("usb1").join(&device.name))?;
        fs::remove_file(self.path(device.node()))
    }
}

impl Drop for DeviceHost {
    fn drop(&mut self) {
        if let Some((stop, _)) = &self.running {
            stop.cancel();
        }
    }
}

fn put(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(name), format!("{text}\n"))
}
