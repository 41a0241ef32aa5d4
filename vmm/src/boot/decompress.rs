//! Decompression of a bzImage's payload on the host, which saves the guest some hundred million
//! instructions. A format that is not known here is left to the guest. What is unpacked goes on piece by piece: a
//! kernel of 50 MiB would otherwise cost as much memory again, and the time to fault it in.

use std::io::Read;

use super::BootError;

/// Longest kernel that is unpacked; the largest debug kernels stay below.
const UNPACKED_MAX_BYTES: usize = 512 << 20;
/// Block size of LZ4's legacy frame.
const LZ4_BLOCK_BYTES: usize = 8 << 20;
/// Pieces of the other formats.
const PIECE_BYTES: usize = 1 << 20;

/// Takes the next piece of what is unpacked; tells whether it wants more.
pub(super) type Take<'a> = dyn FnMut(&[u8]) -> Result<bool, BootError> + 'a;

/// Unpacks a payload; tells whether all of it was taken. It is not where the format is unknown or the payload damaged.
pub(super) fn unpack(payload: &[u8], take: &mut Take<'_>) -> Result<bool, BootError> {
    match payload {
        [0x1f, 0x8b, ..] => pieces(flate2::read::GzDecoder::new(payload), take),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => match ruzstd::decoding::StreamingDecoder::new(payload) {
            Ok(decoder) => pieces(decoder, take),
            Err(_) => Ok(false),
        },
        [0x02, 0x21, 0x4c, 0x18, ..] => lz4_legacy(&payload[4..], take),
        _ => Ok(false),
    }
}

fn pieces(reader: impl Read, take: &mut Take<'_>) -> Result<bool, BootError> {
    let most = u64::try_from(UNPACKED_MAX_BYTES).unwrap_or(u64::MAX);
    let mut reader = reader.take(most + 1);
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    loop {
        piece.clear();
        let wanted = u64::try_from(PIECE_BYTES).unwrap_or(u64::MAX);
        let Ok(len) = reader.by_ref().take(wanted).read_to_end(&mut piece) else {
            return Ok(false);
        };
        if len == 0 {
            return Ok(reader.limit() > 0);
        }
        if !take(&piece)? {
            return Ok(false);
        }
    }
}

/// Unpacks blocks of a compressed length and data. The kernel's build appends the unpacked length,
/// which ends the list because too few bytes follow it.
fn lz4_legacy(mut blocks: &[u8], take: &mut Take<'_>) -> Result<bool, BootError> {
    let mut unpacked_bytes = 0;
    let mut block = vec![0; LZ4_BLOCK_BYTES];
    while let Some((len, rest)) = blocks.split_first_chunk::<4>() {
        let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
        let Some((data, rest)) = rest.split_at_checked(len) else {
            break;
        };
        let Ok(written) = lz4_flex::block::decompress_into(data, &mut block) else {
            return Ok(false);
        };
        unpacked_bytes += written;
        if unpacked_bytes > UNPACKED_MAX_BYTES || !take(&block[..written])? {
            return Ok(false);
        }
        blocks = rest;
    }
    Ok(unpacked_bytes > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    /// What is unpacked, if all of it was.
    fn unpack(payload: &[u8]) -> Option<Vec<u8>> {
        let mut unpacked = Vec::new();
        let taken = super::unpack(payload, &mut |piece| {
            unpacked.extend(piece);
            Ok(true)
        });
        taken.unwrap().then_some(unpacked)
    }

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
