//! What launchers hold in memory, their guests' memory included.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::launchers::Launcher;

/// Bytes of `smaps_rollup` that are read; it has some 700.
const FILE_LEN_MAX: u64 = 4096;
/// Time for all files: the kernel walks through each process's memory.
const READ: Duration = Duration::from_millis(1500);

/// Returns how many bytes each launcher's process has resident; `None` where that cannot be told in time.
pub(super) async fn resident_bytes(launchers: &[Launcher]) -> Vec<Option<u64>> {
    let files: Vec<PathBuf> = launchers.iter().map(file).collect();
    let reading = spawn_blocking(move || files.iter().map(|file| read(file)).collect());
    match timeout(READ, reading).await {
        Ok(Ok(read)) => read,
        Ok(Err(_)) | Err(_) => vec![None; launchers.len()],
    }
}

fn file(launcher: &Launcher) -> PathBuf {
    launcher.root().with_file_name("smaps_rollup")
}

fn read(path: &Path) -> Option<u64> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(FILE_LEN_MAX).read_to_string(&mut text).ok()?;
    resident(&text)
}

/// Reads `Rss: <number> kB` (proc(5), `/proc/pid/smaps_rollup`).
fn resident(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::resident;

    #[test]
    fn the_resident_size_is_found_among_the_others() {
        let text = "00400000-7fff rollup\nRss:      1716 kB\nPss:       900 kB\n";
        assert_eq!(resident(text), Some(1716 * 1024));
        for odd in [
            "",
            "Rss: kB",
            "Rss: 5",
            "Rss: 99999999999999999999 kB",
            "Rss: 18446744073709551615 kB",
        ] {
            assert_eq!(resident(odd), None, "{odd}");
        }
    }
}
