//! A worker node inside QEMU, with devices to be given away: USB behind a controller and a hub, PCI devices in IOMMU groups,
//! virtual functions, and KVM.
//!
//! ```text
//!  host                               guest: Debian's generic kernel
//!  test ── requests, answers ── serial port ── agent ─┬─ API endpoint
//!    └──── device_add, device_del ── QEMU             ├─ kubelet stand-in
//!                                                     └─ virt-handler
//! ```
//!
//! The test speaks with the [`agent`] in lines of JSON ([`protocol`]), and plugs devices in and out by QEMU's [`monitor`].

pub mod agent;
mod ask;
mod line;
pub mod monitor;
pub mod protocol;
mod record;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use self::ask::{healthy, row, rows};
use self::line::Line;
use self::monitor::Monitor;
use self::protocol::{Answer, Request};
use crate::console::{Console, Spawned};
use crate::guests::Guests;
use crate::initrd::Overlay;
use crate::nested::PROCESSOR;
use crate::programs::{Machine, optional_tool};
use crate::{guests, program, skip};

/// Time for the node to be up: a few seconds where nothing else runs.
const UP: Duration = Duration::from_secs(180);
/// Time for QEMU to make its sockets.
const SOCKETS: Duration = Duration::from_secs(20);
/// Time that the agent has for an answer beside what a request itself allows.
const ANSWER: Duration = Duration::from_secs(60);
/// Virtual functions that the NVMe controller can have.
pub const FUNCTIONS: u32 = 8;
/// Size of each stick.
const STICK_BYTES: u64 = 1 << 20;

/// Without any, clients refuse to be made, even those that are to speak plain HTTP.
const ROOT_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Programs of ours in the node, all in `/node`.
const PROGRAMS: [&str; 3] = ["virt-handler", "virt-launcher", "device_node"];

/// A USB device of the node, by the name that QEMU has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plug {
    /// A hub, in port 1. Behind it is [`Plug::Serial`].
    Hub,
    /// A serial adapter, in the hub's port 2.
    Serial,
    /// A stick, in port 2.
    Stick,
    /// Another one that differs in nothing, in port 3.
    Twin,
    /// A tablet, in port 4.
    Tablet,
}

impl Plug {
    /// All of them, in an order in which they can be plugged in.
    pub const ALL: [Self; 5] = [
        Self::Hub,
        Self::Serial,
        Self::Stick,
        Self::Twin,
        Self::Tablet,
    ];

    /// QEMU's name for it.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Serial => "serial",
            Self::Stick => "stick",
            Self::Twin => "twin",
            Self::Tablet => "tablet",
        }
    }

    /// What QEMU plugs in, and where.
    fn device(self) -> Value {
        let (driver, port) = match self {
            Self::Hub => ("usb-hub", "1"),
            Self::Serial => ("usb-serial", "1.2"),
            Self::Stick => ("usb-storage", "2"),
            Self::Twin => ("usb-storage", "3"),
            Self::Tablet => ("usb-tablet", "4"),
        };
        let mut device = json!({"driver": driver, "id": self.id(), "bus": "xhci.0", "port": port});
        match self {
            Self::Serial => {
                device["chardev"] = json!("nothing");
                device["always-plugged"] = json!(true);
            }
            Self::Stick | Self::Twin => {
                device["drive"] = json!(self.id());
                device["serial"] = json!("FERROVIRT");
            }
            Self::Hub | Self::Tablet => {}
        }
        device
    }
}

/// A running node; dropped, it is gone.
pub struct DeviceNode {
    qemu: Spawned,
    agent: Line,
    monitor: Monitor,
    up_after: Duration,
    _folder: tempfile::TempDir,
}

impl DeviceNode {
    /// Boots a node, with all of [`Plug`] plugged in and no virtual function yet. `None`, with the reason printed, where that
    /// is not possible.
    ///
    /// # Panics
    ///
    /// When the node does not come up, or when it cannot be made although nothing may be skipped (see [`skip`]).
    #[must_use]
    pub fn boot() -> Option<Self> {
        let guests = guests()?;
        if !guests.node_initrd().is_file() {
            skip("no worker node among the guests: run `make images`");
            return None;
        }
        let programs: Option<Vec<PathBuf>> = PROGRAMS.into_iter().map(program).collect();
        let (programs, qemu) = (programs?, optional_tool("qemu-system-x86_64")?);
        let folder = tempfile::tempdir().expect("make a folder");
        let initrd = initrd(&guests, &programs, folder.path()).expect("make the node's RAM disk");
        let command = command(&qemu, &guests, &initrd, folder.path());
        let command = command.expect("make the node's disks");
        Some(Self::start(command, folder))
    }

    fn start(command: Command, folder: tempfile::TempDir) -> Self {
        let began = Instant::now();
        let mut qemu = Spawned::start(command, Console::OutputOnly).expect("start QEMU");
        let connected =
            Monitor::connect(&folder.path().join("monitor"), SOCKETS).and_then(|monitor| {
                Ok((
                    monitor,
                    Line::connect(&folder.path().join("agent"), SOCKETS)?,
                ))
            });
        let (monitor, mut agent) =
            connected.unwrap_or_else(|error| panic!("reach QEMU: {error}\n{}", qemu.errors()));
        if let Err(error) = agent.receive::<Answer>(UP) {
            let console = qemu.expect("no such text", Duration::ZERO);
            panic!("the node did not come up: {error}\n{console:?}");
        }
        Self {
            qemu,
            agent,
            monitor,
            up_after: began.elapsed(),
            _folder: folder,
        }
    }

