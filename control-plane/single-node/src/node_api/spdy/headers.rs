//! Headers of SPDY/3.1 streams: one zlib stream for all of a connection, with a dictionary that both sides know
//! (draft-mbelshe-httpbis-spdy-00 §2.6.10).

use std::io;
use std::sync::LazyLock;

use flate2::{Decompress, FlushDecompress, Status};

/// Bytes of the headers of one stream, packed and unpacked.
pub(super) const PACKED_MAX_BYTES: usize = 16 << 10;
const UNPACKED_MAX_BYTES: usize = 64 << 10;
/// Headers of one stream.
const HEADERS_MAX: usize = 64;
/// Flag of a zlib stream that it has a dictionary (RFC 1950 §2.2).
const HAS_DICTIONARY: u8 = 1 << 5;
/// An empty block, which ends on a byte and makes the reader give out all that it has (RFC 1951 §3.2.4).
const EMPTY_BLOCK: [u8; 5] = [0, 0, 0, 0xff, 0xff];
/// Begins a zlib stream without a dictionary.
const ZLIB: [u8; 2] = [0x78, 0x01];

/// Words of the dictionary that have their length before them.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent \
vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin";
/// The rest of the dictionary.
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not \
Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov \
Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8\
charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::new();
    for word in WORDS.split(' ') {
        dictionary.extend(u32::try_from(word.len()).unwrap_or_default().to_be_bytes());
        dictionary.extend(word.replace('_', " ").bytes());
    }
    dictionary.extend(TEXT.bytes());
    dictionary
});

/// Headers, in lower case.
pub(super) type Headers = Vec<(String, String)>;

/// Reads the headers of a connection, stream after stream.
pub(super) struct Reader {
    unpacking: Decompress,
    has_begun: bool,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            unpacking: Decompress::new(false),
            has_begun: false,
        }
    }

    /// Reads the headers of the next stream.
    pub(super) fn read(&mut self, packed: &[u8]) -> io::Result<Headers> {
        let mut packed = packed;
        if !self.has_begun {
            packed = self.begin(packed)?;
            self.has_begun = true;
        }
        parse(&self.unpack(packed)?)
    }

    /// Takes the beginning of the zlib stream. The dictionary is given to the reader as a block before the first: what
    /// follows may then refer to it.
    fn begin<'a>(&mut self, packed: &'a [u8]) -> io::Result<&'a [u8]> {
        let [_, flags, rest @ ..] = packed else {
            return Err(invalid("headers are cut off"));
        };
        if flags & HAS_DICTIONARY == 0 {
            return Ok(rest);
        }
        let len = u16::try_from(DICTIONARY.len()).unwrap_or_default();
        let mut block = vec![0];
        block.extend(len.to_le_bytes());
        block.extend((!len).to_le_bytes());
        block.extend(DICTIONARY.iter());
        self.unpack(&block)?;
        rest.get(4..).ok_or_else(|| invalid("headers are cut off"))
    }

    fn unpack(&mut self, packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut unpacked = Vec::with_capacity(UNPACKED_MAX_BYTES);
        let before = self.unpacking.total_in();
        let status = self
            .unpacking
            .decompress_vec(packed, &mut unpacked, FlushDecompress::Sync);
        let status =
            status.map_err(|error| invalid(&format!("headers cannot be unpacked: {error}")))?;
        let taken = self.unpacking.total_in() - before;
        let is_whole = taken == u64::try_from(packed.len()).unwrap_or(u64::MAX);
        if !is_whole || status == Status::StreamEnd || unpacked.len() >= UNPACKED_MAX_BYTES {
            return Err(invalid("headers are too long or end too early"));
        }
        Ok(unpacked)
    }
}

fn parse(mut block: &[u8]) -> io::Result<Headers> {
    let count = take_number(&mut block)?;
    if count > HEADERS_MAX {
        return Err(invalid("there are too many headers"));
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let name = take_text(&mut block)?.to_lowercase();
        headers.push((name, take_text(&mut block)?));
    }
    Ok(headers)
}

fn take_number(block: &mut &[u8]) -> io::Result<usize> {
    let (number, rest) = block
        .split_first_chunk()
        .ok_or_else(|| invalid("headers are cut off"))?;
    *block = rest;
    usize::try_from(u32::from_be_bytes(*number)).map_err(io::Error::other)
}

