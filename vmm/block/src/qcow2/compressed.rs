//! Compressed clusters (qcow2 specification, "Compressed clusters").

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use flate2::{Decompress, FlushDecompress};
use ruzstd::decoding::StreamingDecoder;
use std::io::Read;

use super::geometry::{Geometry, corrupt};
use super::header::Compression;
use super::locked;
use super::mapping::Compressed;
use crate::disk::DiskError;
use crate::host_file::HostFile;
use crate::width::{to_u64, to_usize};

/// How much decompressed data is kept, so that small reads do not decompress a cluster each time.
const KEPT_BYTES: u64 = 512 << 10;
/// The magic number of a Zstandard frame (RFC 8878 §3.1.1).
const ZSTD_MAGIC: u32 = 0xfd2f_b528;

/// The clusters decompressed last. An entry of the tables for a compressed cluster never changes
/// its content, for compressed clusters are only ever read.
#[derive(Debug, Default)]
pub(super) struct Inflated {
    kept: Mutex<VecDeque<(u64, Arc<Vec<u8>>)>>,
}

impl Inflated {
    /// Returns the content of a compressed cluster.
    pub(super) fn cluster(
        &self,
        file: &HostFile,
        geometry: &Geometry,
        compressed: Compressed,
    ) -> Result<Arc<Vec<u8>>, DiskError> {
        if let Some(bytes) = self.find(compressed.host) {
            return Ok(bytes);
        }
        let bytes = Arc::new(inflate(file, geometry, compressed)?);
        let mut kept = locked(&self.kept);
        kept.push_back((compressed.host, Arc::clone(&bytes)));
        let most = to_usize((KEPT_BYTES / geometry.cluster_bytes()).clamp(1, 64));
        while kept.len() > most {
            kept.pop_front();
        }
        Ok(bytes)
    }

    fn find(&self, host: u64) -> Option<Arc<Vec<u8>>> {
        let kept = locked(&self.kept);
        kept.iter()
            .find(|(at, _)| *at == host)
            .map(|(_, bytes)| Arc::clone(bytes))
    }
}

fn inflate(
    file: &HostFile,
    geometry: &Geometry,
    compressed: Compressed,
) -> Result<Vec<u8>, DiskError> {
    let mut input = vec![0; to_usize(compressed.len_bytes)];
    let got = file.read_up_to(compressed.host, &mut input)?;
    let mut output = vec![0; to_usize(geometry.cluster_bytes())];
    let inflated = match geometry.compression {
        Compression::Zlib => inflate_zlib(&input[..got], &mut output),
        Compression::Zstd => inflate_zstd(&input[..got], &mut output),
    };
    let problem = "cannot be decompressed";
    let failed = || corrupt(file.path(), "compressed cluster", compressed.host, problem);
    inflated.map(|()| output).ok_or_else(failed)
}

/// Fills `output`; what follows in the last sector of the input is not looked at.
fn inflate_zlib(input: &[u8], output: &mut [u8]) -> Option<()> {
    let mut stream = Decompress::new(false);
    stream
        .decompress(input, output, FlushDecompress::Finish)
        .ok();
    (stream.total_out() == to_u64(output.len())).then_some(())
}

fn inflate_zstd(input: &[u8], output: &mut [u8]) -> Option<()> {
    if zstd_window_bytes(input)? > to_u64(output.len()).max(1 << 20) {
        return None;
    }
    StreamingDecoder::new(input).ok()?.read_exact(output).ok()
}

/// Reads from a frame header how much memory the frame wants (RFC 8878 §3.1.1.1), so that a small
/// image cannot ask for a lot.
fn zstd_window_bytes(frame: &[u8]) -> Option<u64> {
    let magic = frame
        .first_chunk()
        .map(|bytes| u32::from_le_bytes(*bytes))?;
    let descriptor = *frame.get(4)?;
    if magic != ZSTD_MAGIC {
        return None;
    }
    if descriptor & 0x20 == 0 {
        let window = *frame.get(5)?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    let at = 5 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = |width: usize| {
        let bytes = frame.get(at..at + width)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0u64, |size, byte| size << 8 | u64::from(*byte)),
        )
    };
    match descriptor >> 6 {
        0 => size(1),
        1 => size(2).map(|size| size + 256),
        2 => size(4),
        _ => size(8),
    }
}