    /// How long it took until the agent spoke.
    #[must_use]
    pub fn up_after(&self) -> Duration {
        self.up_after
    }

    /// Asks the agent, and returns its answer or why it has none.
    ///
    /// # Errors
    ///
    /// What the agent says against the request.
    ///
    /// # Panics
    ///
    /// When the node does not answer.
    pub fn try_ask(&mut self, request: &Request) -> Answer {
        let sent = self.agent.send(request);
        let answer = sent.and_then(|()| self.agent.receive(request.patience() + ANSWER));
        answer.unwrap_or_else(|error| {
            let console = self.qemu.expect("no such text", Duration::ZERO);
            panic!("no answer to {request:?}: {error}\n{console:?}")
        })
    }

    /// Asks the agent for what must succeed.
    ///
    /// # Panics
    ///
    /// When it does not; the message has what the node agent logged.
    pub fn ask(&mut self, request: &Request) -> Value {
        self.try_ask(request).unwrap_or_else(|reason| {
            let log = self.handler_log();
            panic!("{request:?}: {reason}\nhandler:\n{log}")
        })
    }

    /// What the node agent logged since it was started.
    pub fn handler_log(&mut self) -> String {
        let log = self.try_ask(&Request::HandlerLog);
        let log = log.unwrap_or_else(Value::String);
        log.as_str().unwrap_or_default().to_owned()
    }

    /// Pulls a USB device out.
    ///
    /// # Panics
    ///
    /// When QEMU refuses.
    pub fn unplug(&mut self, plug: Plug) {
        let id = json!({"id": plug.id()});
        let done = self.monitor.execute("device_del", &id);
        let gone = done.and_then(|_| self.monitor.wait_until_deleted(plug.id()));
        gone.unwrap_or_else(|error| panic!("unplug {plug:?}: {error}"));
    }

    /// Plugs a USB device into its port.
    ///
    /// # Panics
    ///
    /// When QEMU refuses.
    pub fn plug(&mut self, plug: Plug) {
        let done = self.monitor.execute("device_add", &plug.device());
        done.unwrap_or_else(|error| panic!("plug {plug:?} in: {error}"));
    }
}

fn initrd(guests: &Guests, programs: &[PathBuf], folder: &Path) -> io::Result<PathBuf> {
    let overlay = Overlay::new(folder.join("tree"));
    for (program, name) in programs.iter().zip(PROGRAMS) {
        overlay.add(program, &format!("node/{name}"))?;
    }
    let roots = Path::new(ROOT_CERTIFICATES);
    if roots.is_file() {
        overlay.add(roots, ROOT_CERTIFICATES.trim_start_matches('/'))?;
    }
    let path = folder.join("initrd");
    overlay.append_to(&[guests.node_initrd()], &guests.busybox(), &path)?;
    Ok(path)
}

fn command(qemu: &Path, guests: &Guests, initrd: &Path, folder: &Path) -> io::Result<Command> {
    let machine = Machine::new(&guests.node_kernel())
        .initrd(initrd)
        .append("quiet panic=-1 intel_iommu=on")
        .memory("1536M");
    let mut command = machine.qemu(qemu, "q35");
    let socket = |name: &str| format!("{},server=on,wait=off", folder.join(name).display());
    command
        .args(["-cpu", PROCESSOR, "-serial", "mon:stdio"])
        .args([
            "-chardev",
            &format!("socket,id=agent,path={}", socket("agent")),
        ])
        .args(["-serial", "chardev:agent"])
        .args(["-qmp", &format!("unix:{}", socket("monitor"))])
        .args(["-chardev", "null,id=nothing"])
        .args(BOARD);
    for plug in Plug::ALL {
        if let Some(node) = plug.device()["drive"].as_str() {
            let path = folder.join(node);
            File::create(&path)?.set_len(STICK_BYTES)?;
            let path = path.display();
            let drive = format!("driver=file,node-name={node},filename={path}");
            command.args(["-blockdev", &drive]);
        }
        command.args(["-device", &plug.device().to_string()]);
    }
    Ok(command)
}

/// What the node has beside USB devices: two NUMA nodes, of which the second has no processor and is near to the NVMe
/// controller; an edu device that is alone, and one that shares an IOMMU group with a USB controller behind a bridge. The
/// numbers of the NVMe controller are the least with which it gives each virtual function a queue and an interrupt.
const BOARD: [&str; 28] = [
    "-object",
    "memory-backend-ram,id=near,size=1280M",
    "-object",
    "memory-backend-ram,id=far,size=256M",
    "-numa",
    "node,nodeid=0,cpus=0,memdev=near",
    "-numa",
    "node,nodeid=1,memdev=far",
    "-device",
    "intel-iommu",
    "-device",
    "qemu-xhci,id=xhci,addr=2.0",
    "-device",
    "edu,addr=10.0",
    "-device",
    "pxb-pcie,id=expander,bus=pcie.0,bus_nr=64,numa_node=1",
    "-device",
    "pcie-root-port,id=rootport,bus=expander,chassis=1,slot=1",
    "-device",
    "nvme-subsys,id=subsystem",
    "-device",
    "nvme,bus=rootport,serial=ferrovirt,subsys=subsystem,sriov_max_vfs=8,sriov_vq_flexible=18,sriov_vi_flexible=9,\
     max_ioqpairs=26,msix_qsize=27",
    "-device",
    "pcie-pci-bridge,id=bridge,bus=pcie.0,addr=11.0",
    "-device",
    "edu,bus=bridge,addr=1.0",
    "-device",
    "qemu-xhci,bus=bridge,addr=2.0",
];
