//! Guests that mean no good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Act, SOON, scene};
use crate::agent::AgentError;
use crate::agent::wire::MAX_LINE_BYTES;

/// The answer to a sync, with what stands before it.
fn synced(before: &[u8], id: &serde_json::Value) -> Act {
    let answer = format!("{{\"return\": {id}}}\n");
    Act::Send([before, &[0xff], answer.as_bytes()].concat())
}

#[test]
fn what_stands_before_our_number_is_passed_over() {
    let scene = scene(|command, arguments| {
        let noise = b"\0\x01garbage\xff\xff{\"return\":\n{}[[[\n\xff{\"return\": 999}\n{\"error\": 5}\nrest";
        (command == "guest-sync-delimited").then(|| synced(noise, &arguments["id"]))
    })
    .known();
    scene.agent.ping(SOON).unwrap();
}

#[test]
fn a_wrong_number_is_no_agent() {
    let scene =
        scene(|command, _| (command == "guest-sync-delimited").then(|| synced(b"", &json!(12345))));
    scene.until_asked("guest-sync-delimited");
    assert!(matches!(
        scene.agent.ping(SOON),
        Err(AgentError::NotConnected)
    ));
}

#[test]
fn answers_of_another_shape_leave_the_rest_alone() {
    let scene = scene(|command, _| {
        Some(Act::Return(match command {
            "guest-get-users" => json!({"user": 5}),
            "guest-get-osinfo" => json!([[[]]]),
            "guest-network-get-interfaces" => {
                json!([{"name": "eth0", "ip-addresses": [{"ip-address": 7}]}])
            }
            "guest-fsfreeze-status" => json!("lukewarm"),
            "guest-get-vcpus" => json!(-1),
            "guest-ping" => json!([1]),
            _ => return None,
        }))
    })
    .known();
    let report = scene.agent.report();
    assert!(report.users.is_empty() && report.os.is_none() && report.interfaces.is_empty());
    assert_eq!((report.fs_freeze, report.vcpus_online), (None, None));
    assert_eq!(report.hostname.as_deref(), Some("engine"));
    assert!(matches!(
        scene.agent.ping(SOON),
        Err(AgentError::Answer { .. })
    ));
}

#[test]
fn a_guest_that_says_what_it_was_not_asked_is_left_alone_for_a_while() {
    let lies = Arc::new(AtomicU32::new(0));
    let scene = scene({
        let lies = Arc::clone(&lies);
        move |command, _| {
            let lie = command == "guest-info" && lies.fetch_add(1, Ordering::Relaxed) < 3;
            lie.then(|| Act::Send(b"{\"return\": {}}\n{\"return\": {}}\n".repeat(1000)))
        }
    });
    scene.until(|report| report.connected);
    let scene = scene.known();
    assert_eq!(lies.load(Ordering::Relaxed), 4);
    let connections = scene
        .asked
        .try_iter()
        .filter(|(command, _)| command == "(connected)");
    assert_eq!(connections.count(), 4);
}

#[test]
fn a_guest_that_is_left_alone_stays_so_when_it_opens_its_port() {
    let scene = scene(|command, _| {
        (command == "guest-sync-delimited").then(|| Act::Flood(b"\n".repeat(4096)))
    });
    for _ in 0..4 {
        scene.until_asked("(connected)");
    }
    let left_alone = Instant::now();
    scene.until_asked("guest-sync-delimited");
    while left_alone.elapsed() < Duration::from_millis(600) {
        scene.agent.port_opened(false);
        scene.agent.port_opened(true);
        let busy = scene.agent.ping(SOON);
        assert!(matches!(busy, Err(AgentError::NotConnected)));
    }
    scene.until_asked("(connected)");
    assert!(left_alone.elapsed() >= Duration::from_millis(800));
}

#[test]
fn an_answer_that_is_no_json_ends_the_connection_and_a_new_one_works() {
    let mut lied = false;
    let scene = scene(move |command, _| {
        let lie = command == "guest-ping" && !lied;
        lied |= lie;
        lie.then(|| Act::Send(b"]\n".to_vec()))
    })
    .known();
    assert!(matches!(
        scene.agent.ping(SOON),
        Err(AgentError::Lost { .. })
    ));
    scene.until(|report| !report.connected);
    scene.until(|report| report.connected);
    scene.agent.ping(SOON).unwrap();
}

#[test]
fn deep_json_is_no_answer() {
    let scene = scene(|command, _| {
        let deep = [b"{\"return\": ".as_slice(), &b"[".repeat(100_000), b"\n"].concat();
        (command == "guest-ping").then_some(Act::Send(deep))
    })
    .known();
    assert!(matches!(
        scene.agent.ping(SOON),
        Err(AgentError::Lost { .. })
    ));
}

#[test]
fn a_line_that_is_too_long_fails_its_request_only() {
    let scene = scene(|command, _| {
        let long = [b"x".repeat(2 * MAX_LINE_BYTES), b"\n".to_vec()].concat();
        (command == "guest-exec").then_some(Act::Send(long))
    })
    .known();
    let failed = scene.agent.exec("yes", &[], SOON);
    assert!(matches!(
        failed,
        Err(AgentError::TooLong {
            command: "guest-exec"
        })
    ));
    scene.agent.ping(SOON).unwrap();
    assert!(scene.agent.report().connected);
}

#[test]
fn a_flood_is_cut_off() {
    for piece in [
        b"x".repeat(4096),
        b"\n".repeat(4096),
        b"{\"return\": 0}\n".repeat(300),
    ] {
        let mut flooded = false;
        let scene = scene(move |command, _| {
            let flood = command == "guest-sync-delimited" && !flooded;
            flooded |= flood;
            flood.then(|| Act::Flood(piece.clone()))
        });
        scene.known();
    }
}

#[test]
fn long_lists_and_texts_are_cut() {
    let scene = scene(|command, _| {
        let user = json!({"user": "ö".repeat(600)});
        (command == "guest-get-users").then(|| Act::Return(json!(vec![user; 600])))
    })
    .known();
    let users = scene.agent.report().users;
    assert_eq!((users.len(), users[0].name.len()), (512, 1024));
}
