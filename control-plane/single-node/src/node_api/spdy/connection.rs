//! A connection with its streams.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use axum::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::frame::{self, DATA_MAX_BYTES, Frame, Reset};
use super::headers::{self, Headers};

/// Streams of a connection at one time: two for each forwarded connection.
const STREAMS_MAX: usize = 512;
/// Pieces of a stream, and frames of a connection, that wait.
const PIECES_MAX: usize = 4;
const FRAMES_MAX: usize = 16;
/// New streams that wait for whoever they are for.
const OPENED_MAX: usize = 16;
/// Time for the last frames to be taken.
const FAREWELL: Duration = Duration::from_secs(5);

/// A stream that the client has opened.
pub(in crate::node_api) struct Stream {
    headers: Headers,
    /// What the client sends, until it ends the stream.
    pub(in crate::node_api) input: mpsc::Receiver<Bytes>,
    pub(in crate::node_api) writer: Writer,
}

impl Stream {
    /// Returns a header, by its name in lower case.
    pub(in crate::node_api) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Writes into a stream.
pub(in crate::node_api) struct Writer {
    id: u32,
    frames: mpsc::Sender<Vec<u8>>,
}

impl Writer {
    /// Sends bytes; whether the connection is still there.
    pub(in crate::node_api) async fn write(&self, bytes: &[u8]) -> bool {
        for piece in bytes.chunks(DATA_MAX_BYTES) {
            let frame = frame::data(self.id, piece, false);
            if self.frames.send(frame).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Ends our side of the stream.
    pub(in crate::node_api) async fn end(self) {
        let _gone = self.frames.send(frame::data(self.id, &[], true)).await;
    }

    /// Ends the stream at once.
    pub(in crate::node_api) async fn reset(self) {
        let _gone = self.frames.send(frame::reset(self.id, Reset::Cancel)).await;
    }
}

/// Serves a connection: `run` gets the streams as they are opened, and must end when no more can come. Ends with it.
pub(in crate::node_api) async fn serve<C, F, R>(connection: C, run: F)
where
    C: AsyncRead + AsyncWrite + Send,
    F: FnOnce(mpsc::Receiver<Stream>) -> R,
    R: Future<Output = ()>,
{
    let (reader, writer) = tokio::io::split(connection);
    let (frames, waiting) = mpsc::channel(FRAMES_MAX);
    let (opened, streams) = mpsc::channel(OPENED_MAX);
    let reading = Reading {
        reader,
        frames,
        opened,
        inputs: HashMap::new(),
        last_id: 0,
    };
    let mut running = std::pin::pin!(run(streams));
    let mut writing = std::pin::pin!(write(writer, waiting));
    let mut reading = Box::pin(reading.run());
    tokio::select! {
        () = &mut running => {
            drop(reading);
            // Nobody sends frames any more, so this ends when all are sent.
            let _in_time = timeout(FAREWELL, writing).await;
        }
        () = &mut writing => {
            drop(reading);
            running.await;
        }
        read = &mut reading => {
            if let Err(error) = read {
                tracing::debug!(%error, "a SPDY connection broke");
            }
            drop(reading);
            let _in_time = tokio::join!(running, timeout(FAREWELL, writing));
        }
    }
}

async fn write<C: AsyncWrite>(mut writer: WriteHalf<C>, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        let written = writer.write_all(&frame).await;
        if written.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    let _gone = writer.shutdown().await;
}

/// The client's side of a connection.
struct Reading<C> {
    reader: ReadHalf<C>,
    frames: mpsc::Sender<Vec<u8>>,
    opened: mpsc::Sender<Stream>,
    /// Streams whose client has more to send.
    inputs: HashMap<u32, mpsc::Sender<Bytes>>,
    last_id: u32,
}

impl<C: AsyncRead> Reading<C> {
    async fn run(mut self) -> io::Result<()> {
        let mut unpacking = headers::Reader::new();
        while let Some(frame) = frame::read(&mut self.reader, &mut unpacking).await? {
            match frame {
                Frame::Open {
                    id,
                    headers,
                    is_last,
                } => self.open(id, headers, is_last).await,
                Frame::Data { id, bytes, is_last } => self.take(id, bytes, is_last).await,
                Frame::Reset { id } => {
                    self.inputs.remove(&id);
                }
                // Ours would be even, and there are none.
                Frame::Ping { id } if id % 2 == 1 => self.send(frame::ping(id)).await,
                Frame::Leave => break,
                Frame::Ping { .. } | Frame::Other => {}
            }
        }
        Ok(())
    }

    async fn send(&mut self, frame: Vec<u8>) {
        // When the writer is gone, so will be the reader.
        let _gone = self.frames.send(frame).await;
    }

    async fn open(&mut self, id: u32, headers: Headers, is_last: bool) {
        self.inputs.retain(|_, input| !input.is_closed());
        if id.is_multiple_of(2) || id <= self.last_id || self.inputs.len() >= STREAMS_MAX {
            return self.send(frame::reset(id, Reset::Refused)).await;
        }
        self.send(frame::reply(id, self.last_id == 0)).await;
        self.last_id = id;
        let (pieces, input) = mpsc::channel(PIECES_MAX);
        if !is_last {
            self.inputs.insert(id, pieces);
        }
        let writer = Writer {
            id,
            frames: self.frames.clone(),
        };
        let stream = Stream {
            headers,
            input,
            writer,
        };
        let _not_wanted = self.opened.send(stream).await;
    }

    async fn take(&mut self, id: u32, bytes: Bytes, is_last: bool) {
        let Some(input) = self.inputs.get(&id) else {
            if id > self.last_id {
                self.send(frame::reset(id, Reset::Invalid)).await;
            }
            return;
        };
        if !bytes.is_empty() {
            // Who does not read a stream does not want it.
            let _not_wanted = input.send(bytes).await;
        }
        if is_last {
            self.inputs.remove(&id);
        }
    }
}
