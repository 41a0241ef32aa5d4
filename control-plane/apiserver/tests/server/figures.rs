//! How fast the server is, through sockets; printed, as machines differ.

use std::time::{Duration, Instant};

use futures::future::join_all;

use crate::wire::{Client, MAPS, config_map, serve};

const CLIENTS: usize = 32;
const TIME: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_writes_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, address) = serve(directory.path()).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(address).await);
    }
    let begin = Instant::now();
    let writes = join_all(
        clients
            .iter_mut()
            .enumerate()
            .map(|(index, client)| async move {
                let mut count = 0;
                while begin.elapsed() < TIME {
                    let body = config_map(&format!("object-{index}-{count}"), "some text");
                    let (status, answer) = client.send("POST", MAPS, Some(&body)).await.unwrap();
                    assert!(status.is_success(), "{answer}");
                    count += 1;
                }
                count
            }),
    );
    let writes = rate(&writes.await, begin);
    let begin = Instant::now();
    let reads = join_all(
        clients
            .iter_mut()
            .enumerate()
            .map(|(index, client)| async move {
                let (path, mut count) = (format!("{MAPS}/object-{index}-0"), 0);
                while begin.elapsed() < TIME {
                    let (status, _) = client.send("GET", &path, None).await.unwrap();
                    assert!(status.is_success());
                    count += 1;
                }
                count
            }),
    );
    let reads = rate(&reads.await, begin);
    println!("{writes} writes/s and {reads} reads/s of {CLIENTS} clients");
    assert!(
        writes > 20 && reads > 200,
        "{writes} writes/s and {reads} reads/s"
    );
}

fn rate(counts: &[u64], begin: Instant) -> u64 {
    let millis = u64::try_from(begin.elapsed().as_millis()).unwrap().max(1);
    counts.iter().sum::<u64>() * 1000 / millis
}
