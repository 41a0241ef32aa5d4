//! Machines commanded in process, with stock Debian guests on the software CPU.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "an integration test is a test module, its helpers included, and says what it skips"
)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use vmm::config::{
    Accel, BootSource, ConsolePortConfig, CpuConfig, DiskBus, DiskConfig, DiskKind, DiskSource,
    ErrorPolicy, IoMode, MachineConfig, MemoryConfig, SmbiosConfig,
};
use vmm::machine::{
    ConsoleOut, Discard, Machine, MachineEnd, MachineEvent, MachineHandle, MachineIo, MachineStats,
};

/// After this something is taken for missing.
const TIME_LIMIT: Duration = Duration::from_secs(300);
const PROMPT: &str = "root@ferrovirt:~# ";

/// The folder of `make images`; without it the tests are skipped.
fn guests() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests");
    let folder = std::env::var_os("FERROVIRT_GUESTS").map_or_else(beside, PathBuf::from);
    if folder.join(".stamp").is_file() {
        return Some(folder);
    }
    let must = std::env::var_os("FERROVIRT_REQUIRE_GUESTS").is_some_and(|value| value == "1");
    assert!(!must, "no guests in {}", folder.display());
    eprintln!(
        "skipped: no guests in {}: run `make images`",
        folder.display()
    );
    None
}

fn config(guests: &Path) -> MachineConfig {
    MachineConfig {
        name: "test".to_owned(),
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
            kernel: guests.join("vmlinuz"),
            initrd: Some(guests.join("initrd")),
            cmdline: "console=ttyS0 quiet".to_owned(),
        },
        disks: Vec::new(),
        console_ports: Vec::new(),
        rng: true,
        pvpanic: true,
        smbios: SmbiosConfig::default(),
        accel: Accel::Soft,
        start_paused: false,
    }
}

fn disk(name: &str, path: &Path) -> DiskConfig {
    DiskConfig {
        name: name.to_owned(),
        bus: DiskBus::VirtioBlk,
        kind: DiskKind::Disk,
        source: image(path),
        read_only: false,
        serial: None,
        queues: 1,
        logical_block_bytes: 512,
        physical_block_bytes: 512,
        cache: block::CacheMode::Writeback,
        io: IoMode::Threads,
        discard: true,
        error_policy: ErrorPolicy::Report,
        io_thread: None,
        boot_order: None,
    }
}

fn image(path: &Path) -> DiskSource {
    DiskSource::Image {
        path: path.to_owned(),
        format: Some(block::Format::Raw),
        follow_backing: false,
    }
}

/// A file of `mib` MiB that starts with `text`.
fn image_file(path: &Path, mib: u64, text: &[u8]) {
    let file = File::create(path).unwrap();
    file.set_len(mib << 20).unwrap();
    file.write_all_at(text, 0).unwrap();
}

struct Collect(Sender<Vec<u8>>);

impl ConsoleOut for Collect {
    fn write(&mut self, bytes: &[u8]) {
        // The test may have seen enough.
        drop(self.0.send(bytes.to_vec()));
    }
}

struct Guest {
    machine: MachineHandle,
    events: Receiver<MachineEvent>,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Guest {
    fn start(config: MachineConfig) -> Self {
        let (sender, output) = channel();
        let io = MachineIo {
            serial_out: Box::new(Collect(sender)),
            serial_room: None,
            debug_out: Box::new(Discard),
        };
        let machine = Machine::start(config, io).unwrap();
        Self {
            events: machine.events(),
            machine,
            output,
            seen: String::new(),
        }
    }

    /// Starts a machine and logs in.
    fn log_in(config: MachineConfig) -> Self {
        let mut guest = Self::start(config);
        guest.expect("ferrovirt login: ");
        guest.send("root\n");
        guest.expect(PROMPT);
        guest
    }

    /// Returns the output up to `text`.
    fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + TIME_LIMIT;
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(bytes) = self.output.recv_timeout(left) else {
                panic!("no {text:?} in {:?}", self.seen);
            };
            self.seen += &String::from_utf8_lossy(&bytes);
        }
    }

    fn send(&self, text: &str) {
        let mut bytes = text.as_bytes();
        while !bytes.is_empty() {
            bytes = &bytes[self.machine.serial_input(bytes)..];
        }
    }

    fn ask(&mut self, command: &str) -> String {
        self.send(&format!("{command}\n"));
        self.expect(PROMPT)
    }

    fn expect_event(&self, wanted: impl Fn(&MachineEvent) -> bool) -> MachineEvent {
        loop {
            let event = self.events.recv_timeout(TIME_LIMIT).unwrap();
            if wanted(&event) {
                return event;
            }
        }
    }

    fn power_off(self) {
        self.send("poweroff\n");
        assert_eq!(self.machine.wait(), MachineEnd::PoweredOff);
    }
}

