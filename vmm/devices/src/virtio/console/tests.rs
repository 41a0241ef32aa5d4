use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::control::{
    CONSOLE_PORT, DEVICE_READY, PORT_ADD, PORT_NAME, PORT_OPEN, PORT_READY, RESIZE,
};
use super::{Console, ConsoleError, PortOptions};
use crate::lifecycle::Device;
use crate::uart::ConsoleOut;
use crate::virtio::driver::{BUFFERS_GPA, Driver, DriverQueue, readable, writable};

const F_MULTIPORT: u64 = 1 << 1;
const PATIENCE: Duration = Duration::from_secs(20);
const CONTROL_BUFFER_BYTES: u32 = 64;
const CONTROL_GPA: u64 = BUFFERS_GPA;
const MESSAGE_GPA: u64 = BUFFERS_GPA + 0x1000;
const DATA_GPA: u64 = BUFFERS_GPA + 0x1_0000;

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl ConsoleOut for Screen {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().extend(bytes);
    }
}

impl Screen {
    fn text(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

/// A console with its driver, which keeps sixteen buffers in the control receive queue.
struct Terminal {
    folder: TempDir,
    driver: Driver,
    queues: Vec<DriverQueue>,
    screen: Screen,
    console: Arc<Console>,
}

fn ports(folder: &Path, names: &[&str]) -> Vec<PortOptions> {
    let port = |name: &&str| PortOptions::new(name, &folder.join(name));
    names.iter().map(port).collect()
}

fn console(folder: &Path, names: &[&str]) -> (Arc<Console>, Screen) {
    let screen = Screen::default();
    let main: Box<dyn ConsoleOut> = Box::new(screen.clone());
    let console = Console::new(Some(main), &ports(folder, names)).unwrap();
    (Arc::new(console), screen)
}

impl Terminal {
    fn new(names: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let (console, screen) = console(folder.path(), names);
        let driver = Driver::new(Arc::clone(&console) as Arc<_>);
        let sizes = vec![16; 2 * (names.len() + 2)];
        let queues = driver.start(0, &sizes);
        let mut terminal = Self {
            folder,
            driver,
            queues,
            screen,
            console,
        };
        for slot in 0..16 {
            terminal.offer_control_buffer(slot);
        }
        terminal
    }

    /// Brings every port up and drops the announcements.
    fn ready(names: &[&str]) -> Self {
        let mut terminal = Self::new(names);
        terminal.say(0, DEVICE_READY, 1);
        for _ in 0..=names.len() {
            assert_eq!(terminal.hear().1, PORT_ADD);
        }
        for port in 0..=u32::try_from(names.len()).unwrap() {
            terminal.say(port, PORT_READY, 1);
            assert_eq!(
                terminal.hear().1,
                if port == 0 { CONSOLE_PORT } else { PORT_NAME }
            );
            assert_eq!(terminal.hear().1, PORT_OPEN);
        }
        terminal
    }

    fn offer_control_buffer(&mut self, slot: u16) {
        let gpa = CONTROL_GPA + u64::from(slot) * u64::from(CONTROL_BUFFER_BYTES);
        self.queues[2].submit(&self.driver, &[writable(gpa, CONTROL_BUFFER_BYTES)]);
    }

    /// Waits for a control message: port, event, value and what follows.
    fn hear(&mut self) -> (u32, u16, u16, Vec<u8>) {
        let (slot, len) = self.queues[2].wait_used(&self.driver);
        let gpa = CONTROL_GPA + u64::from(slot) * u64::from(CONTROL_BUFFER_BYTES);
        let bytes = self.driver.bytes(gpa, usize::try_from(len).unwrap());
        self.offer_control_buffer(slot);
        let [p0, p1, p2, p3, e0, e1, v0, v1, tail @ ..] = bytes.as_slice() else {
            panic!("short message {bytes:?}");
        };
        let port = u32::from_le_bytes([*p0, *p1, *p2, *p3]);
        let event = u16::from_le_bytes([*e0, *e1]);
        (port, event, u16::from_le_bytes([*v0, *v1]), tail.to_vec())
    }

    fn say(&mut self, port: u32, event: u16, value: u16) {
        let mut message = port.to_le_bytes().to_vec();
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        self.driver.put(MESSAGE_GPA, &message);
        self.queues[3].ask(&self.driver, &[readable(MESSAGE_GPA, 8)]);
    }

    fn connect(&self, name: &str) -> UnixStream {
        let stream = UnixStream::connect(self.folder.path().join(name)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn write(&mut self, queue: usize, bytes: &[u8]) {
        self.driver.put(DATA_GPA, bytes);
        let len = u32::try_from(bytes.len()).unwrap();
        self.queues[queue].ask(&self.driver, &[readable(DATA_GPA, len)]);
    }

    fn read(&mut self, queue: usize, len: u32) -> Vec<u8> {
        let got = self.queues[queue].ask(&self.driver, &[writable(DATA_GPA, len)]);
        self.driver.bytes(DATA_GPA, usize::try_from(got).unwrap())
    }
}

#[test]
fn ports_are_announced_with_their_names() {
    let mut terminal = Terminal::new(&["org.qemu.guest_agent.0", "log"]);
    assert_eq!(
        terminal.driver.device_config::<4>(4),
        3u32.to_le_bytes(),
        "max_nr_ports"
    );
    terminal.say(0, DEVICE_READY, 1);
    for port in 0..3 {
        assert_eq!(terminal.hear(), (port, PORT_ADD, 1, vec![]));
    }
    terminal.say(2, PORT_READY, 1);
    assert_eq!(terminal.hear(), (2, PORT_NAME, 1, b"log".to_vec()));
    assert_eq!(terminal.hear(), (2, PORT_OPEN, 0, vec![]));
    terminal.say(0, PORT_READY, 1);
    assert_eq!(terminal.hear(), (0, CONSOLE_PORT, 1, vec![]));
    assert_eq!(terminal.hear(), (0, PORT_OPEN, 1, vec![]));
    terminal.say(1, PORT_READY, 1);
    assert_eq!(
        terminal.hear(),
        (1, PORT_NAME, 1, b"org.qemu.guest_agent.0".to_vec())
    );
}

#[test]
fn bytes_go_both_ways_and_clients_come_back() {
    let mut terminal = Terminal::ready(&["agent"]);
    terminal.say(1, PORT_OPEN, 1);
    for round in 0..3u8 {
        let mut client = terminal.connect("agent");
        assert_eq!(terminal.hear(), (1, PORT_OPEN, 1, vec![]));
        client.write_all(&[b'a' + round; 5]).unwrap();
        assert_eq!(terminal.read(4, 64), [b'a' + round; 5]);
        terminal.write(5, b"answer");
        let mut answer = [0; 6];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
        drop(client);
        assert_eq!(terminal.hear(), (1, PORT_OPEN, 0, vec![]));
        terminal.write(5, b"nobody hears this");
    }
}

#[test]
fn the_owner_learns_when_the_guest_opens_and_closes_a_port() {
    let folder = TempDir::new().unwrap();
    let (sender, seen) = channel();
    let options = PortOptions {
        on_port: Arc::new(move |name, open| sender.send((name.to_owned(), open)).unwrap()),
        ..PortOptions::new("agent", &folder.path().join("agent"))
    };
    let console = Arc::new(Console::new(None, &[options]).unwrap());
    let driver = Driver::new(Arc::clone(&console) as Arc<_>);
    let queues = driver.start(0, &[16; 6]);
    let screen = Screen::default();
    let mut terminal = Terminal {
        folder,
        driver,
        queues,
        screen,
        console,
    };
    let agent = |open| ("agent".to_owned(), open);
    for open in [1, 1, 0, 1] {
        terminal.say(1, PORT_OPEN, open);
    }
    for open in [true, false, true] {
        assert_eq!(seen.recv_timeout(PATIENCE), Ok(agent(open)));
    }
    terminal.driver.set_status(0);
    assert_eq!(seen.recv_timeout(PATIENCE), Ok(agent(false)));
    assert!(seen.try_recv().is_err(), "each change is told once");
}

#[test]
fn what_a_client_sends_waits_for_the_guest() {
    let mut terminal = Terminal::ready(&["agent"]);
    let mut client = terminal.connect("agent");
    assert_eq!(terminal.hear(), (1, PORT_OPEN, 1, vec![]));
    client.write_all(b"early").unwrap();
    drop(client);
    assert_eq!(terminal.hear(), (1, PORT_OPEN, 0, vec![]));
    terminal.say(1, PORT_OPEN, 1);
    assert_eq!(terminal.read(4, 3), b"ear");
    assert_eq!(terminal.read(4, 64), b"ly");
}

#[test]
fn a_slow_client_holds_the_guest_back_and_loses_nothing() {
    const ROUNDS: usize = 12;
    const CHUNK: usize = 100_000;
    let mut terminal = Terminal::ready(&["agent"]);
    let mut client = terminal.connect("agent");
    assert_eq!(terminal.hear(), (1, PORT_OPEN, 1, vec![]));
    let expected: Vec<u8> = (0..ROUNDS * CHUNK)
        .map(|at| u8::try_from(at * 31 % 251).unwrap())
        .collect();
    terminal.driver.put(DATA_GPA, &expected);
    let chain = |round: usize| {
        let gpa = DATA_GPA + u64::try_from(round * CHUNK).unwrap();
        [readable(gpa, u32::try_from(CHUNK).unwrap())]
    };
    for round in 0..ROUNDS {
        terminal.queues[5].submit(&terminal.driver, &chain(round));
    }
    terminal.driver.pci.pause();
    let used = terminal.queues[5].used_idx(&terminal.driver);
    assert!(usize::from(used) < ROUNDS, "the socket cannot hold it all");
    terminal.driver.pci.resume();
    let mut got = vec![0; expected.len()];
    client.read_exact(&mut got).unwrap();
    assert!(got == expected, "bytes differ");
    for _ in 0..ROUNDS {
        terminal.queues[5].wait_used(&terminal.driver);
    }
}

#[test]
fn port_0_belongs_to_the_process() {
    let mut terminal = Terminal::ready(&[]);
    terminal.write(1, b"login: ");
    assert_eq!(terminal.screen.text(), b"login: ");
    let handle = terminal.console.handle();
    assert_eq!(handle.send(&[b'x'; 70_000]), 65_536, "input is bounded");
    assert_eq!(handle.send(b"y"), 0);
    terminal.say(0, PORT_OPEN, 1);
    assert_eq!(terminal.read(0, 4), b"xxxx");
    assert_eq!(handle.send(b"yyyyy"), 4);
    handle.resize(132, 43);
    assert_eq!(terminal.hear(), (0, RESIZE, 0, vec![132, 0, 43, 0]));
    assert_eq!(terminal.driver.device_config::<4>(0), [132, 0, 43, 0]);
}

#[test]
fn a_driver_of_one_port_gets_port_0() {
    let folder = TempDir::new().unwrap();
    let (console, screen) = console(folder.path(), &["agent"]);
    let driver = Driver::new(Arc::clone(&console) as Arc<_>);
    let mut queues = driver.start(F_MULTIPORT, &[16, 16]);
    driver.put(DATA_GPA, b"hello");
    queues[1].ask(&driver, &[readable(DATA_GPA, 5)]);
    assert_eq!(screen.text(), b"hello");
    console.handle().send(b"hi");
    assert_eq!(queues[0].ask(&driver, &[writable(DATA_GPA, 64)]), 2);
}

#[test]
fn odd_control_messages_change_nothing() {
    let mut terminal = Terminal::ready(&["agent"]);
    let driver = &terminal.driver;
    driver.put(MESSAGE_GPA, &[0xff; 8]);
    terminal.queues[3].ask(driver, &[readable(MESSAGE_GPA, 7)]);
    terminal.queues[3].ask(driver, &[writable(MESSAGE_GPA + 64, 8)]);
    terminal.say(u32::MAX, PORT_OPEN, 1);
    terminal.say(2, PORT_READY, 1);
    terminal.say(1, 99, 1);
    terminal.say(1, PORT_READY, 0);
    terminal.say(1, PORT_READY, 1);
    assert_eq!(terminal.hear().1, PORT_NAME);
    assert_eq!(terminal.hear().1, PORT_OPEN);
}

#[test]
fn a_driver_that_does_not_listen_makes_nothing_grow() {
    let folder = TempDir::new().unwrap();
    let (console, _screen) = console(folder.path(), &["agent"]);
    let driver = Driver::new(console);
    let queues = driver.start(0, &[16; 6]);
    let mut terminal_queues = queues;
    let ready: Vec<u8> = [0, 0, 0, 0, 0, 0, 1, 0].to_vec();
    driver.put(MESSAGE_GPA, &ready);
    for _ in 0..1000 {
        terminal_queues[3].ask(&driver, &[readable(MESSAGE_GPA, 8)]);
    }
    for (slot, len) in [(0, 4), (1, 0), (2, 64), (3, 64), (4, 64)] {
        let gpa = CONTROL_GPA + slot * 64;
        terminal_queues[2].submit(&driver, &[writable(gpa, len)]);
    }
    let lengths: Vec<u32> = (0..4)
        .map(|_| terminal_queues[2].wait_used(&driver).1)
        .collect();
    assert_eq!(lengths, [0, 0, 8, 8], "too small buffers come back empty");
    driver.pci.pause();
    assert_eq!(
        terminal_queues[2].take_used(&driver),
        None,
        "told once, however often asked"
    );
}

#[test]
fn a_restored_guest_learns_that_its_client_is_not_here() {
    let mut terminal = Terminal::ready(&["agent"]);
    terminal.say(1, PORT_OPEN, 1);
    let _client = terminal.connect("agent");
    assert_eq!(terminal.hear(), (1, PORT_OPEN, 1, vec![]));
    terminal.driver.pci.pause();
    let saved = terminal.driver.pci.save().unwrap();
    let folder = TempDir::new().unwrap();
    let (target, _screen) = console(folder.path(), &["agent"]);
    let driver = Driver::with_memory(target, terminal.driver.memory.clone());
    driver.pci.pause();
    driver.pci.restore(&saved).unwrap();
    assert_eq!(driver.pci.save().unwrap(), saved);
    driver.pci.resume();
    let source = std::mem::replace(&mut terminal.driver, driver);
    assert_eq!(terminal.hear(), (1, PORT_OPEN, 0, vec![]));
    terminal.folder = folder;
    let mut client = terminal.connect("agent");
    assert_eq!(terminal.hear(), (1, PORT_OPEN, 1, vec![]));
    client.write_all(b"again").unwrap();
    assert_eq!(terminal.read(4, 64), b"again");
    let mut bad = saved;
    bad.data["workers"][0]["ports"][0]["id"] = 7.into();
    assert!(source.pci.restore(&bad).is_err());
}

#[test]
fn sockets_are_removed_and_stale_ones_replaced() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("agent");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (first, _screen) = console(folder.path(), &["agent"]);
    let taken = Console::new(None, &ports(folder.path(), &["agent"]));
    assert!(
        matches!(taken, Err(ConsoleError::Listen { .. })),
        "it is in use"
    );
    drop(first);
    assert!(!path.exists());
    std::fs::write(&path, b"a file").unwrap();
    let taken = Console::new(None, &ports(folder.path(), &["agent"]));
    assert!(matches!(taken, Err(ConsoleError::Listen { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
}

#[test]
fn ports_that_cannot_be_are_refused() {
    let folder = TempDir::new().unwrap();
    let build = |names: &[&str]| Console::new(None, &ports(folder.path(), names)).map(drop);
    assert!(matches!(build(&["a", "a"]), Err(ConsoleError::Name { .. })));
    assert!(matches!(build(&[""]), Err(ConsoleError::Name { .. })));
    assert!(matches!(
        build(&[&"n".repeat(256)]),
        Err(ConsoleError::Name { .. })
    ));
    assert!(matches!(
        build(&["p"; 32]),
        Err(ConsoleError::TooManyPorts { count: 32 })
    ));
}
