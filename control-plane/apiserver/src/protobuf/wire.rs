//! The wire format of protobuf (Protocol Buffers, "Encoding"): fields one after another.

use super::Wrong;

/// Longest variable-length number.
const VARINT_MAX_BYTES: usize = 10;

/// A field as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire<'b> {
    /// A number of any kind.
    Number(u64),
    /// Text, bytes or a message.
    Bytes(&'b [u8]),
}

/// Reads fields; it ends at the first that is malformed.
#[derive(Debug)]
pub(super) struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    fn field(&mut self) -> Result<(u32, Wire<'b>), Wrong> {
        let tag = varint(&mut self.rest)?;
        let number = u32::try_from(tag >> 3).map_err(|_| Wrong::Short)?;
        let wire = match tag & 7 {
            0 => Wire::Number(varint(&mut self.rest)?),
            1 => Wire::Number(fixed(take(&mut self.rest, 8)?)),
            2 => {
                let length = usize::try_from(varint(&mut self.rest)?).map_err(|_| Wrong::Short)?;
                Wire::Bytes(take(&mut self.rest, length)?)
            }
            5 => Wire::Number(fixed(take(&mut self.rest, 4)?)),
            _ => return Err(Wrong::Type(format!("field {number}"))),
        };
        Ok((number, wire))
    }
}

impl<'b> Iterator for Reader<'b> {
    type Item = Result<(u32, Wire<'b>), Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Reads numbers without tags between them.
pub(super) fn packed(mut bytes: &[u8]) -> impl Iterator<Item = Result<u64, Wrong>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let number = varint(&mut bytes);
        if number.is_err() {
            bytes = &[];
        }
        Some(number)
    })
}

fn varint(rest: &mut &[u8]) -> Result<u64, Wrong> {
    let mut number = 0_u64;
    for (index, byte) in rest.iter().take(VARINT_MAX_BYTES).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Ok(number);
        }
    }
    Err(Wrong::Short)
}

fn fixed(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn take<'b>(rest: &mut &'b [u8], length: usize) -> Result<&'b [u8], Wrong> {
    let (taken, left) = rest.split_at_checked(length).ok_or(Wrong::Short)?;
    *rest = left;
    Ok(taken)
}
