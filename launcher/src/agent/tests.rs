//! The agent in the guest is a stand-in behind a real socket: it answers by a script and notes what it was asked.

mod figures;
mod hostile;
mod schedule;
mod wire;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Agent, AgentError, AgentReport, ExecOutcome, FreezeStatus, Intervals, Mode};

/// Time for anything that is to happen at once.
const SOON: Duration = Duration::from_secs(20);

/// What the stand-in does with a request.
enum Act {
    /// Answers with a result.
    Return(Value),
    /// Answers with an error.
    Refuse,
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes without end, until nobody takes them.
    Flood(Vec<u8>),
    /// Says nothing.
    Silence,
    /// Closes the connection.
    HangUp,
}

/// A machine's port with a scripted agent, and our side of it.
struct Scene {
    agent: Agent,
    reports: Receiver<AgentReport>,
    /// Commands and arguments, in order; `(connected)` for each connection.
    asked: Receiver<(String, Value)>,
    _folder: TempDir,
}

/// Starts both; `script` sees each command with its arguments, and answers those that it does not know with
/// [`ordinary`].
fn scene(mut script: impl FnMut(&str, &Value) -> Option<Act> + Send + 'static) -> Scene {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    let (noted, asked) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _over = noted.send(("(connected)".to_owned(), Value::Null));
            serve(stream.unwrap(), &mut |command, arguments| {
                let _over = noted.send((command.to_owned(), arguments.clone()));
                script(command, arguments).unwrap_or_else(|| ordinary(command, arguments))
            });
        }
    });
    let (tell, reports) = mpsc::channel();
    let listener = Box::new(move |report| drop(tell.send(report)));
    let agent = Agent::start(socket, listener, Intervals::default()).unwrap();
    Scene {
        agent,
        reports,
        asked,
        _folder: folder,
    }
}

fn serve(stream: UnixStream, script: &mut dyn FnMut(&str, &Value) -> Act) {
    let mut answers = stream.try_clone().unwrap();
    for line in BufReader::new(stream).split(b'\n') {
        let Ok(line) = line else { return };
        let delimited = line.first() == Some(&0xff);
        let request: Value = serde_json::from_slice(&line[usize::from(delimited)..]).unwrap();
        let command = request["execute"].as_str().unwrap();
        let mut answer = match script(command, &request["arguments"]) {
            Act::Return(result) => json!({ "return": result }).to_string().into_bytes(),
            Act::Refuse => br#"{"error": {"class": "GenericError", "desc": "no"}}"#.to_vec(),
            Act::Send(bytes) => {
                let _gone = answers.write_all(&bytes);
                continue;
            }
            Act::Flood(bytes) => {
                while answers.write_all(&bytes).is_ok() {}
                return;
            }
            Act::Silence => continue,
            Act::HangUp => return,
        };
        if delimited {
            answer.insert(0, 0xff);
        }
        answer.push(b'\n');
        let _gone = answers.write_all(&answer);
    }
}

/// What a well-behaved agent answers.
fn ordinary(command: &str, arguments: &Value) -> Act {
    let commands = [
        "guest-fsfreeze-status",
        "guest-get-users",
        "guest-get-osinfo",
        "guest-get-host-name",
        "guest-get-timezone",
        "guest-network-get-interfaces",
        "guest-get-load",
        "guest-get-vcpus",
        "guest-get-fsinfo",
    ];
    let commands =
        commands.map(|name| json!({"name": name, "enabled": true, "success-response": true}));
    Act::Return(match command {
        "guest-sync-delimited" => arguments["id"].clone(),
        "guest-ping" => json!({}),
        "guest-info" => json!({"version": "7.2.1", "supported_commands": commands}),
        "guest-fsfreeze-status" => json!("thawed"),
        "guest-get-users" => json!([{"user": "ada", "login-time": 1700000000.25}]),
        "guest-get-osinfo" => {
            json!({"id": "debian", "pretty-name": "Debian 12", "kernel-release": "6.1", "x": [1]})
        }
        "guest-get-host-name" => json!({"host-name": "engine"}),
        "guest-get-timezone" => json!({"zone": "CET", "offset": 3600}),
        "guest-network-get-interfaces" => json!([
            {"name": "lo"},
            {"name": "eth0", "hardware-address": "02:00:00:00:00:01", "statistics": {"rx-bytes": 1}, "ip-addresses": [
                {"ip-address": "10.0.2.2", "ip-address-type": "ipv4", "prefix": 24},
                {"ip-address": "fe80::1", "ip-address-type": "ipv6", "prefix": 64}]},
        ]),
        "guest-get-load" => json!({"load1m": 0.5, "load5m": 0.25, "load15m": 0.0}),
        "guest-get-vcpus" => {
            json!([{"logical-id": 0, "online": true}, {"logical-id": 1, "online": false}])
        }
        "guest-get-fsinfo" => json!([{
            "name": "vda1", "mountpoint": "/", "type": "ext4", "used-bytes": 5, "total-bytes": 10,
            "disk": [{"serial": "s", "bus-type": "virtio", "dev": "/dev/vda", "bus": 0, "pci-controller": {"bus": 1}}],
        }]),
        _ => return Act::Refuse,
    })
}

