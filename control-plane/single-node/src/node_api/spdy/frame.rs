//! Frames of SPDY/3.1 (draft-mbelshe-httpbis-spdy-00 §2.2).

use std::io;

use axum::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::headers::{self, Headers};

/// Bytes of the content of a frame that are taken; clients send 32 KiB.
const FRAME_MAX_BYTES: usize = 256 << 10;
/// Bytes of content that are sent in a frame.
pub(super) const DATA_MAX_BYTES: usize = 32 << 10;
const VERSION: u16 = 3;
const IS_CONTROL: u16 = 1 << 15;
/// The upper bit of a stream's number is reserved.
const STREAM_MASK: u32 = u32::MAX >> 1;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FLAG_FIN: u8 = 1;

/// Status of `RST_STREAM`: the stream is not known, refused, or not wanted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    Invalid = 2,
    Refused = 3,
    Cancel = 5,
}

/// A frame of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A new stream.
    Open {
        id: u32,
        headers: Headers,
        is_last: bool,
    },
    /// Content of a stream.
    Data {
        id: u32,
        bytes: Bytes,
        is_last: bool,
    },
    /// A stream is over.
    Reset { id: u32 },
    /// To be sent back.
    Ping { id: u32 },
    /// The client is about to leave.
    Leave,
    /// Something that changes nothing here.
    Other,
}

/// Reads the next frame; `None` at the end of the connection.
pub(super) async fn read(
    connection: &mut (impl AsyncRead + Unpin),
    unpacking: &mut headers::Reader,
) -> io::Result<Option<Frame>> {
    let mut head = [0; 8];
    match connection.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let [a, b, c, d, flags, e, f, g] = head;
    let len = usize::try_from(u32::from_be_bytes([0, e, f, g])).map_err(io::Error::other)?;
    if len > FRAME_MAX_BYTES {
        return Err(invalid("a frame is too long"));
    }
    let mut content = vec![0; len];
    connection.read_exact(&mut content).await?;
    let first = u16::from_be_bytes([a, b]);
    let is_last = flags & FLAG_FIN != 0;
    if first & IS_CONTROL == 0 {
        return Ok(Some(Frame::Data {
            id: u32::from_be_bytes([a, b, c, d]),
            bytes: content.into(),
            is_last,
        }));
    }
    if first & !IS_CONTROL != VERSION {
        return Err(invalid("it is another version of SPDY"));
    }
    control(u16::from_be_bytes([c, d]), &content, is_last, unpacking).map(Some)
}

fn control(
    kind: u16,
    content: &[u8],
    is_last: bool,
    unpacking: &mut headers::Reader,
) -> io::Result<Frame> {
    let number = |at: usize| {
        let bytes = content.get(at..at + 4).and_then(|it| it.try_into().ok());
        let bytes = bytes.ok_or_else(|| invalid("a frame is too short"))?;
        Ok::<_, io::Error>(u32::from_be_bytes(bytes))
    };
    Ok(match kind {
        SYN_STREAM => {
            let packed = content
                .get(10..)
                .ok_or_else(|| invalid("a frame is too short"))?;
            if packed.len() > headers::PACKED_MAX_BYTES {
                return Err(invalid("headers are too long"));
            }
            Frame::Open {
                id: number(0)? & STREAM_MASK,
                headers: unpacking.read(packed)?,
                is_last,
            }
        }
        RST_STREAM => Frame::Reset {
            id: number(0)? & STREAM_MASK,
        },
        PING => Frame::Ping { id: number(0)? },
        GOAWAY => Frame::Leave,
        _ => Frame::Other,
    })
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

fn whole(head: [u8; 4], flags: u8, content: &[u8]) -> Vec<u8> {
    let [_, len @ ..] = u32::try_from(content.len())
        .unwrap_or_default()
        .to_be_bytes();
    [&head[..], &[flags], &len, content].concat()
}

fn control_frame(kind: u16, content: &[u8]) -> Vec<u8> {
    let [a, b] = (IS_CONTROL | VERSION).to_be_bytes();
    let [c, d] = kind.to_be_bytes();
    whole([a, b, c, d], 0, content)
}

/// Accepts a stream; `is_first` of its connection.
pub(super) fn reply(id: u32, is_first: bool) -> Vec<u8> {
    let content = [&id.to_be_bytes()[..], &headers::none(is_first)].concat();
    control_frame(SYN_REPLY, &content)
}

/// Ends a stream.
pub(super) fn reset(id: u32, status: Reset) -> Vec<u8> {
    let status = u32::from(status as u8);
    control_frame(
        RST_STREAM,
        &[id.to_be_bytes(), status.to_be_bytes()].concat(),
    )
}

/// Answers a ping.
pub(super) fn ping(id: u32) -> Vec<u8> {
    control_frame(PING, &id.to_be_bytes())
}

/// Content of a stream, at most [`DATA_MAX_BYTES`].
pub(super) fn data(id: u32, bytes: &[u8], is_last: bool) -> Vec<u8> {
    whole(id.to_be_bytes(), if is_last { FLAG_FIN } else { 0 }, bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Frame, data, ping, read, reset};
    use crate::node_api::spdy::frame::Reset;
    use crate::node_api::spdy::headers;

    fn frames(mut bytes: &[u8]) -> Vec<Frame> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut unpacking = headers::Reader::new();
        let mut frames = Vec::new();
        while let Ok(Some(frame)) = runtime.block_on(read(&mut bytes, &mut unpacking)) {
            frames.push(frame);
        }
        frames
    }

    #[test]
    fn frames_are_read_back() {
        let sent = [data(5, b"abc", true), ping(7), reset(3, Reset::Cancel)].concat();
        let wanted = [
            Frame::Data {
                id: 5,
                bytes: "abc".into(),
                is_last: true,
            },
            Frame::Ping { id: 7 },
            Frame::Reset { id: 3 },
        ];
        assert_eq!(frames(&sent), wanted);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            frames(&bytes);
        }

        #[test]
        fn no_headers_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let open = [&[0x80, 3, 0, 1, 0, 0, 0, u8::try_from(bytes.len() + 10).unwrap()][..], &[0; 10], &bytes].concat();
            frames(&open);
        }
    }
}
