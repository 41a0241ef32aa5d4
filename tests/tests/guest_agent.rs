//! The launcher's side of the guest agent protocol against Debian's `qemu-guest-agent` in a guest of the software CPU.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module"
)]

use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use block::CacheMode;
use launcher::agent::{
    Agent, AgentError, AgentReport, ExecOutcome, Figure, FreezeStatus, Intervals, Mode, PORT_NAME,
    Question,
};
use serde_json::Value;
use tempfile::TempDir;
use tests::{Guests, demo::BOOT, guests};
use vmm::config::{
    Accel, BootSource, ConsolePortConfig, CpuConfig, DiskBus, DiskConfig, DiskKind, DiskSource,
    ErrorPolicy, IoMode, MachineConfig, MemoryConfig, SmbiosConfig,
};
use vmm::machine::{
    ConsoleOut, Discard, Machine, MachineEnd, MachineEvent, MachineHandle, MachineIo,
};

/// Time for what an agent does at once, on a slow CPU.
const SOON: Duration = Duration::from_secs(60);

/// A guest, its agent, and what the agent told.
struct Scene {
    machine: MachineHandle,
    agent: Agent,
    reports: Receiver<AgentReport>,
    serial: Receiver<Vec<u8>>,
    _folder: TempDir,
}

struct Serial(mpsc::Sender<Vec<u8>>);

impl ConsoleOut for Serial {
    fn write(&mut self, bytes: &[u8]) {
        // The test may have seen enough.
        drop(self.0.send(bytes.to_vec()));
    }
}

fn scene() -> Option<Scene> {
    let guests = guests()?;
    let folder = tempfile::tempdir().unwrap();
    let (said, serial) = mpsc::channel();
    let io = MachineIo {
        serial_out: Box::new(Serial(said)),
        serial_room: None,
        debug_out: Box::new(Discard),
    };
    let machine = Machine::start(config(&guests, folder.path()), io).unwrap();
    let (tell, reports) = mpsc::channel();
    let listener = Box::new(move |report| drop(tell.send(report)));
    let agent = Agent::start(folder.path().join("agent"), listener, Intervals::default());
    let agent = agent.unwrap();
    tell_of_port(&machine, agent.clone());
    Some(Scene {
        machine,
        agent,
        reports,
        serial,
        _folder: folder,
    })
}

/// Tells the agent when its port is opened and closed, until the machine has ended.
fn tell_of_port(machine: &MachineHandle, agent: Agent) {
    let events = machine.events();
    thread::spawn(move || {
        for event in events {
            if let MachineEvent::PortOpened { open, .. } = event {
                agent.port_opened(open);
            }
        }
    });
}

fn config(guests: &Guests, folder: &Path) -> MachineConfig {
    let disk = folder.join("disk.raw");
    std::fs::copy(guests.root_raw(), &disk).unwrap();
    MachineConfig {
        name: "agent".to_owned(),
        cpus: CpuConfig {
            sockets: 1,
            cores: 1,
            threads: 1,
            model: None,
            features: Vec::new(),
        },
        memory: MemoryConfig {
            len_bytes: 256 << 20,
            hugepage_bytes: None,
            prefault: false,
            shared: false,
        },
        boot: BootSource::Kernel {
            kernel: guests.kernel(),
            initrd: Some(guests.agent_initrd()),
            cmdline: "console=ttyS0 quiet".to_owned(),
        },
        disks: vec![disk_config(disk)],
        console_ports: vec![ConsolePortConfig {
            name: PORT_NAME.to_owned(),
            socket: folder.join("agent"),
        }],
        rng: true,
        pvpanic: false,
        smbios: SmbiosConfig::default(),
        accel: Accel::Soft,
        start_paused: false,
    }
}