impl Scene {
    /// Waits for a report of which something is true.
    fn until(&self, what: impl Fn(&AgentReport) -> bool) -> AgentReport {
        loop {
            let report = self.reports.recv_timeout(SOON).unwrap();
            if what(&report) {
                return report;
            }
        }
    }

    /// Waits until the agent has told everything.
    fn known(self) -> Self {
        self.until(|report| report.connected && !report.filesystems.is_empty());
        self
    }

    /// Waits until the stand-in is asked a command, and returns its arguments.
    fn until_asked(&self, command: &str) -> Value {
        loop {
            let (asked, arguments) = self.asked.recv_timeout(SOON).unwrap();
            if asked == command {
                return arguments;
            }
        }
    }
}

#[test]
fn everything_an_agent_tells_is_reported() {
    let scene = scene(|_, _| None).known();
    let report = scene.agent.report();
    insta::assert_debug_snapshot!(AgentReport {
        supported_commands: Vec::new(),
        ..report.clone()
    });
    assert_eq!(report.supported_commands.len(), 9);
    assert!(report.offers("guest-get-load") && !report.offers("guest-exec"));
}

#[test]
fn only_commands_that_the_agent_offers_are_polled() {
    let scene = scene(|command, _| {
        let old = json!({"version": "2.1", "supported_commands": [
            {"name": "guest-get-fsinfo", "enabled": true}, {"name": "guest-get-users", "enabled": false}]});
        (command == "guest-info").then_some(Act::Return(old))
    })
    .known();
    let asked: Vec<_> = scene.asked.try_iter().map(|(command, _)| command).collect();
    let expected = [
        "(connected)",
        "guest-sync-delimited",
        "guest-info",
        "guest-get-fsinfo",
    ];
    assert_eq!(asked, expected);
}

#[test]
fn a_program_in_the_guest_ends_with_its_output() {
    let mut looks = 0;
    let scene = scene(move |command, _| match command {
        "guest-exec" => Some(Act::Return(json!({"pid": 7}))),
        "guest-exec-status" => {
            looks += 1;
            Some(Act::Return(match looks {
                1 => json!({"exited": false}),
                2 => json!({"exited": true, "exitcode": 3, "out-data": "aGk=", "err-data": "IQ==", "out-truncated": true}),
                _ => json!({"exited": true, "signal": 9}),
            }))
        }
        _ => None,
    })
    .known();
    let args = ["-c".to_owned(), "true".to_owned()];
    let outcome = scene.agent.exec("sh", &args, SOON).unwrap();
    let expected = ExecOutcome {
        exit_code: 3,
        stdout: b"hi".to_vec(),
        stderr: b"!".to_vec(),
        truncated: true,
    };
    assert_eq!(outcome, expected);
    let arguments = scene.until_asked("guest-exec");
    assert_eq!(
        arguments,
        json!({"path": "sh", "arg": ["-c", "true"], "capture-output": true})
    );
    assert_eq!(scene.until_asked("guest-exec-status"), json!({"pid": 7}));
    assert_eq!(
        scene.agent.exec("sh", &[], SOON).unwrap().exit_code,
        128 + 9
    );
}

