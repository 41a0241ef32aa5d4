//! A set of interrupt vectors, laid out as the IRR, ISR and TMR registers are.

/// 256 bits in eight 32-bit registers (SDM vol. 3 §11.8.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct VectorSet(pub(super) [u32; 8]);

impl VectorSet {
    pub(super) fn insert(&mut self, vector: u8) {
        self.0[usize::from(vector >> 5)] |= 1 << (vector & 31);
    }

    pub(super) fn remove(&mut self, vector: u8) {
        self.0[usize::from(vector >> 5)] &= !(1 << (vector & 31));
    }

    pub(super) fn contains(self, vector: u8) -> bool {
        self.0[usize::from(vector >> 5)] & 1 << (vector & 31) != 0
    }

    /// Returns the most urgent vector.
    pub(super) fn highest(self) -> Option<u8> {
        let registers = (0u8..8).zip(self.0).rev();
        let (register, bits) = registers.into_iter().find(|(_, bits)| *bits != 0)?;
        let bit = u8::try_from(31 - bits.leading_zeros()).ok()?;
        Some(register << 5 | bit)
    }
}