fn take_text(block: &mut &[u8]) -> io::Result<String> {
    let len = take_number(block)?;
    let (text, rest) = block
        .split_at_checked(len)
        .ok_or_else(|| invalid("headers are cut off"))?;
    *block = rest;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Returns no headers, packed: the first, or a later one, of a connection.
pub(super) fn none(is_first: bool) -> Vec<u8> {
    const COUNT: [u8; 4] = [0; 4];
    // A block that is not packed at all.
    const BLOCK: [u8; 5] = [0, 4, 0, !4, !0];
    let begin = if is_first { &ZLIB[..] } else { &[] };
    [begin, &BLOCK, &COUNT, &EMPTY_BLOCK].concat()
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::{DICTIONARY, EMPTY_BLOCK, Headers, Reader, ZLIB, none};

    /// RFC 1950 §8.2.
    fn adler32(bytes: &[u8]) -> u32 {
        let sum = |(a, b): (u32, u32), byte: &u8| {
            let a = (a + u32::from(*byte)) % 65521;
            (a, (a + b) % 65521)
        };
        let (a, b) = bytes.iter().fold((1, 0), sum);
        b << 16 | a
    }

    /// Packs headers as stored blocks, with the dictionary announced or not.
    pub(in crate::node_api) fn pack(headers: &[(&str, &str)], begin: &[u8]) -> Vec<u8> {
        let mut block = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            block.extend(text.bytes());
        }
        let len = u16::try_from(block.len()).unwrap();
        [
            begin,
            &[0],
            &len.to_le_bytes(),
            &(!len).to_le_bytes(),
            &block,
            &EMPTY_BLOCK,
        ]
        .concat()
    }

    fn owned(headers: &[(&str, &str)]) -> Headers {
        headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_dictionary_is_the_one_of_the_protocol() {
        assert_eq!(
            (DICTIONARY.len(), adler32(&DICTIONARY)),
            (1423, 0xe3c6_a7c2)
        );
    }

    #[test]
    fn headers_that_refer_to_the_dictionary_are_read() {
        // Two streams as zlib's own compressor packs them with the dictionary.
        let first = hex(
            "78f9e3c6a7c202253a48f95b044eea16061606409ab308125f99a074cc68004e892545a989b9d0c2863515141500000000ffff",
        );
        let second = hex("0269204333a8a44ac452827121bc0e000000ffff");
        let mut reader = Reader::new();
        let wanted = owned(&[
            ("port", "8080"),
            ("requestid", "0"),
            ("streamtype", "error"),
        ]);
        assert_eq!(reader.read(&first).unwrap(), wanted);
        let read = reader.read(&second).unwrap();
        assert_eq!(
            read[2..],
            owned(&[("streamtype", "data"), ("content-type", "text/plain")])
        );
    }

    fn hex(text: &str) -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    }

    #[test]
    fn our_own_empty_headers_are_read_back() {
        let mut reader = Reader::new();
        assert_eq!(reader.read(&none(true)).unwrap(), []);
        assert_eq!(reader.read(&none(false)).unwrap(), []);
    }

    #[test]
    fn malformed_headers_are_refused() {
        for odd in [
            &[][..],
            &[0x78],
            &[0x78, 0xbb, 1, 2],
            &[0x78, 0x01, 0xff],
            &[&ZLIB[..], &[0, 4, 0, !4, !0, 0, 0, 1, 0], &EMPTY_BLOCK].concat(),
            &[&ZLIB[..], &[0, 4, 0, !4, !0, 0, 0, 0, 1], &EMPTY_BLOCK].concat(),
            &none(true)[..8],
        ] {
            assert!(Reader::new().read(odd).is_err(), "{odd:?}");
        }
        // A megabyte of zeroes in a few bytes.
        let mut packing = flate2::Compress::new(flate2::Compression::best(), false);
        let mut bomb = ZLIB.to_vec();
        bomb.reserve(16 << 10);
        packing
            .compress_vec(&vec![0; 1 << 20], &mut bomb, flate2::FlushCompress::Sync)
            .unwrap();
        assert!(Reader::new().read(&bomb).is_err());
    }
}