fn disk_config(path: std::path::PathBuf) -> DiskConfig {
    DiskConfig {
        name: "root".to_owned(),
        bus: DiskBus::VirtioBlk,
        kind: DiskKind::Disk,
        source: DiskSource::Image {
            path,
            format: None,
            follow_backing: false,
        },
        read_only: false,
        serial: Some("disk-0".to_owned()),
        queues: 1,
        logical_block_bytes: 512,
        physical_block_bytes: 512,
        cache: CacheMode::Writeback,
        io: IoMode::Threads,
        discard: true,
        error_policy: ErrorPolicy::Report,
        io_thread: None,
        boot_order: None,
    }
}

impl Scene {
    /// Waits for a report of which something is true, at most as long as a boot takes.
    fn until(&self, what: impl Fn(&AgentReport) -> bool) -> AgentReport {
        loop {
            let report = self.reports.recv_timeout(BOOT).unwrap_or_else(|_| {
                let said: Vec<u8> = self.serial.try_iter().flatten().collect();
                panic!("the agent did not come: {}", String::from_utf8_lossy(&said));
            });
            if what(&report) {
                return report;
            }
        }
    }

    fn run(&self, command: &str) -> ExecOutcome {
        let args = ["-c".to_owned(), command.to_owned()];
        self.agent.exec("/bin/sh", &args, SOON).unwrap()
    }
}

/// Kills the agent, for as many seconds; the guest tells when it has.
const KILL: &str = "ga=$(which qemu-ga); (sleep 1; mv $ga /gone; kill -KILL $(pidof qemu-ga); \
    echo agent-is-gone >/dev/console; sleep 6; mv /gone $ga) >/dev/null 2>&1 &";

/// What a process does that is killed, and what shows that the agent in the guest is another.
fn is_missed_at_once_and_found_again(scene: &Scene) {
    assert_eq!(scene.run(KILL).exit_code, 0);
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("agent-is-gone") {
        said.extend(scene.serial.recv_timeout(SOON).unwrap());
    }
    let killed = Instant::now();
    while scene.agent.report().connected {
        let left = Duration::from_secs(5).checked_sub(killed.elapsed());
        let left = left.expect("the agent is missed within five seconds");
        // A report that was told before says so as well.
        drop(scene.reports.recv_timeout(left));
    }
    assert!(matches!(
        scene.agent.ping(SOON),
        Err(AgentError::NotConnected)
    ));
    scene.until(|report| report.connected);
    scene.agent.ping(SOON).unwrap();
}

/// What monitoring wishes; Debian's agent has no `guest-get-load` and no `guest-network-get-route` yet.
fn tells_figures(agent: &Agent) {
    let questions = [
        Question::CpuStats,
        Question::DiskStats,
        Question::Time,
        Question::Disks,
        Question::MemoryBlockInfo,
        Question::Vcpus,
    ];
    let told = agent.figures(&questions, SOON).unwrap();
    let [cpus, disks, time, devices, block, vcpus] = &*told else {
        panic!("{told:?}");
    };
    let json = |figure: &Figure| -> Option<Value> {
        let text = figure.as_ref().unwrap().as_deref();
        text.map(|text| serde_json::from_str(text).unwrap())
    };
    assert!(json(cpus).unwrap()[0]["user"].is_u64());
    let disks = json(disks).unwrap();
    assert!(disks.to_string().contains("vda"), "{disks}");
    assert!(json(time).unwrap().as_u64().unwrap() > 1_600_000_000_000_000_000);
    let devices = json(devices).unwrap();
    assert!(devices.to_string().contains("/dev/vda"), "{devices}");
    assert_eq!(json(vcpus).unwrap()[0]["online"], true);
    // Kernels for the cloud leave the hot plug of memory out.
    assert!(
        block
            .as_ref()
            .is_err_and(|error| matches!(**error, AgentError::Refused { .. }))
            || json(block).is_none_or(|block| block["size"].is_u64())
    );
}

fn is_complete(report: &AgentReport) -> bool {
    report.connected && report.os.is_some() && !report.filesystems.is_empty()
}

