//! A client that speaks SPDY as `kubectl` does.

use std::collections::{HashMap, HashSet};

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::place::{Place, Socket};
use crate::node_api::spdy::tests::pack;

/// Begins a zlib stream with the dictionary.
const BEGIN: [u8; 6] = [0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2];

trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

pub(super) struct Client {
    connection: Box<dyn Connection>,
    last_id: u32,
    data: HashMap<u32, Vec<u8>>,
    ended: HashSet<u32>,
    replied: HashSet<u32>,
    pings: usize,
}

impl Client {
    fn new(connection: impl Connection + 'static) -> Self {
        Self {
            connection: Box::new(connection),
            last_id: 0,
            data: HashMap::new(),
            ended: HashSet::new(),
            replied: HashSet::new(),
            pings: 0,
        }
    }

    pub(super) async fn upgrade(place: &Place, path: &str, purpose: &str) -> Self {
        let mut connection = TcpStream::connect(&place.address).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
            X-Stream-Protocol-Version: {purpose}\r\nContent-Length: 0\r\n\r\n"
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert!(
            head.contains(&format!("x-stream-protocol-version: {purpose}")),
            "{head}"
        );
        Self::new(connection)
    }

    pub(super) fn tunnel(socket: Socket) -> Self {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(carry(socket, theirs));
        Self::new(ours)
    }

    /// Opens a stream and waits until it is accepted.
    pub(super) async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let begin = if self.last_id == 0 { &BEGIN[..] } else { &[] };
        self.last_id += if self.last_id == 0 { 1 } else { 2 };
        let id = self.last_id;
        let content = [&id.to_be_bytes()[..], &[0; 6], &pack(headers, begin)].concat();
        self.write([0x80, 3, 0, 1], 0, &content).await;
        while !self.replied.contains(&id) {
            assert!(self.take().await, "the connection has ended");
        }
        id
    }

    pub(super) async fn send(&mut self, id: u32, bytes: &[u8], is_last: bool) {
        for piece in bytes.chunks(32 << 10) {
            self.write(id.to_be_bytes(), 0, piece).await;
        }
        if is_last {
            self.write(id.to_be_bytes(), 1, &[]).await;
        }
    }

    /// Reads a stream to its end.
    pub(super) async fn read(&mut self, id: u32) -> Vec<u8> {
        while !self.ended.contains(&id) {
            assert!(self.take().await, "the connection has ended");
        }
        self.data.remove(&id).unwrap_or_default()
    }

    pub(super) async fn ping(&mut self) {
        self.write([0x80, 3, 0, 6], 0, &1_u32.to_be_bytes()).await;
        while self.pings == 0 {
            assert!(self.take().await, "the connection has ended");
        }
    }

    async fn write(&mut self, head: [u8; 4], flags: u8, content: &[u8]) {
        let [_, len @ ..] = u32::try_from(content.len()).unwrap().to_be_bytes();
        let frame = [&head[..], &[flags], &len, content].concat();
        self.connection.write_all(&frame).await.unwrap();
    }

    /// Takes a frame; whether there was one.
    async fn take(&mut self) -> bool {
        let mut head = [0; 8];
        if self.connection.read_exact(&mut head).await.is_err() {
            return false;
        }
        let len = u32::from_be_bytes([0, head[5], head[6], head[7]]);
        let mut content = vec![0; usize::try_from(len).unwrap()];
        self.connection.read_exact(&mut content).await.unwrap();
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().unwrap());
        match head[..4] {
            [0x80, 3, 0, 2] => {
                self.replied.insert(number(&content));
            }
            [0x80, 3, 0, 3] => {
                self.ended.insert(number(&content));
            }
            [0x80, 3, 0, 6] => self.pings += 1,
            [0x80, ..] => panic!("unexpected frame {head:?}"),
            _ => {
                let id = number(&head);
                self.data.entry(id).or_default().extend(content);
                if head[4] & 1 != 0 {
                    self.ended.insert(id);
                }
            }
        }
        true
    }
}

async fn carry(mut socket: Socket, mut connection: DuplexStream) {
    let mut chunk = vec![0; 16 << 10];
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => connection.write_all(&bytes).await.unwrap(),
                Some(Ok(_)) => {}
                _ => return,
            },
            read = connection.read(&mut chunk) => match read {
                Ok(len @ 1..) => socket.send(Message::Binary(chunk[..len].to_vec().into())).await.unwrap(),
                _ => return,
            },
        }
    }
}
