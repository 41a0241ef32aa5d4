//! Ports, ssh and displays.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::endpoint::{Endpoint, refusal};
use super::line::{PATIENCE, program_at, run};

fn open(_: &str, _: &str) -> (u16, Value) {
    (200, Value::Null)
}

/// Starts a command, and returns its first line.
async fn first_line(mut command: Command) -> (Child, String) {
    command.stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let mut lines = BufReader::new(stdout).lines();
    let line = timeout(PATIENCE, lines.next_line())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    (child, line)
}

/// Returns the address in a line.
fn address(line: &str) -> &str {
    let mut words = line.split(' ');
    words.find(|word| word.starts_with("127.0.0.1:")).unwrap()
}

#[tokio::test]
async fn connections_are_carried_to_the_port_of_the_guest() {
    let endpoint = Endpoint::start(open).await;
    let mut command = program_at(&endpoint);
    command.args(["port-forward", "vm/a/other", ":80"]);
    let (mut child, line) = first_line(command).await;
    assert!(line.ends_with("to port 80 of vm/a/other"), "{line}");
    let mut connection = TcpStream::connect(address(&line)).await.unwrap();
    connection.write_all(b"hello").await.unwrap();
    let mut heard = [0; 12];
    timeout(PATIENCE, connection.read_exact(&mut heard))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&heard, b"login: hello");
    let path =
        "/apis/subresources.kubevirt.io/v1/namespaces/other/virtualmachines/a/portforward/80/tcp";
    assert_eq!(endpoint.asked()[0].path, path);
    child.kill().await.unwrap();
}

#[tokio::test]
async fn datagrams_are_carried_both_ways() {
    let endpoint = Endpoint::start(open).await;
    let mut command = program_at(&endpoint);
    command.args(["port-forward", "a.other", "udp/0:53", "--namespace=ns"]);
    let (mut child, line) = first_line(command).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(address(&line)).await.unwrap();
    socket.send(b"question").await.unwrap();
    let mut heard = [0; 100];
    for expected in [&b"login: "[..], b"question"] {
        let len = timeout(PATIENCE, socket.recv(&mut heard))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&heard[..len], expected);
    }
    let path = "/apis/subresources.kubevirt.io/v1/namespaces/ns/virtualmachineinstances/a.other/portforward/53/udp";
    assert_eq!(endpoint.asked()[0].path, path);
    child.kill().await.unwrap();
}

#[tokio::test]
async fn standard_input_and_output_are_a_connection() {
    let endpoint = Endpoint::start(open).await;
    let mut command = program_at(&endpoint);
    command.args(["port-forward", "--stdio=true", "vmi/a/ns", "22"]);
    let bytes = "SSH-2.0\r\n\u{1d}\u{3}";
    let outcome = run(command, bytes).await;
    assert_eq!(outcome.stdout, format!("login: {bytes}"));
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn what_the_server_refuses_is_told() {
    let endpoint = Endpoint::start(|_, _| refusal(400, "BadRequest", "VMI is not running")).await;
    let mut command = program_at(&endpoint);
    command.args(["port-forward", "--stdio", "vmi/a", "22"]);
    let outcome = run(command, "").await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .contains("can't access vmi/a/ns: VMI is not running")
    );
}

#[tokio::test]
async fn a_viewer_is_carried_to_the_display() {
    let endpoint = Endpoint::start(open).await;
    let mut command = program_at(&endpoint);
    command.args(["vnc", "a", "--proxy-only", "--preserve-session"]);
    let (mut child, line) = first_line(command).await;
    let port = serde_json::from_str::<Value>(&line).unwrap()["port"]
        .as_u64()
        .unwrap();
    let port = u16::try_from(port).unwrap();
    let mut viewer = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut heard = [0; 7];
    timeout(PATIENCE, viewer.read_exact(&mut heard))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&heard, b"login: ");
    assert!(
        endpoint.asked()[0]
            .path
            .ends_with("/vnc?preserveSession=true")
    );
    child.kill().await.unwrap();
}

#[tokio::test]
async fn the_local_clients_are_told_how_to_connect() {
    let folder = tempfile::tempdir().unwrap();
    for client in ["ssh", "scp"] {
        let path = folder.path().join(client);
        std::fs::write(
            &path,
            "#!/bin/sh\nfor word; do echo \"$word\"; done\nexit 7\n",
        )
        .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let endpoint = Endpoint::start(|_, _| (200, json!({}))).await;
    let search = format!("{}:/usr/bin:/bin", folder.path().display());
    let call = |words: &[&str]| {
        let mut command = program_at(&endpoint);
        command.env("PATH", &search).args(words);
        command
    };
    let server = format!("--server=http://{}", endpoint.address);
    let outcome = run(call(&["ssh", "vm/a", "-i", "key", "-c", "ls /"]), "").await;
    assert_eq!(outcome.code, Some(7), "{outcome:?}");
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert!(
        lines[1].starts_with("ProxyCommand=/") && lines[1].contains(&server),
        "{lines:?}"
    );
    assert!(
        lines[1].ends_with("port-forward --stdio=true vm/a/ns 22"),
        "{lines:?}"
    );
    assert_eq!(lines[2..], ["-i", "key", "jdoe@vm.a.ns", "ls /"]);

    let words = [
        "scp",
        "-r",
        "./f",
        "root@vmi/a/m:g",
        "-t",
        "-o LogLevel=ERROR",
    ];
    let outcome = run(call(&words), "").await;
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    let expected = ["-o LogLevel=ERROR", "-r", "--", "./f", "root@vmi.a.m:g"];
    assert_eq!(lines[2..], expected, "{outcome:?}");

    let mut command = call(&["ssh", "vm/a"]);
    command.env("PATH", "/nonexistent");
    let outcome = run(command, "").await;
    assert!(
        outcome.stderr.contains("install the OpenSSH client"),
        "{outcome:?}"
    );
}
