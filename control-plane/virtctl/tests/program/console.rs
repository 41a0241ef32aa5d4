//! The console, by hand and by scripts.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::Child;
use tokio::time::timeout;

use super::endpoint::{Endpoint, Farewell, not_found, refusal};
use super::line::{PATIENCE, program_at, run};
use super::pseudo_terminal::{PseudoTerminal, assert_same};

const CONSOLE: &str =
    "/apis/subresources.kubevirt.io/v1/namespaces/ns/virtualmachineinstances/a/console";
const CONNECTED: &str =
    "Successfully connected to a console. Press Ctrl+] or Ctrl+5 to exit console.";

fn running(_: &str, path: &str) -> (u16, Value) {
    if path.contains("/virtualmachines/") {
        return not_found("virtualmachines.kubevirt.io", "a");
    }
    (
        200,
        json!({"metadata": {"uid": "u"}, "status": {"phase": "Running"}}),
    )
}

async fn code(child: &mut Child) -> Option<i32> {
    let status = timeout(PATIENCE, child.wait()).await;
    status.expect("the command hangs").unwrap().code()
}

async fn connected(endpoint: &Endpoint, terminal: &mut PseudoTerminal) -> Child {
    let mut command = program_at(endpoint);
    command.args(["console", "a"]);
    let child = terminal.spawn(command);
    terminal.wait_for(CONNECTED).await;
    terminal.wait_for("login: ").await;
    child
}

#[tokio::test]
async fn keys_reach_the_guest_until_the_escape_key_restores_the_terminal() {
    let endpoint = Endpoint::start(running).await;
    let mut terminal = PseudoTerminal::open();
    let before = terminal.modes();
    let mut child = connected(&endpoint, &mut terminal).await;
    assert!(terminal.is_raw());
    // Ctrl-C is for the guest.
    terminal.press("root\r\u{3}");
    terminal.wait_for("root\r\u{3}").await;
    terminal.press("\u{1d}");
    assert_eq!(code(&mut child).await, Some(0));
    assert_same(&before, &terminal.modes());
    assert_eq!(endpoint.asked().last().unwrap().path, CONSOLE);
}

#[tokio::test]
async fn a_signal_restores_the_terminal() {
    let endpoint = Endpoint::start(running).await;
    let mut terminal = PseudoTerminal::open();
    let before = terminal.modes();
    let mut child = connected(&endpoint, &mut terminal).await;
    assert!(terminal.is_raw());
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    kill_process(pid.unwrap(), Signal::TERM).unwrap();
    assert_eq!(code(&mut child).await, Some(128 + 15));
    assert_same(&before, &terminal.modes());
}

#[tokio::test]
async fn a_console_that_is_taken_over_is_left_with_the_reason() {
    let farewell = Farewell {
        line: "x",
        reason: "another client has taken over the console",
    };
    let endpoint = Endpoint::start_parting(running, farewell).await;
    let mut terminal = PseudoTerminal::open();
    let before = terminal.modes();
    let mut child = connected(&endpoint, &mut terminal).await;
    terminal.press("x");
    terminal
        .wait_for("another client has taken over the console")
        .await;
    assert_eq!(code(&mut child).await, Some(1));
    assert_same(&before, &terminal.modes());
}

#[tokio::test]
async fn the_console_comes_back_when_the_machine_restarts() {
    let looks = AtomicUsize::new(0);
    let script = move |method: &str, path: &str| {
        if path.contains("/virtualmachines/") {
            return (200, json!({"spec": {"runStrategy": "Always"}}));
        }
        if path.ends_with("/console") {
            return (200, Value::Null);
        }
        let look = looks.fetch_add(1, Ordering::Relaxed);
        match look {
            0 => running(method, path),
            1..4 => not_found("virtualmachineinstances.kubevirt.io", "a"),
            _ => (
                200,
                json!({"metadata": {"uid": "new"}, "status": {"phase": "Running"}}),
            ),
        }
    };
    let farewell = Farewell {
        line: "poweroff",
        reason: "the machine's console is closed",
    };
    let endpoint = Endpoint::start_parting(script, farewell).await;
    let mut terminal = PseudoTerminal::open();
    let mut child = connected(&endpoint, &mut terminal).await;
    terminal.press("poweroff");
    terminal.wait_for("The machine restarts").await;
    terminal.wait_for(CONNECTED).await;
    terminal.wait_for("login: ").await;
    terminal.press("hi");
    terminal.wait_for("hi").await;
    terminal.press("\u{1d}");
    assert_eq!(code(&mut child).await, Some(0));
}