/// A small file system of its own, gone with the value.
struct SmallHost(PathBuf);

impl SmallHost {
    /// `None` where nothing may be mounted.
    fn mount(folder: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "ferrovirt-test"]);
        let done = mount.arg(folder).output();
        if done.is_ok_and(|done| done.status.success()) {
            return Some(Self(folder.to_owned()));
        }
        eprintln!("skipped: this user may not mount a small file system");
        None
    }

    fn grow(&self) {
        let mut mount = Command::new("mount");
        mount.args(["-o", "remount,size=64m"]);
        assert!(mount.arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallHost {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a_full_host_stops_the_machine_and_room_lets_it_go_on() {
    let Some(guests) = guests() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let Some(host) = SmallHost::mount(folder.path()) else {
        return;
    };
    let path = folder.path().join("disk");
    for bus in [DiskBus::VirtioBlk, DiskBus::VirtioScsi] {
        let mut mount = Command::new("mount");
        mount.args(["-o", "remount,size=4m"]);
        assert!(mount.arg(folder.path()).status().unwrap().success());
        image_file(&path, 16, b"");
        let mut config = config(&guests);
        config.disks = vec![DiskConfig {
            bus,
            error_policy: ErrorPolicy::StopOnEnospc,
            ..disk("data", &path)
        }];
        let device = if bus == DiskBus::VirtioBlk {
            "vda"
        } else {
            "sda"
        };
        let mut guest = Guest::log_in(config);
        guest.send(&format!(
            "tr '\\0' x </dev/zero | dd of=/dev/{device} bs=64k count=128 iflag=fullblock conv=fsync; echo status=$?\n"
        ));
        let stopped = guest.expect_event(|event| matches!(event, MachineEvent::DiskStopped { .. }));
        let MachineEvent::DiskStopped { disk, reason } = stopped else {
            unreachable!()
        };
        assert_eq!(disk, "data");
        assert!(reason.contains("no space left"), "{reason}");
        guest.expect_event(|event| *event == MachineEvent::Paused);
        let stats = guest.machine.stats();
        assert!(stats.disks[0].errors > 0, "{stats:?}");

        // Still no room: it stops again.
        guest.machine.resume().unwrap();
        guest.expect_event(|event| matches!(event, MachineEvent::DiskStopped { .. }));
        guest.expect_event(|event| *event == MachineEvent::Paused);
        host.grow();
        guest.machine.resume().unwrap();
        guest.expect("status=0");
        guest.expect(PROMPT);
        let written = |stats: &MachineStats| stats.disks[0].write_bytes;
        assert!(written(&guest.machine.stats()) >= 8 << 20);
        guest.power_off();
        let mut head = vec![0; 8 << 20];
        File::open(&path).unwrap().read_exact(&mut head).unwrap();
        assert!(head.iter().all(|byte| *byte == b'x'));
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_machine_that_nobody_commands_goes_on_when_there_is_room() {
    let Some(guests) = guests() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let Some(host) = SmallHost::mount(folder.path()) else {
        return;
    };
    let path = folder.path().join("disk");
    image_file(&path, 16, b"");
    let mut config = config(&guests);
    config.disks = vec![DiskConfig {
        error_policy: ErrorPolicy::Stop,
        ..disk("data", &path)
    }];
    let mut guest = Guest::log_in(config);
    let (sender, shown) = channel();
    let machine = guest.machine.clone();
    let watch = std::thread::spawn(move || {
        machine.watch_and_retry(|event| drop(sender.send(event.clone())));
    });
    guest.send(
        "tr '\\0' x </dev/zero | dd of=/dev/vda bs=64k count=128 iflag=fullblock conv=fsync; echo status=$?\n",
    );
    let is_stop = |event: &MachineEvent| matches!(event, MachineEvent::DiskStopped { .. });
    while !is_stop(&shown.recv_timeout(TIME_LIMIT).unwrap()) {}
    // It is tried in vain, which is not shown again.
    while shown.recv_timeout(TIME_LIMIT).unwrap() != MachineEvent::Resumed {}
    host.grow();
    guest.expect("status=0");
    guest.expect(PROMPT);
    guest.power_off();
    watch.join().unwrap();
    assert!(shown.try_iter().filter(is_stop).count() <= 1);
}

#[test]
fn scsi_disks_are_there_in_order_and_a_drive_changes_its_medium() {
    let Some(guests) = guests() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    image_file(&path("a"), 3, b"");
    image_file(&path("b"), 5, b"");
    image_file(&path("c"), 7, b"");
    image_file(&path("medium"), 2, b"the medium");
    let scsi = |name: &str| DiskConfig {
        bus: DiskBus::VirtioScsi,
        serial: Some(format!("serial-{name}")),
        io_thread: Some(1),
        ..disk(name, &path(name))
    };
    let mut config = config(&guests);
    let drive = DiskConfig {
        bus: DiskBus::VirtioScsi,
        kind: DiskKind::Cdrom,
        source: DiskSource::Empty,
        ..disk("drive", &path("none"))
    };
    let blk = DiskConfig {
        io_thread: Some(1),
        ..disk("c", &path("c"))
    };
    config.disks = vec![scsi("a"), drive, blk, scsi("b")];
    let mut guest = Guest::log_in(config);
    // Names of disks are the guest's own affair: it looks at them all at once.
    let size = |target: u8| format!("/sys/bus/scsi/devices/0:0:{target}:0/block/*/size");
    let sizes = format!("cat {} {} /sys/block/vda/size", size(0), size(2));
    let answer = guest.ask(&sizes);
    assert!(answer.contains("6144\r\n10240\r\n14336"), "{answer}");
    let answer = guest.ask("dd if=/dev/sr0 of=/dev/null bs=2048 count=1; echo status=$?");
    assert!(answer.contains("status=1"), "{answer}");

    let medium = || Some(image(&path("medium")));
    guest.machine.change_medium("drive", medium()).unwrap();
    let answer = guest.ask("dd if=/dev/sr0 bs=2048 count=1 2>/dev/null | head -c 10; echo");
    assert!(answer.contains("the medium"), "{answer}");
    assert_eq!(guest.machine.stats().disks[1].capacity_bytes, 2 << 20);
    // The guest's busybox ejects nothing, but its kernel does so when the last user of a drive leaves.
    guest.ask("echo 1 >/proc/sys/dev/cdrom/autoeject; head -c 1 /dev/sr0");
    let ejected = guest.expect_event(|event| matches!(event, MachineEvent::MediumEjected { .. }));
    let disk = "drive".to_owned();
    assert_eq!(ejected, MachineEvent::MediumEjected { disk });
    guest.machine.change_medium("drive", medium()).unwrap();
    guest.machine.change_medium("drive", None).unwrap();
    assert_eq!(guest.machine.stats().disks[1].capacity_bytes, 0);

    for (name, source) in [
        ("a", medium()),
        ("none", medium()),
        ("drive", Some(image(&path("absent")))),
    ] {
        assert!(guest.machine.change_medium(name, source).is_err(), "{name}");
    }
    guest.power_off();
}

#[test]
fn disks_grow_while_the_guest_runs() {
    let Some(guests) = guests() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    image_file(&path("a"), 4, b"");
    image_file(&path("b"), 4, b"");
    let mut config = config(&guests);
    let scsi = DiskConfig {
        bus: DiskBus::VirtioScsi,
        ..disk("b", &path("b"))
    };
    config.disks = vec![disk("a", &path("a")), scsi];
    let mut guest = Guest::log_in(config);
    for name in ["a", "b"] {
        let file = File::options().write(true).open(path(name)).unwrap();
        file.set_len(6 << 20).unwrap();
        assert_eq!(guest.machine.resize_disk(name).unwrap(), 6 << 20);
    }
    let wait = "for i in $(seq 100); do sizes=$(cat /sys/block/[vs]da/size | tr '\\n' ,); [ $sizes = 12288,12288, ] && break; usleep 50000; done; echo $sizes";
    let answer = guest.ask(wait);
    assert!(answer.contains("\n12288,12288,"), "{answer}");
    assert!(guest.machine.resize_disk("none").is_err());
    guest.power_off();
}

#[test]
fn a_port_is_open_for_the_guest_while_a_client_is_there_and_the_other_way_round() {
    let Some(guests) = guests() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let name = "org.example.port".to_owned();
    let mut config = config(&guests);
    config.console_ports = vec![ConsolePortConfig {
        name: name.clone(),
        socket: socket.clone(),
    }];
    let mut guest = Guest::log_in(config);
    guest.ask("mount -t debugfs none /sys/kernel/debug; ls /dev/vport*");
    let connected = "until grep -q 'host_connected: 1' /sys/kernel/debug/virtio-ports/*; do usleep 20000; done; echo is-$((1 + 1))";
    let gone = "until grep -q 'host_connected: 0' /sys/kernel/debug/virtio-ports/*; do usleep 20000; done; echo is-$((1 + 2))";
    assert!(guest.ask(gone).contains("is-3"));
    let mut client = UnixStream::connect(&socket).unwrap();
    assert!(guest.ask(connected).contains("is-2"));

    // Two processes of the guest would not do: a port is one program's at a time.
    guest
        .send("port=/dev/$(ls /sys/class/virtio-ports); exec 3<>$port; head -n 1 <&3; exec 3<&-\n");
    let open = |open| MachineEvent::PortOpened {
        name: name.clone(),
        open,
    };
    guest.expect_event(|event| *event == open(true));
    client.write_all(b"to the guest\n").unwrap();
    guest.expect("to the guest");
    guest.expect_event(|event| *event == open(false));
    guest.expect(PROMPT);
    drop(client);
    assert!(guest.ask(gone).contains("is-3"));
    let _client = UnixStream::connect(&socket).unwrap();
    assert!(guest.ask(connected).contains("is-2"));
    guest.power_off();
}

#[test]
fn the_power_button_reboots_a_guest_without_an_agent() {
    let Some(guests) = guests() else {
        return;
    };
    let mut guest = Guest::log_in(config(&guests));
    guest.machine.reset_on_power_off(true);
    guest.machine.power_button().unwrap();
    guest.expect_event(|event| *event == MachineEvent::Reset(None));
    guest.expect("ferrovirt login: ");
    guest.machine.power_button().unwrap();
    assert_eq!(guest.machine.wait(), MachineEnd::PoweredOff);
}

#[test]
fn a_dump_of_a_linux_guest_holds_what_it_printed() {
    let Some(guests) = guests() else {
        return;
    };
    let mut config = config(&guests);
    config.start_paused = true;
    let mut guest = Guest::start(config);
    guest.expect_event(|event| *event == MachineEvent::Paused);
    assert_eq!(guest.machine.first_instruction(), None);
    guest.machine.resume().unwrap();
    guest.expect("ferrovirt login: ");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("core");
    let len_bytes = guest.machine.dump_memory(&path).unwrap();
    assert!(len_bytes > 256 << 20);
    let core = fs::read(&path).unwrap();
    let banner = b"Linux version ";
    assert!(core.windows(banner.len()).any(|window| window == banner));
    guest.send("root\n");
    guest.expect(PROMPT);
    let vcpu = |stats: &MachineStats| stats.vcpus[0];
    let deadline = Instant::now() + TIME_LIMIT;
    while !vcpu(&guest.machine.stats()).halted {
        assert!(Instant::now() < deadline, "an idle guest halts");
    }
    assert!(guest.machine.stats().memory.resident_bytes > 32 << 20);
    guest.power_off();
}
