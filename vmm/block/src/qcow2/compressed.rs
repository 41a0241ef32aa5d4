//! Compressed clusters (qcow2 specification, "Compressed clusters").

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use flate2::{Decompress, FlushDecompress};

use super::geometry::{Geometry, corrupt};
use super::header::Compression;
use super::locked;
use super::mapping::Compressed;
use super::zstd;
use crate::disk::DiskError;
use crate::host_file::HostFile;
use crate::width::{to_u64, to_usize};

/// How much decompressed data is kept, so that small reads do not decompress a cluster each time.
const KEPT_BYTES: u64 = 512 << 10;

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
        Compression::Zstd => zstd::decompress(&input[..got], &mut output),
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
