use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread;

use super::{Console, ConsoleSocket, Queue};

#[test]
fn a_full_queue_loses_its_oldest_bytes() {
    let queue = Queue::new(4);
    queue.push_lossy(b"abc");
    queue.push_lossy(b"de");
    queue.close();
    queue.push_lossy(b"f");
    assert_eq!(queue.take(100).unwrap(), b"bcde");
    assert!(queue.take(100).is_none());
    let queue = Queue::new(2);
    queue.push_lossy(b"abcdef");
    assert_eq!(queue.take(100).unwrap(), b"ef");
}

#[test]
fn input_waits_for_the_guest_and_loses_nothing() {
    let queue = Arc::new(Queue::new(3));
    let writer = {
        let queue = Arc::clone(&queue);
        thread::spawn(move || {
            queue.push_blocking(b"abcdefgh");
            queue.close();
        })
    };
    let mut all = Vec::new();
    while let Some(bytes) = queue.take(2) {
        all.extend(bytes);
    }
    writer.join().unwrap();
    assert_eq!(all, b"abcdefgh");
}

#[test]
fn every_viewer_gets_the_whole_output_and_the_end() {
    let console = Console::new();
    let (sender, receiver) = mpsc::channel();
    struct Sink(mpsc::Sender<Vec<u8>>);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let viewers = [
        console.view("a", Sink(sender.clone())).unwrap(),
        console.view("b", Sink(sender)).unwrap(),
    ];
    console.output(b"boot");
    console.close();
    for (_queue, viewer) in viewers {
        viewer.join().unwrap();
    }
    let total: usize = receiver.iter().map(|bytes| bytes.len()).sum();
    assert_eq!(total, 8);
}

#[test]
fn a_connection_takes_over_from_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let console = Console::new();
    let socket = ConsoleSocket::listen(&dir.path().join("virt-serial0"), &console).unwrap();
    let connect = || {
        let mut stream = UnixStream::connect(socket.path()).unwrap();
        stream.write_all(b"k").unwrap();
        // Input that arrived shows that the connection is being viewed.
        assert_eq!(console.input().take(1).unwrap(), b"k");
        stream
    };
    let mut first = connect();
    console.output(b"one");
    let mut text = [0; 3];
    first.read_exact(&mut text).unwrap();
    let mut second = connect();
    assert_eq!(first.read(&mut [0; 8]).unwrap(), 0);
    console.output(b"two");
    console.close();
    let mut text = String::new();
    second.read_to_string(&mut text).unwrap();
    assert_eq!(text, "two");
}
