//! Debug ports: firmware log at 0x402, Bochs console at 0xe9, progress codes at 0x80.

use std::sync::Arc;

use crate::bus::PortIo;
use crate::lifecycle::{Device, RestoreError, SaveError, SavedDevice};
use crate::lock::Lock;
use crate::uart::ConsoleOut;

/// Port of the firmware's log.
pub const FIRMWARE_LOG: u16 = 0x402;
/// Port of the Bochs debug console.
pub const CONSOLE: u16 = 0xe9;
/// Port of the progress (POST) codes.
pub const PROGRESS: u16 = 0x80;

const KIND: &str = "debug-ports";
const VERSION: u32 = 1;
/// What a present debug console reads as.
const PRESENT: u8 = 0xe9;

/// Takes progress codes: firmware and benchmarks mark where they are. Must not block.
pub trait ProgressSink: Send + Sync {
    /// Takes one code.
    fn progress(&self, code: u8);
}

/// The three debug ports; they hold no state.
pub struct DebugPorts {
    out: Lock<Box<dyn ConsoleOut>>,
    progress: Arc<dyn ProgressSink>,
}

impl DebugPorts {
    /// Makes the ports; both logs go to `out`.
    pub fn new(out: Box<dyn ConsoleOut>, progress: Arc<dyn ProgressSink>) -> Self {
        Self {
            out: Lock::new(out),
            progress,
        }
    }
}

impl PortIo for DebugPorts {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(if port == PROGRESS { 0 } else { PRESENT });
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        match data.first() {
            Some(code) if port == PROGRESS => self.progress.progress(*code),
            _ => self.out.get().write(data),
        }
    }
}

impl Device for DebugPorts {
    fn name(&self) -> &'static str {
        "debug-ports"
    }

    fn reset(&self) {}

    fn save(&self) -> Result<SavedDevice, SaveError> {
        SavedDevice::new(KIND, VERSION, &())
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        saved.open(KIND, VERSION)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::{CONSOLE, DebugPorts, FIRMWARE_LOG, PROGRESS, ProgressSink};
    use crate::bus::PortIo;
    use crate::uart::ConsoleOut;

    #[derive(Clone, Default)]
    struct Record(Arc<Mutex<Vec<u8>>>);

    impl ConsoleOut for Record {
        fn write(&mut self, bytes: &[u8]) {
            self.0.lock().unwrap().extend(bytes);
        }
    }

    impl ProgressSink for Record {
        fn progress(&self, code: u8) {
            self.0.lock().unwrap().push(code);
        }
    }

    #[test]
    fn logs_and_codes_go_their_ways() {
        let (log, codes) = (Record::default(), Record::default());
        let ports = DebugPorts::new(Box::new(log.clone()), Arc::new(codes.clone()));
        ports.port_write(FIRMWARE_LOG, b"S");
        ports.port_write(CONSOLE, b"B");
        ports.port_write(PROGRESS, &[0x41]);
        assert_eq!(*log.0.lock().unwrap(), b"SB");
        assert_eq!(*codes.0.lock().unwrap(), [0x41]);
        let mut data = [0];
        ports.port_read(FIRMWARE_LOG, &mut data);
        assert_eq!(data, [0xe9]);
    }
}
