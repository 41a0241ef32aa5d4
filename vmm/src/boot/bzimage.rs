//! Linux's bzImage (Linux `arch/x86/boot.rst`).

use super::file::{u16_at, u32_at, u64_at};

const BOOT_FLAG: u16 = 0xaa55;
const MAGIC: &[u8] = b"HdrS";
/// The first version with `init_size` and `pref_address`, from Linux 2.6.31.
const VERSION_MIN: u16 = 0x20a;
const XLOADFLAG_64: u16 = 1;
const HEADER_AT: usize = 0x1f1;
const SECTOR_BYTES: usize = 512;

/// A parsed bzImage.
#[derive(Debug)]
pub(super) struct BzImage<'a> {
    /// The setup header, as it belongs at offset 0x1f1 of the zero page.
    pub(super) header: &'a [u8],
    /// The protected-mode kernel with the decompressor at its start.
    pub(super) protected: &'a [u8],
    /// The compressed kernel inside `protected`, where the header tells.
    pub(super) payload: Option<&'a [u8]>,
    /// Whether the decompressor has a 64-bit entry point.
    pub(super) has_64_bit_entry: bool,
    /// Where the kernel wants to run.
    pub(super) preferred_gpa: u64,
    /// RAM that it needs from there on before it knows the memory map.
    pub(super) init_len_bytes: u64,
    /// Highest address that its initial RAM disk may have.
    pub(super) initrd_max_gpa: u64,
    /// Longest command line without its end mark.
    pub(super) cmdline_max: usize,
}

/// Tells whether a file claims to be a bzImage.
pub(super) fn is_bzimage(file: &[u8]) -> bool {
    u16_at(file, 0x1fe) == Some(BOOT_FLAG) && file.get(0x202..0x206) == Some(MAGIC)
}

/// Takes a bzImage apart; the error says what is wrong with it.
pub(super) fn parse(file: &[u8]) -> Result<BzImage<'_>, &'static str> {
    let cut_off = "the bzImage is cut off";
    if !is_bzimage(file) {
        return Err("it does not start like a bzImage");
    }
    let version = u16_at(file, 0x206).ok_or(cut_off)?;
    if version < VERSION_MIN {
        return Err("its boot protocol is older than 2.10");
    }
    let sectors = match file[HEADER_AT] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let header_end = 0x202 + usize::from(*file.get(0x201).ok_or(cut_off)?);
    let header = file.get(HEADER_AT..header_end).ok_or(cut_off)?;
    if header_end < 0x264 {
        return Err("its setup header is too short");
    }
    let protected = file.get((sectors + 1) * SECTOR_BYTES..).ok_or(cut_off)?;
    let declared = usize::try_from(u32_at(file, 0x1f4).ok_or(cut_off)?).unwrap_or(usize::MAX);
    if declared.saturating_mul(16) > protected.len().next_multiple_of(16) {
        return Err(cut_off);
    }
    let payload = range(protected, u32_at(file, 0x248), u32_at(file, 0x24c)).ok_or(cut_off)?;
    Ok(BzImage {
        header,
        protected,
        payload: Some(payload).filter(|payload| !payload.is_empty()),
        has_64_bit_entry: version >= 0x20c
            && u16_at(file, 0x236).ok_or(cut_off)? & XLOADFLAG_64 != 0,
        preferred_gpa: u64_at(file, 0x258).ok_or(cut_off)?,
        init_len_bytes: u64::from(u32_at(file, 0x260).ok_or(cut_off)?),
        initrd_max_gpa: u64::from(u32_at(file, 0x22c).ok_or(cut_off)?),
        cmdline_max: usize::try_from(u32_at(file, 0x238).ok_or(cut_off)?).unwrap_or(0),
    })
}

fn range(bytes: &[u8], offset: Option<u32>, len: Option<u32>) -> Option<&[u8]> {
    let offset = usize::try_from(offset?).ok()?;
    let len = usize::try_from(len?).ok()?;
    bytes.get(offset..offset.checked_add(len)?)
}
