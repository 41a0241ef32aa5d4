//! What stops an instruction.

/// Exception vectors (SDM vol. 3 §6.3.1).
pub(crate) mod vector {
    pub(crate) const DE: u8 = 0;
    pub(crate) const DB: u8 = 1;
    pub(crate) const NMI: u8 = 2;
    pub(crate) const BP: u8 = 3;
    pub(crate) const OF: u8 = 4;
    pub(crate) const BR: u8 = 5;
    pub(crate) const UD: u8 = 6;
    pub(crate) const NM: u8 = 7;
    pub(crate) const DF: u8 = 8;
    pub(crate) const TS: u8 = 10;
    pub(crate) const NP: u8 = 11;
    pub(crate) const SS: u8 = 12;
    pub(crate) const GP: u8 = 13;
    pub(crate) const PF: u8 = 14;
    pub(crate) const MF: u8 = 16;
    pub(crate) const AC: u8 = 17;
    pub(crate) const XM: u8 = 19;
}

/// An exception that an instruction raised. Architectural state is as before the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Vector.
    pub(crate) vector: u8,
    /// Error code, for the vectors that push one.
    pub(crate) error: Option<u32>,
    /// Faulting linear address, for #PF.
    pub(crate) address: u64,
}

impl Fault {
    const fn plain(vector: u8) -> Self {
        Self {
            vector,
            error: None,
            address: 0,
        }
    }

    const fn with_code(vector: u8, error: u32) -> Self {
        Self {
            vector,
            error: Some(error),
            address: 0,
        }
    }

    /// #UD.
    pub(crate) const UD: Self = Self::plain(vector::UD);
    /// #DE.
    pub(crate) const DE: Self = Self::plain(vector::DE);
    /// #NM.
    pub(crate) const NM: Self = Self::plain(vector::NM);
    /// #MF.
    pub(crate) const MF: Self = Self::plain(vector::MF);
    /// #XM.
    pub(crate) const XM: Self = Self::plain(vector::XM);
    /// #GP(0).
    pub(crate) const GP0: Self = Self::with_code(vector::GP, 0);
    /// #SS(0).
    pub(crate) const SS0: Self = Self::with_code(vector::SS, 0);

    /// #GP with a selector error code.
    pub(crate) const fn gp(selector: u16) -> Self {
        Self::with_code(vector::GP, (selector & 0xfffc) as u32)
    }

    /// #NP with a selector error code.
    pub(crate) const fn np(selector: u16) -> Self {
        Self::with_code(vector::NP, (selector & 0xfffc) as u32)
    }

    /// #SS with a selector error code.
    pub(crate) const fn ss(selector: u16) -> Self {
        Self::with_code(vector::SS, (selector & 0xfffc) as u32)
    }

    /// #TS with a selector error code.
    pub(crate) const fn ts(selector: u16) -> Self {
        Self::with_code(vector::TS, (selector & 0xfffc) as u32)
    }

    /// #PF.
    pub(crate) const fn page(error: u32, address: u64) -> Self {
        Self {
            vector: vector::PF,
            error: Some(error),
            address,
        }
    }
}
