//! Decompression of a bzImage's payload on the host, which saves the guest some hundred million
//! instructions. A format that is not known here is left to the guest.

use std::io::Read;

/// Longest kernel that is unpacked; the largest debug kernels stay below.
const UNPACKED_MAX_BYTES: usize = 512 << 20;
/// Block size of LZ4's legacy frame.
const LZ4_BLOCK_BYTES: usize = 8 << 20;

/// Unpacks a payload; `None` where the format is unknown or the payload damaged.
pub(super) fn unpack(payload: &[u8]) -> Option<Vec<u8>> {
    match payload {
        [0x1f, 0x8b, ..] => bounded(flate2::read::GzDecoder::new(payload)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            bounded(ruzstd::decoding::StreamingDecoder::new(payload).ok()?)
        }
        [0x02, 0x21, 0x4c, 0x18, ..] => lz4_legacy(&payload[4..]),
        _ => None,
    }
}

fn bounded(reader: impl Read) -> Option<Vec<u8>> {
    let most = u64::try_from(UNPACKED_MAX_BYTES).unwrap_or(u64::MAX);
    let mut unpacked = Vec::new();
    let len = reader.take(most + 1).read_to_end(&mut unpacked).ok()?;
    (len <= UNPACKED_MAX_BYTES).then_some(unpacked)
}

/// Unpacks blocks of a compressed length and data. The kernel's build appends the unpacked length,
/// which ends the list because too few bytes follow it.
fn lz4_legacy(mut blocks: &[u8]) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    let mut block = vec![0; LZ4_BLOCK_BYTES];
    while let Some((len, rest)) = blocks.split_first_chunk::<4>() {
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let Some((data, rest)) = rest.split_at_checked(len) else {
            break;
        };
        let written = lz4_flex::block::decompress_into(data, &mut block).ok()?;
        unpacked.extend_from_slice(&block[..written]);
        if unpacked.len() > UNPACKED_MAX_BYTES {
            return None;
        }
        blocks = rest;
    }
    (!unpacked.is_empty()).then_some(unpacked)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn sample() -> Vec<u8> {
        (0..300_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect()
    }

    #[test]
    fn gzip_is_unpacked() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&sample()).unwrap();
        assert_eq!(unpack(&packer.finish().unwrap()), Some(sample()));
    }

    #[test]
    fn zstd_is_unpacked() {
        let packed = ruzstd::encoding::compress_to_vec(
            sample().as_slice(),
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        assert_eq!(unpack(&packed), Some(sample()));
    }

    #[test]
    fn lz4_is_unpacked_up_to_the_appended_length() {
        let block = lz4_flex::block::compress(&sample());
        let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
        packed.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
        packed.extend(&block);
        packed.extend(u32::try_from(sample().len()).unwrap().to_le_bytes());
        assert_eq!(unpack(&packed), Some(sample()));
    }

    #[test]
    fn damaged_and_unknown_payloads_are_left_alone() {
        assert_eq!(unpack(b"BZh9"), None);
        assert_eq!(unpack(&[]), None);
        assert_eq!(unpack(&[0x1f, 0x8b, 8, 0, 1]), None);
        assert_eq!(
            unpack(&[0x02, 0x21, 0x4c, 0x18, 3, 0, 0, 0, 0xff, 0xff, 0xff]),
            None
        );
    }
}
