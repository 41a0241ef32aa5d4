//! What this host has.

use std::fs;
use std::path::{Path, PathBuf};

/// Where distributions put SeaBIOS.
const BIOS_IMAGES: [&str; 4] = [
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/bios-256k.bin",
    "/usr/share/seabios/bios.bin",
    "/usr/share/qemu/bios.bin",
];

/// Returns the host's memory in bytes, or the largest number where it cannot be told.
pub fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    memory_total(&text).unwrap_or(u64::MAX)
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Returns the BIOS image that is installed, if one is.
pub fn bios_image() -> Option<PathBuf> {
    BIOS_IMAGES
        .iter()
        .map(Path::new)
        .find(|path| path.is_file())
        .map(Path::to_owned)
}

/// Returns where unpacked images are kept between runs: the user's cache folder.
pub fn cache_dir(xdg_cache_home: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    let cache = match (xdg_cache_home, home) {
        (Some(cache), _) if cache.is_absolute() => cache.to_owned(),
        (_, Some(home)) if home.is_absolute() => home.join(".cache"),
        _ => return None,
    };
    Some(cache.join("ferrovirt/images"))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{cache_dir, memory_total};

    #[test]
    fn total_memory_is_read_in_kib() {
        assert_eq!(
            memory_total("MemTotal:       16384 kB\nMemFree: 1 kB\n"),
            Some(16 << 20)
        );
        assert_eq!(memory_total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn the_cache_folder_follows_the_user() {
        let cache = |xdg, home: Option<&str>| cache_dir(xdg, home.map(Path::new));
        assert_eq!(
            cache(Some(Path::new("/c")), Some("/h")),
            Some(PathBuf::from("/c/ferrovirt/images"))
        );
        assert_eq!(
            cache(None, Some("/h")),
            Some(PathBuf::from("/h/.cache/ferrovirt/images"))
        );
        assert_eq!(cache(Some(Path::new("c")), None), None);
    }
}
