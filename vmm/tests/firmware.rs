//! Machines that start with SeaBIOS at the reset vector, on the software CPU.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "an integration test is a test module, its helpers included, and says what it skips"
)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use vmm::config::{
    Accel, BootSource, CpuConfig, DiskBus, DiskConfig, DiskKind, DiskSource, ErrorPolicy, IoMode,
    MachineConfig, MemoryConfig, SmbiosConfig,
};
use vmm::machine::{ConsoleOut, Machine, MachineEnd, MachineHandle, MachineIo};

/// After this something is taken for missing.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Debian's package `seabios` has it here; without it the tests are skipped.
fn firmware() -> Option<PathBuf> {
    let image = std::env::var_os("FERROVIRT_SEABIOS").map_or_else(
        || PathBuf::from("/usr/share/seabios/bios-256k.bin"),
        PathBuf::from,
    );
    if image.is_file() {
        return Some(image);
    }
    eprintln!(
        "skipped: no firmware {}: install the package seabios",
        image.display()
    );
    None
}

/// A boot sector: has the firmware read the next sector of the disk it came from (INT 13h, function 42h), writes the
/// text that is there (INT 10h, function 0eh), waits a few ticks because the firmware sends the last of it then, and
/// switches the machine off.
fn boot_sector() -> [u8; 512] {
    const CODE: &[u8] = &[
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0x8e, 0xc0, // mov es, ax
        0x8e, 0xd0, // mov ss, ax
        0xbc, 0x00, 0x7c, // mov sp, 0x7c00
        0xbe, 0x80, 0x7c, // mov si, packet
        0xb4, 0x42, // mov ah, 0x42
        0xcd, 0x13, // int 0x13
        0xbe, 0x90, 0x7c, // mov si, failed
        0x72, 0x03, // jc next
        0xbe, 0x00, 0x7e, // mov si, 0x7e00
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x09, // jz off
        0xb4, 0x0e, // mov ah, 0x0e
        0xbb, 0x07, 0x00, // mov bx, 7
        0xcd, 0x10, // int 0x10
        0xeb, 0xf2, // jmp next
        0xb9, 0x04, 0x00, // off: mov cx, 4
        0xfb, // sti
        0xf4, // tick: hlt
        0xe2, 0xfd, // loop tick
        0xba, 0x04, 0x06, // mov dx, PM1_CONTROL
        0xb8, 0x00, 0x20, // mov ax, SLP_EN
        0xef, // out dx, ax
        0xf4, // hlt
        0xeb, 0xfd, // jmp to the hlt
    ];
    /// One block, to 0000:7e00, from block 1.
    const PACKET: [u8; 16] = [16, 0, 1, 0, 0, 0x7e, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let mut sector = [0; 512];
    sector[..CODE.len()].copy_from_slice(CODE);
    sector[0x80..0x90].copy_from_slice(&PACKET);
    sector[0x90..0x97].copy_from_slice(b"no disk");
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// A disk whose boot sector writes `text`.
fn talking_disk(path: &Path, text: &str) {
    let file = File::create(path).unwrap();
    file.set_len(4 << 20).unwrap();
    file.write_all_at(&boot_sector(), 0).unwrap();
    file.write_all_at(text.as_bytes(), 512).unwrap();
}

fn disk(name: &str, path: &Path, bus: DiskBus) -> DiskConfig {
    DiskConfig {
        name: name.to_owned(),
        bus,
        kind: DiskKind::Disk,
        source: DiskSource::Image {
            path: path.to_owned(),
            format: Some(block::Format::Raw),
            follow_backing: false,
        },
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

fn config(image: &Path, disks: Vec<DiskConfig>) -> MachineConfig {
    MachineConfig {
        name: "test".to_owned(),
        cpus: CpuConfig {
            sockets: 1,
            cores: 2,
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
        boot: BootSource::Firmware {
            image: image.to_owned(),
        },
        disks,
        console_ports: Vec::new(),
        rng: true,
        pvpanic: true,
        smbios: SmbiosConfig::default(),
        accel: Accel::Soft,
        start_paused: false,
    }
}

/// What came out of a port, for those who wait for it.
#[derive(Clone, Default)]
struct Text(Arc<(Mutex<String>, Condvar)>);

impl ConsoleOut for Text {
    fn write(&mut self, bytes: &[u8]) {
        let (text, changed) = &*self.0;
        *text.lock().unwrap() += &String::from_utf8_lossy(bytes);
        changed.notify_all();
    }
}

impl Text {
    fn now(&self) -> String {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits until `wanted` is in the text; tells whether it came in time.
    fn has(&self, wanted: &str) -> bool {
        let deadline = Instant::now() + TIME_LIMIT;
        let (text, changed) = &*self.0;
        let mut text = text.lock().unwrap();
        while !text.contains(wanted) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            text = changed.wait_timeout(text, left).unwrap().0;
        }
        true
    }
}

struct Guest {
    machine: MachineHandle,
    serial: Text,
    log: Text,
}

impl Guest {
    fn start(config: MachineConfig) -> Self {
        let (serial, log) = (Text::default(), Text::default());
        let io = MachineIo {
            serial_out: Box::new(serial.clone()),
            serial_room: None,
            debug_out: Box::new(log.clone()),
        };
        let machine = Machine::start(config, io).unwrap();
        Self {
            machine,
            serial,
            log,
        }
    }

    fn send(&self, text: &str) {
        let mut bytes = text.as_bytes();
        while !bytes.is_empty() {
            bytes = &bytes[self.machine.serial_input(bytes)..];
        }
    }

    #[track_caller]
    fn expect(&self, text: &str) {
        assert!(
            self.serial.has(text),
            "no {text:?} in {:?}; the firmware's log: {}",
            self.serial.now(),
            self.log.now()
        );
    }
}

#[test]
fn a_boot_sector_reads_its_disk_through_the_firmware() {
    let Some(image) = firmware() else {
        return;
    };
    for bus in [DiskBus::VirtioBlk, DiskBus::VirtioScsi] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        talking_disk(&path, "the second sector\r\n");
        let guest = Guest::start(config(&image, vec![disk("disk", &path, bus)]));
        guest.expect("the second sector");
        assert_eq!(guest.machine.wait(), MachineEnd::PoweredOff);
        let log = guest.log.now();
        for wanted in ["2 cpu(s)", "ACPI: parse DSDT", "Copying SMBIOS"] {
            assert!(log.contains(wanted), "no {wanted:?} in {log}");
        }
    }
}

#[test]
fn the_disk_with_the_lowest_number_is_booted() {
    let Some(image) = firmware() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let named = |name: &str, bus| {
        talking_disk(&path(name), &format!("this is {name}\r\n"));
        disk(name, &path(name), bus)
    };
    let mut disks = vec![
        named("one", DiskBus::VirtioBlk),
        named("two", DiskBus::VirtioScsi),
        named("three", DiskBus::VirtioScsi),
    ];
    for (numbers, first) in [
        ([None, None, None], "one"),
        ([None, None, Some(7)], "three"),
        ([Some(3), Some(2), None], "two"),
    ] {
        for (disk, number) in disks.iter_mut().zip(numbers) {
            disk.boot_order = number;
        }
        let guest = Guest::start(config(&image, disks.clone()));
        guest.expect(&format!("this is {first}"));
        assert_eq!(guest.machine.wait(), MachineEnd::PoweredOff);
    }
}

const GRUB: &str = "/usr/lib/grub/i386-pc";
const GRUB_CONFIG: &str = "serial --unit=0\nterminal_output serial\nlinux /vmlinuz console=ttyS0 quiet\n\
    initrd /initrd\nboot\n";
const SECTOR_BYTES: u64 = 512;
const PARTITION_SECTOR: u32 = 2048;
const PARTITION_MIB: u32 = 40;

/// The folder of `make images`; without it, or without GRUB, the tests are skipped.
fn guests() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests");
    let folder = std::env::var_os("FERROVIRT_GUESTS").map_or_else(beside, PathBuf::from);
    if !folder.join(".stamp").is_file() {
        eprintln!(
            "skipped: no guests in {}: run `make images`",
            folder.display()
        );
        return None;
    }
    let can_make = |tool: &str| Command::new(tool).arg("-V").output().is_ok();
    if !Path::new(GRUB).is_dir() || !can_make("grub-mkimage") || !can_make("mke2fs") {
        eprintln!("skipped: no GRUB: install the packages grub-pc-bin, grub-common and e2fsprogs");
        return None;
    }
    Some(folder)
}

#[track_caller]
fn run(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {done:?}");
}

/// A disk as an installer leaves it: GRUB in the boot sector and behind it, and one partition with a kernel.
fn grub_disk(folder: &Path, guests: &Path) -> PathBuf {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("boot/grub")).unwrap();
    fs::write(tree.join("boot/grub/grub.cfg"), GRUB_CONFIG).unwrap();
    for name in ["vmlinuz", "initrd"] {
        fs::copy(guests.join(name), tree.join(name)).unwrap();
    }
    let core = folder.join("core.img");
    let mut make = Command::new("grub-mkimage");
    make.args(["-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o"]);
    make.arg(&core);
    make.args([
        "biosdisk",
        "part_msdos",
        "ext2",
        "linux",
        "normal",
        "serial",
        "terminal",
    ]);
    run(&mut make);
    let partition = folder.join("partition");
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-t", "ext2", "-d"]).arg(&tree);
    run(make.arg(&partition).arg(format!("{PARTITION_MIB}M")));

    let path = folder.join("disk");
    let disk = File::create(&path).unwrap();
    let partition = fs::read(partition).unwrap();
    let at = u64::from(PARTITION_SECTOR) * SECTOR_BYTES;
    disk.write_all_at(&partition, at).unwrap();
    disk.write_all_at(&grub_boot_sector(), 0).unwrap();
    // The first sector of the core is the next one, which is what the boot sector says as it comes.
    let core = fs::read(core).unwrap();
    assert!(u64::try_from(core.len()).unwrap() < at - SECTOR_BYTES);
    disk.write_all_at(&core, SECTOR_BYTES).unwrap();
    path
}

/// GRUB's boot sector with a table of one bootable Linux partition.
fn grub_boot_sector() -> Vec<u8> {
    let mut sector = fs::read(Path::new(GRUB).join("boot.img")).unwrap();
    let sectors = PARTITION_MIB << 11;
    let mut entry = vec![0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff];
    entry.extend(PARTITION_SECTOR.to_le_bytes());
    entry.extend(sectors.to_le_bytes());
    sector[0x1be..0x1ce].copy_from_slice(&entry);
    // What it has for floppy disks takes the place of the other partitions.
    sector[0x1ce..510].fill(0);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[test]
fn a_disk_with_a_boot_loader_boots_debian_to_its_login() {
    let (Some(image), Some(guests)) = (firmware(), guests()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = grub_disk(folder.path(), &guests);
    for bus in [DiskBus::VirtioBlk, DiskBus::VirtioScsi] {
        let mut config = config(&image, vec![disk("disk", &path, bus)]);
        config.smbios.product = "Firmware Test".to_owned();
        let guest = Guest::start(config);
        guest.expect("ferrovirt login: ");
        guest.send("root\n");
        guest.expect("~# ");
        guest.send("cat /sys/class/dmi/id/product_name; ls /sys/firmware/acpi/tables; nproc\n");
        guest.expect("Firmware Test\r\n");
        guest.expect("DSDT");
        guest.expect("\r\n2\r\n");
        guest.send("poweroff\n");
        assert_eq!(guest.machine.wait(), MachineEnd::PoweredOff);
    }
}