#[test]
fn a_program_that_takes_too_long_is_given_up() {
    let scene = scene(|command, _| match command {
        "guest-exec" => Some(Act::Return(json!({"pid": 7}))),
        "guest-exec-status" => Some(Act::Return(json!({"exited": false}))),
        _ => None,
    })
    .known();
    let given_up = scene.agent.exec("sleep", &[], Duration::from_millis(100));
    assert!(matches!(
        given_up,
        Err(AgentError::Timeout {
            command: "guest-exec-status"
        })
    ));
    scene.agent.ping(SOON).unwrap();
}

#[test]
fn what_an_agent_refuses_is_told_in_its_words() {
    let scene = scene(|_, _| None).known();
    let refused = scene.agent.exec("sh", &[], SOON).unwrap_err();
    let expected = "run guest-exec in the guest agent: GenericError: no";
    assert_eq!(refused.to_string(), expected);
}

#[test]
fn users_get_passwords_and_keys() {
    let scene = scene(|command, _| {
        let sets = ["guest-set-user-password", "guest-ssh-add-authorized-keys"];
        sets.contains(&command).then(|| Act::Return(json!({})))
    })
    .known();
    scene.agent.set_user_password("ada", "pä", true).unwrap();
    let expected = json!({"username": "ada", "password": "cMOk", "crypted": true});
    assert_eq!(scene.until_asked("guest-set-user-password"), expected);
    scene
        .agent
        .add_ssh_keys("ada", &["ssh-ed25519 A".to_owned()], false)
        .unwrap();
    let expected = json!({"username": "ada", "keys": ["ssh-ed25519 A"], "reset": false});
    assert_eq!(scene.until_asked("guest-ssh-add-authorized-keys"), expected);
}

#[test]
fn a_guest_that_shuts_down_says_nothing_and_one_that_does_not_says_why() {
    let scene = scene(|command, arguments| {
        let obeys = command == "guest-shutdown" && arguments["mode"] == "reboot";
        obeys.then_some(Act::HangUp)
    })
    .known();
    let refused = scene.agent.shutdown(Mode::PowerDown);
    assert!(matches!(refused, Err(AgentError::Refused { .. })));
    scene.agent.shutdown(Mode::Reboot).unwrap();
}

#[test]
fn without_an_agent_requests_fail_at_once() {
    let scene = scene(|_, _| Some(Act::Silence));
    assert_eq!(scene.until_asked("guest-sync-delimited"), json!({"id": 1}));
    assert!(matches!(
        scene.agent.ping(SOON),
        Err(AgentError::NotConnected)
    ));
    assert_eq!(scene.agent.report(), AgentReport::default());
}

#[test]
fn an_answer_that_comes_too_late_is_nobodys() {
    let mut pings = 0;
    let scene = scene(move |command, arguments| match command {
        "guest-ping" => {
            pings += 1;
            (pings == 1).then_some(Act::Silence)
        }
        "guest-sync-delimited" if pings > 0 => {
            let answer = format!("{{\"return\": {}}}\n", arguments["id"]);
            let late = [b"{\"return\": {}}\n\xff".as_slice(), answer.as_bytes()].concat();
            Some(Act::Send(late))
        }
        _ => None,
    })
    .known();
    let late = scene.agent.ping(Duration::from_millis(50));
    assert!(matches!(
        late,
        Err(AgentError::Timeout {
            command: "guest-ping"
        })
    ));
    scene.agent.ping(SOON).unwrap();
    assert!(scene.agent.report().connected);
}

#[test]
fn a_guest_that_was_reset_is_asked_everything_anew() {
    let scene = scene(|_, _| None).known();
    scene.agent.guest_reset();
    assert!(
        !scene
            .until(|report| !report.connected)
            .filesystems
            .is_empty()
    );
    scene.until(|report| report.connected);
    let syncs = scene
        .asked
        .try_iter()
        .filter(|(command, _)| command == "guest-sync-delimited");
    assert_eq!(syncs.count(), 2);
    scene.until_asked("guest-get-fsinfo");
}

