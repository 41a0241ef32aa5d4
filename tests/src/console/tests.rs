//! The console, tried on shells.

use super::*;

const SOON: Duration = Duration::from_secs(20);

fn shell(script: &str, console: Console) -> Spawned {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Spawned::start(command, console).unwrap()
}

#[test]
fn matches_follow_one_another() {
    let mut child = shell("echo one two one", Console::OutputOnly);
    assert_eq!(child.expect("one", SOON).unwrap(), "one");
    assert_eq!(child.expect("one", SOON).unwrap(), " two one");
    let finished = child.finish(SOON).unwrap();
    assert!(finished.status.success());
    assert_eq!(finished.output, "one two one\n");
}

#[test]
fn text_split_over_writes_is_found() {
    let mut child = shell(
        "printf log; read answer; printf 'in: '; read answer",
        Console::Pipes,
    );
    child.expect("lo", SOON).unwrap();
    child.send("\n").unwrap();
    child.expect("gin: ", SOON).unwrap();
    child.close_input();
    assert!(!child.finish(SOON).unwrap().status.success());
}

#[test]
fn input_reaches_the_child_over_a_terminal() {
    let mut child = shell(
        "test -t 0 && test -t 1 && read line && echo got-$line",
        Console::Terminal,
    );
    child.send("tea\n").unwrap();
    child.expect("got-tea", SOON).unwrap();
    assert!(child.finish(SOON).unwrap().status.success());
}

#[test]
fn a_missed_deadline_shows_the_last_output() {
    let mut child = shell("echo before; read line", Console::Pipes);
    child.expect("before", SOON).unwrap();
    let error = child
        .expect("after", Duration::from_millis(20))
        .unwrap_err();
    assert!(matches!(error, ConsoleError::Late { .. }));
    assert!(error.to_string().contains("before"));
}

#[test]
fn a_closed_console_shows_standard_error() {
    let mut child = shell("echo broken >&2; exit 3", Console::OutputOnly);
    let error = child.expect("never", SOON).unwrap_err();
    assert!(
        matches!(&error, ConsoleError::Closed { errors, .. } if errors.contains("broken")),
        "{error}"
    );
    assert_eq!(child.finish(SOON).unwrap().status.code(), Some(3));
}

#[test]
fn cpu_time_of_a_finished_child_is_known() {
    let child = shell(
        "n=0; while [ $n -lt 200000 ]; do n=$((n + 1)); done",
        Console::OutputOnly,
    );
    let finished = child.finish(SOON * 3).unwrap();
    assert!(
        finished.cpu.user >= Duration::from_millis(10),
        "{:?}",
        finished.cpu
    );
}
