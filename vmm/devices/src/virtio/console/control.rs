//! Control messages (virtio 1.3 §5.3.6.2).

pub(super) const DEVICE_READY: u16 = 0;
pub(super) const PORT_ADD: u16 = 1;
pub(super) const PORT_READY: u16 = 3;
pub(super) const CONSOLE_PORT: u16 = 4;
pub(super) const RESIZE: u16 = 5;
pub(super) const PORT_OPEN: u16 = 6;
pub(super) const PORT_NAME: u16 = 7;

/// Length of a message without what follows some of them.
pub(super) const MESSAGE_BYTES: usize = 8;

/// `struct virtio_console_control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) port: u32,
    pub(super) event: u16,
    pub(super) value: u16,
}

impl Message {
    pub(super) fn from_bytes(bytes: [u8; MESSAGE_BYTES]) -> Self {
        let [p0, p1, p2, p3, e0, e1, v0, v1] = bytes;
        Self {
            port: u32::from_le_bytes([p0, p1, p2, p3]),
            event: u16::from_le_bytes([e0, e1]),
            value: u16::from_le_bytes([v0, v1]),
        }
    }

    /// Returns the message with what follows it.
    pub(super) fn to_bytes(self, tail: &[u8]) -> Vec<u8> {
        let mut bytes = self.port.to_le_bytes().to_vec();
        bytes.extend(self.event.to_le_bytes());
        bytes.extend(self.value.to_le_bytes());
        bytes.extend(tail);
        bytes
    }
}

/// What the driver is yet to be told of a port: a set, so that a driver that asks again and again
/// without reading the answers makes nothing grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Untold(u8);

impl Untold {
    /// The announcements in the order in which they are made.
    pub(super) const ORDER: [u16; 5] = [PORT_ADD, CONSOLE_PORT, PORT_NAME, RESIZE, PORT_OPEN];

    pub(super) fn add(&mut self, event: u16) {
        self.0 |= 1 << event;
    }

    pub(super) fn remove(&mut self, event: u16) {
        self.0 &= !(1 << event);
    }

    /// Returns what is to be told next.
    pub(super) fn next(self) -> Option<u16> {
        let is_untold = |event: &u16| self.0 & 1 << event != 0;
        Self::ORDER.into_iter().find(is_untold)
    }

    pub(super) fn bits(self) -> u8 {
        self.0
    }

    /// Takes a saved set, if it is one.
    pub(super) fn from_bits(bits: u8) -> Option<Self> {
        let known = Self::ORDER
            .iter()
            .fold(0, |known, event| known | 1 << event);
        (bits & !known == 0).then_some(Self(bits))
    }
}
