//! The serial console of a guest on a node: its socket in the launcher's pod.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time for a guest to boot on a host that is busy with others.
const BOOT: Duration = Duration::from_secs(60);
/// Time for what a guest does at once.
const SOON: Duration = Duration::from_secs(20);
/// Text that is shown when an expectation fails.
const TAIL_BYTES: usize = 2000;

/// A connection to a guest's console. What the guest said before it is not seen.
#[derive(Debug)]
pub struct GuestConsole {
    stream: UnixStream,
    seen: Vec<u8>,
    matched: usize,
    commands: u32,
}

impl GuestConsole {
    /// Connects to the console in a folder.
    pub(super) fn connect(folder: &Path) -> io::Result<Self> {
        // The folder's path is too long for a socket's.
        let folder = File::open(folder)?;
        let short = format!("/proc/self/fd/{}/virt-serial0", folder.as_raw_fd());
        Ok(Self {
            stream: UnixStream::connect(short)?,
            seen: Vec::new(),
            matched: 0,
            commands: 0,
        })
    }

    /// Types text.
    ///
    /// # Panics
    ///
    /// When the console is closed.
    pub fn send(&mut self, text: &str) {
        let sent = self.stream.write_all(text.as_bytes());
        sent.expect("type at the guest's console");
    }

    /// Reads until a text comes, and returns what came after the text before up to its end.
    ///
    /// # Panics
    ///
    /// When it does not come in time, or the console closes.
    pub fn expect(&mut self, wanted: &str, within: Duration) -> String {
        let deadline = Instant::now() + within;
        loop {
            let rest = &self.seen[self.matched..];
            let mut windows = rest.windows(wanted.len());
            if let Some(at) = windows.position(|window| window == wanted.as_bytes()) {
                let end = at + wanted.len();
                let text = String::from_utf8_lossy(&rest[..end]).into_owned();
                self.matched += end;
                return text;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let taken = self.take(left);
            assert!(
                taken,
                "{wanted:?} did not come within {within:?}; the console ends with:\n{}",
                self.tail()
            );
        }
    }

    /// Whether the guest says anything in that time.
    #[must_use]
    pub fn says_something(&mut self, within: Duration) -> bool {
        self.take(within)
    }

    /// Takes in what comes; false when nothing does, or the console is closed.
    fn take(&mut self, within: Duration) -> bool {
        let within = within.max(Duration::from_millis(1));
        let mut chunk = [0; 16 << 10];
        let timed = self.stream.set_read_timeout(Some(within));
        timed.expect("set a deadline for reading");
        let length = self.stream.read(&mut chunk).unwrap_or(0);
        self.seen.extend_from_slice(&chunk[..length]);
        length > 0
    }

    fn tail(&self) -> String {
        let from = self.seen.len().saturating_sub(TAIL_BYTES);
        String::from_utf8_lossy(&self.seen[from..]).into_owned()
    }

    /// Logs in once the guest has booted, and waits for the shell.
    ///
    /// # Panics
    ///
    /// When the guest shows no prompt.
    pub fn log_in(&mut self) {
        // A prompt that was shown before is shown anew.
        self.send("\n");
        self.expect("login: ", BOOT);
        self.send("root\n");
        self.expect("# ", SOON);
    }

    /// Runs a command in the guest's shell and returns what it printed.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    pub fn run(&mut self, command: &str) -> String {
        self.commands += 1;
        let number = self.commands;
        // The shell's echo has the words apart.
        self.send(&format!("{command}; echo end\"\"of-{number}-\n"));
        let end = format!("endof-{number}-");
        let text = self.expect(&end, SOON);
        let printed = text.split_once('\n').map_or("", |(_echo, printed)| printed);
        printed.trim_end_matches(end.as_str()).replace('\r', "")
    }

    /// Starts to count in the guest's shell, ten times a second, from one.
    pub fn start_counting(&mut self) {
        self.send("n=0; while usleep 100000; do n=$((n+1)); echo count-$n-; done\n");
    }

    /// Reads on to the next number that the guest counts.
    ///
    /// # Panics
    ///
    /// When the guest doesn't count on.
    pub fn next_count(&mut self) -> u64 {
        loop {
            self.expect("count-", SOON);
            let text = self.expect("-", SOON);
            if let Ok(number) = text.trim_end_matches('-').parse() {
                return number;
            }
        }
    }
}