#[tokio::test]
async fn scripts_type_and_read_the_answer() {
    let endpoint = Endpoint::start(running).await;
    let mut command = program_at(&endpoint);
    command.args(["console", "a", "--linger=1s"]);
    let outcome = run(command, "root\nuname\n").await;
    assert_eq!(outcome.stdout, "login: root\nuname\n");
    assert_eq!(outcome.code, Some(0));
    assert!(outcome.stderr.contains(CONNECTED), "{}", outcome.stderr);
    let mut command = program_at(&endpoint);
    command.args(["console", "a", "--linger=1h"]);
    let outcome = run(command, "quit\u{1d}not sent").await;
    assert_eq!(
        (outcome.code, outcome.stdout.contains("not sent")),
        (Some(0), false)
    );
}

#[tokio::test]
async fn an_instance_that_comes_up_is_waited_for() {
    let looks = AtomicUsize::new(0);
    let script = move |method: &str, path: &str| {
        if path.contains("/virtualmachines/") {
            return (
                200,
                json!({"spec": {"running": true}, "status": {"printableStatus": "Starting"}}),
            );
        }
        let look = looks.fetch_add(1, Ordering::Relaxed);
        match look {
            0 => not_found("virtualmachineinstances.kubevirt.io", "a"),
            1 => (200, json!({"status": {"phase": "Scheduling"}})),
            // It ran when it was looked at, and not when the console was to be opened.
            3 => refusal(400, "BadRequest", "VMI is not running"),
            _ => running(method, path),
        }
    };
    let endpoint = Endpoint::start(script).await;
    let mut command = program_at(&endpoint);
    command.args(["console", "a", "--linger=500ms"]);
    let outcome = run(command, "").await;
    assert_eq!(
        (outcome.stdout.as_str(), outcome.code),
        ("login: ", Some(0)),
        "{outcome:?}"
    );
    for expected in [
        "Waiting for VM a: Starting",
        "phase Scheduling",
        "not running",
    ] {
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    }
}

#[tokio::test]
async fn waiting_ends_with_the_reason() {
    let pending = |_: &str, path: &str| match path.contains("/virtualmachines/") {
        true => not_found("virtualmachines.kubevirt.io", "a"),
        false => (200, json!({"status": {"phase": "Pending"}})),
    };
    let endpoint = Endpoint::start(pending).await;
    let mut command = program_at(&endpoint);
    command.args(["console", "a", "--timeout=1s"]);
    let outcome = run(command, "").await;
    assert_eq!(outcome.code, Some(1));
    let expected = "Timeout trying to connect to the virtual machine instance a after 1s";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("phase Pending"),
        "{}",
        outcome.stderr
    );

    let endpoint = Endpoint::start(|_, path| match path.contains("/virtualmachines/") {
        true => (200, json!({"spec": {"running": false}})),
        false => not_found("virtualmachineinstances.kubevirt.io", "a"),
    })
    .await;
    let mut command = program_at(&endpoint);
    command.args(["console", "a"]);
    let outcome = run(command, "").await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .contains("VM a is stopped: start it with `virtctl start a`")
    );
}

#[tokio::test]
async fn who_may_only_have_the_console_has_it() {
    let endpoint = Endpoint::start(|_, path| match path.ends_with("/console") {
        true => (200, Value::Null),
        false => refusal(403, "Forbidden", "user cannot get virtualmachineinstances"),
    })
    .await;
    let mut command = program_at(&endpoint);
    command.args(["console", "a", "--linger=500ms"]);
    let outcome = run(command, "").await;
    assert_eq!(
        (outcome.stdout.as_str(), outcome.code),
        ("login: ", Some(0)),
        "{outcome:?}"
    );
}
