//! A terminal with nobody in front of it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::line::PATIENCE;

/// Both ends of a terminal.
pub(crate) struct PseudoTerminal {
    /// Where a person would type.
    keys: File,
    /// What programs have.
    terminal: File,
    screen: mpsc::UnboundedReceiver<Vec<u8>>,
    shown: String,
}

impl PseudoTerminal {
    pub(crate) fn open() -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
        let terminal = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name)
            .unwrap();
        let keys = File::from(person);
        let mut reader = keys.try_clone().unwrap();
        let (sender, screen) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(len @ 1..) = reader.read(&mut chunk) {
                if sender.send(chunk[..len].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            keys,
            terminal,
            screen,
            shown: String::new(),
        }
    }

    /// Starts a program in the terminal.
    pub(crate) fn spawn(&self, mut command: Command) -> Child {
        let stdio = || Stdio::from(self.terminal.try_clone().unwrap());
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        command.spawn().unwrap()
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until something new is shown.
    pub(crate) async fn wait_for(&mut self, text: &str) {
        while !self.shown.contains(text) {
            let bytes = timeout(PATIENCE, self.screen.recv()).await;
            let bytes = bytes.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.shown));
            self.shown += &String::from_utf8_lossy(&bytes.unwrap());
        }
        let end = self.shown.find(text).unwrap() + text.len();
        self.shown.drain(..end);
    }

    pub(crate) fn modes(&self) -> Termios {
        tcgetattr(self.terminal.as_fd()).unwrap()
    }

    /// Whether keys go to the program as they are.
    pub(crate) fn is_raw(&self) -> bool {
        let modes = self.modes().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

/// Asserts that a terminal is what it was.
pub(crate) fn assert_same(before: &Termios, after: &Termios) {
    assert_eq!(before.local_modes, after.local_modes);
    assert_eq!(before.input_modes, after.input_modes);
    assert_eq!(before.output_modes, after.output_modes);
    assert_eq!(before.control_modes, after.control_modes);
}