#[test]
fn an_agent_that_closes_its_port_is_gone_until_it_opens_it() {
    let scene = scene(|_, _| None).known();
    scene.agent.port_opened(true);
    scene.agent.ping(SOON).unwrap();
    scene.agent.port_opened(false);
    scene.until(|report| !report.connected);
    scene.until(|report| report.connected);
    let asked = scene.asked.try_iter();
    let syncs = asked.filter(|(command, _)| command == "guest-sync-delimited");
    assert_eq!(syncs.count(), 2, "none for the port that was open already");
}

#[test]
fn a_paused_guest_is_not_taken_for_gone() {
    let mut pings = 0;
    let scene = scene(move |command, _| {
        pings += u32::from(command == "guest-ping");
        (command == "guest-ping" && pings == 1).then_some(Act::Silence)
    })
    .known();
    scene.agent.set_paused(true);
    let unanswered = scene.agent.ping(Duration::from_millis(50));
    assert!(matches!(unanswered, Err(AgentError::Timeout { .. })));
    assert!(scene.agent.report().connected);
    scene.agent.set_paused(false);
    scene.agent.ping(SOON).unwrap();
}

/// Answers freeze and thaw as an agent does that freezes three file systems.
fn freezing() -> impl FnMut(&str, &Value) -> Option<Act> {
    let mut frozen = false;
    move |command, _| {
        Some(Act::Return(match command {
            "guest-fsfreeze-status" => json!(if frozen { "frozen" } else { "thawed" }),
            "guest-fsfreeze-freeze" => {
                frozen = true;
                json!(3)
            }
            "guest-fsfreeze-thaw" => {
                frozen = false;
                json!(3)
            }
            _ if frozen && command != "guest-ping" && command != "guest-sync-delimited" => {
                return Some(Act::Refuse);
            }
            _ => return None,
        }))
    }
}

#[test]
fn file_systems_freeze_and_thaw() {
    let scene = scene(freezing()).known();
    assert_eq!(scene.agent.freeze_status().unwrap(), FreezeStatus::Thawed);
    assert_eq!(scene.agent.freeze(None).unwrap(), 3);
    scene.until(|report| report.fs_freeze == Some(FreezeStatus::Frozen));
    assert_eq!(scene.agent.freeze(None).unwrap(), 0);
    assert_eq!(scene.agent.thaw().unwrap(), 3);
    scene.until(|report| report.fs_freeze == Some(FreezeStatus::Thawed));
}

#[test]
fn frozen_file_systems_thaw_by_themselves_in_time() {
    let scene = scene(freezing()).known();
    scene.agent.freeze(Some(Duration::from_millis(50))).unwrap();
    scene.until(|report| report.fs_freeze == Some(FreezeStatus::Frozen));
    scene.until(|report| report.fs_freeze == Some(FreezeStatus::Thawed));
    scene.until_asked("guest-fsfreeze-thaw");
    assert_eq!(scene.agent.freeze_status().unwrap(), FreezeStatus::Thawed);
}

#[test]
fn a_freeze_whose_answer_was_lost_is_undone() {
    let mut lost = false;
    let scene = scene(move |command, _| {
        let lose = command == "guest-fsfreeze-freeze" && !lost;
        lost |= lose;
        match command {
            "guest-fsfreeze-freeze" => Some(Act::HangUp),
            "guest-fsfreeze-thaw" => Some(Act::Return(json!(3))),
            "guest-fsfreeze-status" if lost => Some(Act::Return(json!("frozen"))),
            _ => None,
        }
    })
    .known();
    assert!(matches!(
        scene.agent.freeze(None),
        Err(AgentError::Lost { .. })
    ));
    scene.until_asked("guest-fsfreeze-thaw");
}

#[test]
fn the_last_clone_ends_the_connection() {
    let Scene {
        agent,
        asked,
        reports,
        _folder,
    } = scene(|_, _| None).known();
    let clone = agent.clone();
    drop(agent);
    clone.ping(SOON).unwrap();
    drop(clone);
    // Its thread has let go of the listener.
    while reports.recv().is_ok() {}
    drop(asked);
}
