//! Firmware at the reset vector.

mod items;

use std::path::Path;

pub(crate) use self::items::items;
use super::{BootError, file};
use crate::memory::{HIGH_GPA, Ram};

const IMAGE_MAX_BYTES: u64 = 16 << 20;
const PAGE_BYTES: u64 = 4096;
/// The end of the image appears below 1 MiB as well, as RAM: firmware runs from there.
const SHADOW_END_GPA: u64 = 0x10_0000;
const SHADOW_MAX_BYTES: usize = 128 << 10;

/// Returns the length of an image that can be firmware.
///
/// # Errors
/// If it cannot be read, or has an impossible length.
pub fn rom_len_bytes(image: &Path) -> Result<u64, BootError> {
    let len_bytes = std::fs::metadata(image)
        .map_err(|source| BootError::Read {
            role: "firmware image",
            path: image.to_owned(),
            source,
        })?
        .len();
    check(image, len_bytes).map(|()| len_bytes)
}

fn check(image: &Path, len_bytes: u64) -> Result<(), BootError> {
    if len_bytes == 0 || !len_bytes.is_multiple_of(PAGE_BYTES) || len_bytes > IMAGE_MAX_BYTES {
        return Err(BootError::FirmwareLength {
            path: image.to_owned(),
            len_bytes,
        });
    }
    Ok(())
}

/// Writes the image into the ROM that [`Ram::with_rom`] made, and its end below 1 MiB.
pub(super) fn load(image: &Path, ram: &Ram) -> Result<(), BootError> {
    let bytes = file::read("firmware image", image, IMAGE_MAX_BYTES)?;
    let len_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    check(image, len_bytes)?;
    ram.write(HIGH_GPA - len_bytes, &bytes)?;
    let shadow = &bytes[bytes.len().saturating_sub(SHADOW_MAX_BYTES)..];
    let shadow_len_bytes = u64::try_from(shadow.len()).unwrap_or(0);
    ram.write(SHADOW_END_GPA - shadow_len_bytes, shadow)?;
    Ok(())
}
