//! Checksums of images, by which the node that an instance moves to knows that it got the same files.

use std::fs::File;
use std::io::{self, Read};

use crc32fast::Hasher;

/// Bytes that are read at a time.
const CHUNK_LEN_BYTES: usize = 256 << 10;

/// Returns the CRC-32 of a file (IEEE 802.3, as upstream's).
pub(super) fn of_file(mut file: File) -> io::Result<u32> {
    let mut hasher = Hasher::new();
    let mut chunk = vec![0; CHUNK_LEN_BYTES];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(hasher.finalize()),
            Ok(len) => hasher.update(&chunk[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::of_file;

    #[test]
    fn the_check_value_of_the_polynomial_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "123456789").unwrap();
        let file = std::fs::File::open(path).unwrap();
        assert_eq!(of_file(file).unwrap(), 0xcbf4_3926);
    }
}
