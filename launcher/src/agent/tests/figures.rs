//! What monitoring reads: the agent's own words.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Act, SOON, freezing, ordinary, scene};
use crate::agent::{AgentError, Question};

/// An agent that also has these commands.
fn with(commands: &[&str], command: &str) -> Option<Act> {
    if command != "guest-info" {
        return None;
    }
    let Act::Return(mut info) = ordinary(command, &Value::Null) else {
        return None;
    };
    let more = commands
        .iter()
        .map(|name| json!({"name": name, "enabled": true}));
    info["supported_commands"].as_array_mut()?.extend(more);
    Some(Act::Return(info))
}

#[test]
fn figures_are_the_agents_own_json_and_asked_only_when_wished() {
    let scene = scene(|command, _| match command {
        "guest-get-cpustats" => Some(Act::Return(json!([{"type": "linux", "cpu": 0, "user": 7}]))),
        "guest-get-time" => Some(Act::Return(json!(1_700_000_000_000_000_000_u64))),
        _ => with(&["guest-get-cpustats", "guest-get-time"], command),
    })
    .known();
    let unasked = scene
        .asked
        .try_iter()
        .all(|(command, _)| command != "guest-get-cpustats");
    assert!(unasked, "nobody wished it");
    let questions = [
        Question::CpuStats,
        Question::Time,
        Question::Os,
        Question::Routes,
    ];
    let figures = || {
        let told = scene.agent.figures(&questions, SOON).unwrap();
        let texts = told.into_iter().map(|figure| figure.unwrap());
        texts
            .map(|text| text.map(|text| serde_json::from_str(&text).unwrap()))
            .collect::<Vec<Option<Value>>>()
    };
    let expected = [
        Some(json!([{"type": "linux", "cpu": 0, "user": 7}])),
        Some(json!(1_700_000_000_000_000_000_u64)),
        Some(
            json!({"id": "debian", "pretty-name": "Debian 12", "kernel-release": "6.1", "x": [1]}),
        ),
        None,
    ];
    assert_eq!(figures(), expected);
    assert_eq!(figures(), expected);
    let asked = scene.asked.try_iter();
    let times = asked.filter(|(command, _)| command == "guest-get-cpustats");
    assert_eq!(times.count(), 1, "the second comes from memory");
}

#[test]
fn a_figure_that_does_not_come_fails_alone() {
    let scene = scene(|command, _| match command {
        "guest-get-disks" => Some(Act::Return(json!({"name": "/dev/vda"}))),
        "guest-get-diskstats" => Some(Act::Refuse),
        "guest-get-memory-blocks" => Some(Act::Silence),
        _ => with(
            &[
                "guest-get-disks",
                "guest-get-diskstats",
                "guest-get-memory-blocks",
            ],
            command,
        ),
    })
    .known();
    let questions = [
        Question::HostName,
        Question::Disks,
        Question::DiskStats,
        Question::MemoryBlocks,
    ];
    let told = scene
        .agent
        .figures(&questions, Duration::from_secs(1))
        .unwrap();
    let error = |at: usize| vmm::error_chain(told[at].as_ref().unwrap_err());
    assert_eq!(
        told[0].as_ref().unwrap().as_deref(),
        Some(r#"{"host-name":"engine"}"#)
    );
    assert_eq!(
        error(1),
        "read the guest agent's answer to guest-get-disks: expected a list"
    );
    assert_eq!(
        error(2),
        "run guest-get-diskstats in the guest agent: GenericError: no"
    );
    assert!(matches!(
        **told[3].as_ref().unwrap_err(),
        AgentError::Timeout {
            command: "guest-get-memory-blocks"
        }
    ));
    assert!(
        scene.agent.report().connected,
        "a slow agent is none that has gone"
    );
}

#[test]
fn a_figure_has_a_longest_length() {
    let scene = scene(|command, _| match command {
        "guest-get-memory-blocks" => {
            let block = json!({"phys-index": 1, "online": true, "can-offline": true});
            Some(Act::Return(json!(vec![block; 40_000])))
        }
        _ => with(&["guest-get-memory-blocks"], command),
    })
    .known();
    let told = scene
        .agent
        .figures(&[Question::MemoryBlocks], SOON)
        .unwrap();
    let text = told[0].as_ref().unwrap().clone().unwrap();
    assert!(text.len() <= 256 << 10 && text.len() > 128 << 10);
    let blocks: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(blocks.iter().all(|block| block["can-offline"] == true));
}

#[test]
fn without_an_agent_there_are_no_figures_and_nobody_waits() {
    let scene = scene(|_, _| Some(Act::Silence));
    scene.until_asked("guest-sync-delimited");
    let told = scene.agent.figures(&[Question::Load], SOON).unwrap();
    assert!(matches!(
        **told[0].as_ref().unwrap_err(),
        AgentError::NotConnected
    ));
}

#[test]
fn a_guest_at_rest_is_asked_nothing_new() {
    let asked = Arc::new(AtomicU32::new(0));
    let mut freezing = freezing();
    let scene = scene({
        let asked = Arc::clone(&asked);
        move |command, arguments| {
            asked.fetch_add(u32::from(command == "guest-get-disks"), Ordering::Relaxed);
            with(&["guest-get-disks"], command).or_else(|| freezing(command, arguments))
        }
    })
    .known();
    let figures = || {
        scene
            .agent
            .figures(&[Question::Load, Question::Disks], SOON)
            .unwrap()
    };
    let rests = || {
        let told = figures();
        assert!(told[0].as_ref().unwrap().is_some(), "what was known before");
        assert!(matches!(
            **told[1].as_ref().unwrap_err(),
            AgentError::Resting { .. }
        ));
    };
    scene.agent.set_paused(true);
    rests();
    scene.agent.freeze(None).unwrap();
    scene.agent.set_paused(false);
    rests();
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    scene.agent.thaw().unwrap();
    assert!(matches!(
        **figures()[1].as_ref().unwrap_err(),
        AgentError::Refused { .. }
    ));
}
