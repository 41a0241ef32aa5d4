//! Reading tar archives (POSIX.1-2001 pax interchange format, with GNU long names), as far as image
//! layers need it. Every length that an archive states is bounded before memory is set aside for it.

use std::io::{self, ErrorKind, Read};

const BLOCK_LEN: usize = 512;
/// Longest extension record: a pax header or a GNU long name; file systems stop at 4 KiB paths.
const MAX_EXTENSION_LEN: u64 = 256 << 10;
/// Consecutive extension headers before a member.
const MAX_EXTENSIONS: usize = 16;

/// Regular file (also the zero byte of old archives).
const KIND_FILE: u8 = b'0';
const KIND_HARD_LINK: u8 = b'1';
const KIND_SYMLINK: u8 = b'2';
const KIND_DIRECTORY: u8 = b'5';
const KIND_PAX: u8 = b'x';
const KIND_PAX_GLOBAL: u8 = b'g';
const KIND_GNU_LONG_NAME: u8 = b'L';
const KIND_GNU_LONG_LINK: u8 = b'K';

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink(String),
    Symlink(String),
    Directory,
    /// Devices, FIFOs, sparse files.
    Other,
}

/// One member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) len_bytes: u64,
}

/// An archive, read member by member; reading from it reads the current member's data.
pub(super) struct Archive<R> {
    input: R,
    /// Bytes consumed from the input.
    position: u64,
    /// Data of the current member not yet read.
    remaining: u64,
    /// Fill bytes after it.
    padding: u64,
}

/// What extension headers say about the next member.
#[derive(Default)]
struct Extension {
    path: Option<String>,
    link: Option<String>,
    len_bytes: Option<u64>,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            position: 0,
            remaining: 0,
            padding: 0,
        }
    }

    /// Offset of the current member's data while nothing of it has been read.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Moves on to the next member; `None` at the end of the archive.
    pub(super) fn next_member(&mut self) -> io::Result<Option<Member>> {
        let mut extension = Extension::default();
        for _ in 0..=MAX_EXTENSIONS {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let kind = header[156];
            let len_bytes = number(&header[124..136])?;
            self.set_data(len_bytes)?;
            match kind {
                KIND_PAX => self.extend_by_pax(&mut extension)?,
                KIND_GNU_LONG_NAME => extension.path = Some(text(&self.extension_data()?)),
                KIND_GNU_LONG_LINK => extension.link = Some(text(&self.extension_data()?)),
                KIND_PAX_GLOBAL => {}
                _ => return self.member(&header, kind, len_bytes, extension).map(Some),
            }
        }
        Err(corrupt("too many extension headers"))
    }

    fn member(
        &mut self,
        header: &[u8; BLOCK_LEN],
        kind: u8,
        len_bytes: u64,
        extension: Extension,
    ) -> io::Result<Member> {
        let len_bytes = extension.len_bytes.unwrap_or(len_bytes);
        let path = extension.path.unwrap_or_else(|| ustar_path(header));
        let link = || extension.link.unwrap_or_else(|| text(&header[157..257]));
        let kind = match kind {
            KIND_HARD_LINK => Kind::HardLink(link()),
            KIND_SYMLINK => Kind::Symlink(link()),
            KIND_DIRECTORY => Kind::Directory,
            KIND_FILE | 0 if path.ends_with('/') => Kind::Directory,
            KIND_FILE | 0 | b'7' => Kind::File,
            _ => Kind::Other,
        };
        // Links and directories state a length now and then but never carry data.
        let data_len = if matches!(kind, Kind::File | Kind::Other) {
            len_bytes
        } else {
            0
        };
        self.set_data(data_len)?;
        Ok(Member {
            path,
            kind,
            len_bytes: data_len,
        })
    }

    fn set_data(&mut self, len_bytes: u64) -> io::Result<()> {
        let padded = len_bytes
            .checked_next_multiple_of(BLOCK_LEN as u64)
            .ok_or_else(|| corrupt("a member's size is out of range"))?;
        self.remaining = len_bytes;
        self.padding = padded - len_bytes;
        Ok(())
    }

    /// The next header block; `None` at the end marker, or where a writer left it out.
    fn header(&mut self) -> io::Result<Option<[u8; BLOCK_LEN]>> {
        let mut header = [0; BLOCK_LEN];
        let mut filled = 0;
        while filled < BLOCK_LEN {
            match self.input.read(&mut header[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position += BLOCK_LEN as u64;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let expected = sum(&header[..148]) + 8 * u64::from(b' ') + sum(&header[156..]);
        if number(&header[148..156])? != expected {
            return Err(corrupt("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn extension_data(&mut self) -> io::Result<Vec<u8>> {
        if self.remaining > MAX_EXTENSION_LEN {
            return Err(corrupt("an extension header is too long"));
        }
        let mut data = Vec::new();
        self.read_to_end(&mut data)?;
        Ok(data)
    }

    fn extend_by_pax(&mut self, extension: &mut Extension) -> io::Result<()> {
        let data = self.extension_data()?;
        let mut rest = data.as_slice();
        while !rest.is_empty() {
            let (key, value, after) =
                pax_record(rest).ok_or_else(|| corrupt("a pax record is malformed"))?;
            match key {
                b"path" => extension.path = Some(text(value)),
                b"linkpath" => extension.link = Some(text(value)),
                b"size" => {
                    let len_bytes = text(value)
                        .parse()
                        .map_err(|_| corrupt("a pax size is no number"))?;
                    extension.len_bytes = Some(len_bytes);
                }
                _ => {}
            }
            rest = after;
        }
        Ok(())
    }

    /// Passes over what is left of the current member.
    fn skip(&mut self) -> io::Result<()> {
        let left = self.remaining + self.padding;
        (self.remaining, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut self.input).take(left), &mut io::sink())?;
        self.position += skipped;
        if skipped == left {
            Ok(())
        } else {
            Err(ErrorKind::UnexpectedEof.into())
        }
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.position += count as u64;
        self.remaining -= count as u64;
        Ok(count)
    }
}

/// `LEN KEY=VALUE\n`, where LEN counts the whole record.
fn pax_record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().position(|byte| *byte == b' ')?;
    let len = std::str::from_utf8(&data[..space])
        .ok()?
        .parse::<usize>()
        .ok()?;
    let record = data.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &data[len..]))
}

/// The path of a header, from its prefix and name fields.
fn ustar_path(header: &[u8; BLOCK_LEN]) -> String {
    let name = text(&header[..100]);
    let prefix = text(&header[345..500]);
    let is_posix = &header[257..263] == b"ustar\0";
    if is_posix && !prefix.is_empty() {
        format!("{prefix}/{name}")
    } else {
        name
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A numeric field: octal digits, or a big-endian number marked by the top bit (GNU).
fn number(field: &[u8]) -> io::Result<u64> {
    if let Some(first) = field.first().filter(|first| **first & 0x80 != 0) {
        return std::iter::once(first & 0x7f)
            .chain(field[1..].iter().copied())
            .try_fold(0_u64, |value, byte| {
                Some(value.checked_mul(256)? + u64::from(byte))
            })
            .ok_or_else(|| corrupt("a number is out of range"));
    }
    let digits = text(field);
    let digits = digits.trim();
    if digits.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(digits, 8).map_err(|_| corrupt("a number is malformed"))
}

fn corrupt(what: &str) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        format!("not a valid tar archive: {what}"),
    )
}

#[cfg(test)]
mod tests;