#[test]
fn the_agent_tells_of_its_guest_and_runs_programs_and_shuts_down() {
    let Some(scene) = scene() else { return };
    let report = scene.until(is_complete);
    assert!(report.version.is_some() && report.offers("guest-exec"));
    let os = report.os.unwrap();
    assert_eq!(
        (os.id.as_str(), os.machine.as_str()),
        ("ferrovirt-demo", "x86_64")
    );
    assert_eq!(report.hostname.as_deref(), Some("ferrovirt"));
    assert_eq!(report.timezone.unwrap().offset_secs, 0);
    assert_eq!(report.vcpus_online, Some(1));
    assert_eq!(report.interfaces[0].name, "lo");
    assert_eq!(report.interfaces[0].addresses[0].ip, "127.0.0.1");
    let filesystem = &report.filesystems[0];
    assert_eq!(
        (filesystem.mountpoint.as_str(), filesystem.kind.as_str()),
        ("/mnt/disk", "ext4")
    );
    assert_eq!(filesystem.disks[0].bus, "virtio");

    scene.agent.ping(SOON).unwrap();
    let outcome = scene.run("echo out; echo err >&2; exit 7");
    let expected = ExecOutcome {
        exit_code: 7,
        stdout: b"out\n".to_vec(),
        stderr: b"err\n".to_vec(),
        truncated: false,
    };
    assert_eq!(outcome, expected);
    assert_eq!(scene.run("kill -KILL $$").exit_code, 128 + 9);
    assert_eq!(
        scene.run("head -c 1000000 /dev/zero").stdout.len(),
        1_000_000
    );
    let absent = scene.agent.exec("/no/such/program", &[], SOON);
    assert!(matches!(absent, Err(AgentError::Refused { .. })));
    let slow = scene.agent.exec(
        "/bin/sleep",
        &["100".to_owned()],
        Duration::from_millis(300),
    );
    assert!(matches!(slow, Err(AgentError::Timeout { .. })));
    scene
        .agent
        .add_ssh_keys("root", &["ssh-ed25519 AAAA me".to_owned()], true)
        .unwrap();
    assert_eq!(
        scene
            .run("cat /root/.ssh/authorized_keys")
            .stdout
            .trim_ascii(),
        b"ssh-ed25519 AAAA me"
    );

    tells_figures(&scene.agent);
    is_missed_at_once_and_found_again(&scene);
    scene.agent.shutdown(Mode::PowerDown).unwrap();
    assert_eq!(scene.machine.wait(), MachineEnd::PoweredOff);
}

#[test]
fn the_agent_freezes_file_systems_and_comes_back_after_a_reboot() {
    let Some(scene) = scene() else { return };
    scene.until(is_complete);
    assert_eq!(scene.agent.freeze(Some(SOON)).unwrap(), 1);
    assert_eq!(scene.agent.freeze_status().unwrap(), FreezeStatus::Frozen);
    let refused = scene.agent.exec("/bin/true", &[], SOON);
    assert!(
        matches!(refused, Err(AgentError::Refused { .. })),
        "nothing runs in a frozen guest"
    );
    scene.until(|report| report.fs_freeze == Some(FreezeStatus::Frozen));
    assert_eq!(scene.agent.thaw().unwrap(), 1);
    scene.until(|report| report.fs_freeze == Some(FreezeStatus::Thawed));
    assert_eq!(
        scene
            .agent
            .freeze(Some(Duration::from_millis(200)))
            .unwrap(),
        1
    );
    scene.until(|report| report.fs_freeze == Some(FreezeStatus::Frozen));
    scene.until(|report| report.fs_freeze == Some(FreezeStatus::Thawed));
    assert_eq!(
        scene.run("echo x >/mnt/disk/x && cat /mnt/disk/x").stdout,
        b"x\n"
    );

    let events = scene.machine.events();
    scene.agent.shutdown(Mode::Reboot).unwrap();
    while !matches!(events.recv_timeout(SOON).unwrap(), MachineEvent::Reset(_)) {}
    scene.agent.guest_reset();
    scene.until(|report| !report.connected);
    scene.until(|report| report.connected);
    assert_eq!(scene.run("cat /mnt/disk/x").stdout, b"x\n");
    scene.machine.kill().unwrap();
    assert_eq!(scene.machine.wait(), MachineEnd::Killed);
}
