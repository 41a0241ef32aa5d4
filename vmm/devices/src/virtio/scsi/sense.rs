//! Sense data (SPC-4 §4.5).

use serde::{Deserialize, Serialize};

/// Why a command ends with CHECK CONDITION: sense key, additional sense code and its qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sense {
    pub(super) key: u8,
    pub(super) asc: u8,
    pub(super) ascq: u8,
}

const fn sense(key: u8, asc: u8, ascq: u8) -> Sense {
    Sense { key, asc, ascq }
}

impl Sense {
    pub(super) const NONE: Self = sense(0, 0, 0);
    pub(super) const NOT_PRESENT_CLOSED: Self = sense(2, 0x3a, 1);
    pub(super) const NOT_PRESENT_OPEN: Self = sense(2, 0x3a, 2);
    pub(super) const WRITE_ERROR: Self = sense(3, 0x0c, 0);
    pub(super) const READ_ERROR: Self = sense(3, 0x11, 0);
    pub(super) const INVALID_OPCODE: Self = sense(5, 0x20, 0);
    pub(super) const OUT_OF_RANGE: Self = sense(5, 0x21, 0);
    pub(super) const INVALID_FIELD_IN_CDB: Self = sense(5, 0x24, 0);
    pub(super) const NO_LOGICAL_UNIT: Self = sense(5, 0x25, 0);
    pub(super) const INVALID_FIELD_IN_LIST: Self = sense(5, 0x26, 0);
    pub(super) const LIST_LENGTH: Self = sense(5, 0x1a, 0);
    pub(super) const SAVING_NOT_SUPPORTED: Self = sense(5, 0x39, 0);
    pub(super) const REMOVAL_PREVENTED: Self = sense(5, 0x53, 2);
    pub(super) const MEDIUM_CHANGED: Self = sense(6, 0x28, 0);
    pub(super) const POWER_ON: Self = sense(6, 0x29, 0);
    pub(super) const UNIT_RESET: Self = sense(6, 0x29, 3);
    pub(super) const CAPACITY_CHANGED: Self = sense(6, 0x2a, 9);
    pub(super) const WRITE_PROTECTED: Self = sense(7, 0x27, 0);
    pub(super) const NO_SPACE: Self = sense(7, 0x27, 7);
    pub(super) const MISCOMPARE: Self = sense(0x0e, 0x1d, 0);

    /// Lays current sense data out in the fixed format (§4.5.3).
    pub(super) fn fixed(self) -> [u8; 18] {
        let mut data = [0; 18];
        data[0] = 0x70;
        data[2] = self.key;
        data[7] = 10;
        data[12] = self.asc;
        data[13] = self.ascq;
        data
    }

    /// Lays current sense data out in the descriptor format, without descriptors (§4.5.2).
    pub(super) fn descriptor(self) -> [u8; 8] {
        [0x72, self.key, self.asc, self.ascq, 0, 0, 0, 0]
    }

    /// Tells whether this is one that a device may have waiting for its initiator.
    pub(super) fn is_attention(self) -> bool {
        self.key == 6
    }
}
