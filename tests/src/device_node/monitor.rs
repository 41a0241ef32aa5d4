//! QEMU's monitor protocol (QMP).

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::line::Line;

/// Time for a command, and for a device to be gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the monitor.
pub struct Monitor {
    line: Line,
    /// Devices that are gone, as events told.
    deleted: Vec<String>,
}

impl Monitor {
    /// Connects, and says that no more than the basics is understood.
    ///
    /// # Errors
    ///
    /// When QEMU does not answer.
    pub fn connect(socket: &Path, patience: Duration) -> io::Result<Self> {
        let mut monitor = Self {
            line: Line::connect(socket, patience)?,
            deleted: Vec::new(),
        };
        monitor.line.receive::<Value>(patience)?;
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Executes a command and returns its answer.
    ///
    /// # Errors
    ///
    /// QEMU's error.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> io::Result<Value> {
        let command = json!({"execute": command, "arguments": arguments});
        self.line.send(&command)?;
        loop {
            let mut message: Value = self.line.receive(PATIENCE)?;
            if message.get("return").is_some() {
                return Ok(message["return"].take());
            }
            if let Some(reason) = message["error"]["desc"].as_str() {
                return Err(io::Error::other(reason));
            }
            self.note(&message);
        }
    }

    /// Waits until a device that was to be deleted is gone.
    ///
    /// # Errors
    ///
    /// When it is not in time.
    pub fn wait_until_deleted(&mut self, device: &str) -> io::Result<()> {
        loop {
            if let Some(at) = self.deleted.iter().position(|name| name == device) {
                self.deleted.remove(at);
                return Ok(());
            }
            let message: Value = self.line.receive(PATIENCE)?;
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let device = message["data"]["device"].as_str();
        if let Some(device) = device.filter(|_| message["event"] == "DEVICE_DELETED") {
            self.deleted.push(device.to_owned());
        }
    }
}
