//! The x87 state as a value, and its forms in memory (SDM vol. 1 §8.1.10 and §10.5.1).

/// What FNINIT leaves in the control word.
const FCW_RESET: u16 = 0x37f;
/// Bits of the status word that say that an unmasked exception is pending: ES and B.
const PENDING: u16 = 0x8080;

/// The x87 registers. MM0 to MM7 are the low 64 bits of the physical registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct X87 {
    /// Control word.
    pub(crate) fcw: u16,
    /// Status word, ES and B as the control word makes them.
    pub(crate) fsw: u16,
    /// Tag word, two bits a physical register.
    pub(crate) ftw: u16,
    /// RIP of the last instruction; of its operand's address nothing is kept.
    pub(crate) fip: u64,
    /// ST0 to ST7.
    pub(crate) st: [[u8; 10]; 8],
}

impl X87 {
    pub(crate) const RESET: Self = Self {
        fcw: FCW_RESET,
        fsw: 0,
        ftw: 0xffff,
        fip: 0,
        st: [[0; 10]; 8],
    };

    /// The same physical registers with TOP 0 and the given tags: what MMX instructions and FNINIT make
    /// of the stack.
    pub(super) fn with_top_zero(mut self, ftw: u16) -> Self {
        let top = usize::from(self.top());
        self.st.rotate_right(top);
        self.fsw &= !0x3800;
        self.ftw = ftw;
        self
    }

    fn top(&self) -> u16 {
        self.fsw >> 11 & 7
    }

    /// Sets ES and B by what is raised and not masked.
    pub(super) fn with_pending(mut self) -> Self {
        let pending = self.fsw & !self.fcw & 0x3f != 0;
        self.fsw = self.fsw & !PENDING | if pending { PENDING } else { 0 };
        self
    }

    /// One bit a physical register: 1 where it is not empty.
    fn abridged(&self) -> u8 {
        (0..8).fold(0, |all, n| {
            all | u8::from(self.ftw >> (2 * n) & 3 != 3) << n
        })
    }

    /// The tag of physical register `n`, seen from its value.
    fn tag_of(&self, n: u16) -> u16 {
        let value = &self.st[usize::from((n.wrapping_sub(self.top())) & 7)];
        let exponent = u16::from_le_bytes([value[8], value[9]]) & 0x7fff;
        let zero = value[..8].iter().all(|&b| b == 0);
        match exponent {
            0 if zero => 1,
            0 | 0x7fff => 2,
            _ if value[7] & 0x80 == 0 => 2,
            _ => 0,
        }
    }

    /// The first 160 bytes of an FXSAVE image, but for MXCSR.
    pub(crate) fn to_fxsave(self) -> [u8; 160] {
        let mut out = [0; 160];
        out[0..2].copy_from_slice(&self.fcw.to_le_bytes());
        out[2..4].copy_from_slice(&self.fsw.to_le_bytes());
        out[4] = self.abridged();
        out[8..16].copy_from_slice(&self.fip.to_le_bytes());
        for (slot, value) in out[32..].chunks_exact_mut(16).zip(&self.st) {
            slot[..10].copy_from_slice(value);
        }
        out
    }

    /// The state of an FXSAVE image.
    pub(crate) fn from_fxsave(image: &[u8; 160]) -> Self {
        let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        let mut fip = [0; 8];
        fip.copy_from_slice(&image[8..16]);
        let mut state = Self {
            fcw: word(0),
            fsw: word(2),
            ftw: 0,
            fip: u64::from_le_bytes(fip),
            st: [[0; 10]; 8],
        };
        for (value, slot) in state.st.iter_mut().zip(image[32..].chunks_exact(16)) {
            value.copy_from_slice(&slot[..10]);
        }
        state.ftw = (0..8).fold(0, |all, n| {
            let tag = if image[4] >> n & 1 == 0 {
                3
            } else {
                state.tag_of(n)
            };
            all | tag << (2 * n)
        });
        state.with_pending()
    }

    /// The 28 bytes of the 32-bit protected mode environment.
    pub(super) fn to_env(self) -> [u8; 28] {
        let mut out = [0; 28];
        for (at, word) in [(0, self.fcw), (4, self.fsw), (8, self.ftw)] {
            out[at..at + 2].copy_from_slice(&word.to_le_bytes());
            out[at + 2..at + 4].fill(0xff);
        }
        out[12..16].copy_from_slice(&(self.fip as u32).to_le_bytes());
        out[26..28].fill(0xff);
        out
    }

    /// The 14 bytes of the 16-bit environment.
    pub(super) fn to_env16(self) -> [u8; 14] {
        let mut out = [0; 14];
        let words = [self.fcw, self.fsw, self.ftw, self.fip as u16];
        for (slot, word) in out.chunks_exact_mut(2).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// Takes over an environment of 14 or 28 bytes.
    pub(super) fn set_env(&mut self, env: &[u8]) {
        let step = if env.len() == 14 { 2 } else { 4 };
        let word = |n: usize| u16::from_le_bytes([env[n * step], env[n * step + 1]]);
        (self.fcw, self.fsw, self.ftw) = (word(0), word(1), word(2));
        self.fip = match step {
            2 => word(3).into(),
            _ => u32::from_le_bytes([env[12], env[13], env[14], env[15]]).into(),
        };
        *self = self.with_pending();
    }

    /// The 108 bytes that FNSAVE writes and FRSTOR reads in 32-bit format.
    pub(super) fn to_fsave(self) -> [u8; 108] {
        let mut out = [0; 108];
        out[..28].copy_from_slice(&self.to_env());
        for (slot, value) in out[28..].chunks_exact_mut(10).zip(&self.st) {
            slot.copy_from_slice(value);
        }
        out
    }

    /// The state of an FNSAVE image in 32-bit format.
    pub(super) fn from_fsave(image: &[u8; 108]) -> Self {
        let mut state = Self::RESET;
        state.set_env(&image[..28]);
        for (value, slot) in state.st.iter_mut().zip(image[28..].chunks_exact(10)) {
            value.copy_from_slice(slot);
        }
        state
    }
}
