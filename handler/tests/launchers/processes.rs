//! Launchers that are processes, which are killed and stopped.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use handler::config::{HostPaths, Patience};
use handler::launchers::{AttachError, CommandError, Seen};
use rustix::process::{Pid, Signal, kill_process};

use crate::stand_in::{Host, Pod, Script, StandIn, ended, impatience, json, paths, running, vmi};
use crate::{next, start};

const HOST: &str = "STAND_IN_HOST";
const POD: &str = "STAND_IN_POD";
const READY: &str = "stand-in serves";

/// What the process of a stand-in does.
#[tokio::test]
#[ignore = "other tests run this as a process"]
async fn serves_as_a_launcher() {
    let (Some(host), Some(pod)) = (std::env::var_os(HOST), std::env::var_os(POD)) else {
        println!("skipped: other tests run this as a process");
        return;
    };
    let paths = paths(host.as_ref());
    let pods = pod.into_string().unwrap();
    let mut serving: Vec<_> = pods
        .split(',')
        .map(|pod| StandIn::serve(&Pod::at(&paths, pod), &Script::new()))
        .collect();
    println!("{READY}");
    serving[0].wait().await;
}

/// A stand-in in a process of its own.
struct Process {
    child: Child,
    /// The test harness in the process fails when it cannot write.
    _output: BufReader<ChildStdout>,
}

impl Process {
    fn start(paths: &HostPaths, pods: &str) -> Self {
        let host = paths.pods_dir.parent().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "processes::serves_as_a_launcher",
                "--ignored",
                "--nocapture",
            ])
            .env(HOST, host)
            .env(POD, pods)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let is_ready = output
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains(READY));
        assert!(is_ready, "the stand-in does not serve");
        Self {
            child,
            _output: output,
        }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn a_killed_launcher_is_lost_at_once() {
    let host = Host::new();
    host.pod("p-1");
    let process = Process::start(&host.paths(), "p-1");
    let (launchers, mut seen) = start(&host, Patience::default()).await;
    let launcher = launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
    assert_eq!(launcher.pid, process.pid());
    assert!(matches!(next(&mut seen).await, Seen::NoDomain { .. }));
    let killed = Instant::now();
    process.signal(Signal::KILL);
    let Seen::Lost { key, uid, reason } = next(&mut seen).await else {
        panic!("the launcher is not lost");
    };
    assert!(killed.elapsed() < Duration::from_secs(5));
    assert_eq!((key, uid.as_str()), (launcher.key.clone(), "u-vm"));
    let expected = format!(
        "launcher process {} is gone without a final event",
        process.pid()
    );
    assert_eq!(reason, expected);
    let error = launcher.ping().await.unwrap_err();
    assert!(matches!(error, CommandError::Unreachable { .. }), "{error}");
    let error = launchers.attach(&vmi("vm", &["p-1"])).await.unwrap_err();
    assert!(matches!(error, AttachError::Lost { .. }), "{error}");
}

#[tokio::test]
async fn a_launcher_that_ends_after_its_last_word_is_not_lost() {
    let host = Host::new();
    let pod = host.pod("p-1");
    let process = Process::start(&host.paths(), "p-1");
    let (launchers, mut seen) = start(&host, Patience::default()).await;
    let launcher = launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
    assert!(matches!(next(&mut seen).await, Seen::NoDomain { .. }));
    assert!(pod.tell(json(&running("vm"))).await.success);
    assert!(pod.tell(json(&ended("vm"))).await.success);
    let mut last = next(&mut seen).await;
    if matches!(&last, Seen::Domain { domain, .. } if **domain == running("vm")) {
        last = next(&mut seen).await;
    }
    assert!(matches!(last, Seen::Domain { domain, .. } if *domain == ended("vm")));
    process.signal(Signal::KILL);
    // A second launcher makes the only news after that.
    let second = host.pod("p-2");
    let _stand_in = StandIn::serve(&second, &Script::new());
    let gone = async {
        while !launcher.has_ended() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
    launchers.attach(&vmi("second", &["p-2"])).await.unwrap();
    assert!(matches!(next(&mut seen).await, Seen::NoDomain { uid, .. } if uid == "u-second"));
}

#[tokio::test]
async fn a_stopped_launcher_is_lost_after_the_watchdogs_time_and_marked() {
    let host = Host::new();
    let pod = host.pod("p-1");
    let _other = StandIn::serve(&host.pod("p-2"), &Script::new());
    let process = Process::start(&host.paths(), "p-1");
    let (launchers, mut seen) = start(&host, impatience()).await;
    launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
    let other = launchers.attach(&vmi("other", &["p-2"])).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(next(&mut seen).await, Seen::NoDomain { .. }));
    }
    let stopped = Instant::now();
    process.signal(Signal::STOP);
    let Seen::Lost { uid, reason, .. } = next(&mut seen).await else {
        panic!("the launcher is not lost");
    };
    assert_eq!(uid, "u-vm");
    assert!(reason.contains("has not answered for"), "{reason}");
    assert!(stopped.elapsed() > impatience().watchdog / 2);
    let mark = pod.volume("sockets").join("launcher-unresponsive");
    let marked = async {
        while !mark.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), marked)
        .await
        .unwrap();
    other.ping().await.unwrap();
}

/// Whoever comes later believes the mark.
#[tokio::test]
async fn a_marked_launcher_is_not_attached_to() {
    let host = Host::new();
    let pod = host.pod("p-1");
    let _stand_in = StandIn::serve(&pod, &Script::new());
    std::fs::write(pod.volume("sockets").join("launcher-unresponsive"), b"").unwrap();
    let (launchers, _seen) = start(&host, Patience::default()).await;
    let error = launchers.attach(&vmi("vm", &["p-1"])).await.unwrap_err();
    assert!(matches!(error, AttachError::Silent { .. }), "{error}");
}

/// Another process that takes the socket over is not believed.
#[tokio::test]
async fn commands_do_not_reach_another_process_at_the_same_socket() {
    let host = Host::new();
    let pod = host.pod("p-1");
    let process = Process::start(&host.paths(), "p-1");
    let (launchers, mut seen) = start(&host, Patience::default()).await;
    let launcher = launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
    assert!(matches!(next(&mut seen).await, Seen::NoDomain { .. }));
    std::fs::remove_file(pod.command_socket()).unwrap();
    let _impostor = StandIn::serve(&pod, &Script::with_domain(&running("vm")));
    process.signal(Signal::KILL);
    assert!(matches!(next(&mut seen).await, Seen::Lost { .. }));
    let error = launcher.domain().await.unwrap_err();
    assert!(matches!(error, CommandError::Unreachable { .. }), "{error}");
}

/// A new pod of the same instance is its launcher once the old one has ended and is not among its pods.
#[tokio::test]
async fn a_launcher_in_a_new_pod_takes_the_place_of_an_ended_one() {
    let host = Host::new();
    host.pod("p-1");
    let process = Process::start(&host.paths(), "p-1");
    let (launchers, mut seen) = start(&host, Patience::default()).await;
    launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
    assert!(matches!(next(&mut seen).await, Seen::NoDomain { .. }));
    process.signal(Signal::KILL);
    assert!(matches!(next(&mut seen).await, Seen::Lost { .. }));
    let script = Script::with_domain(&running("vm"));
    let _stand_in = StandIn::serve(&host.pod("p-2"), &script);
    let launcher = launchers.attach(&vmi("vm", &["p-2"])).await.unwrap();
    assert_eq!(launcher.pod_uid, "p-2");
    assert!(matches!(next(&mut seen).await, Seen::Domain { .. }));
}

/// Processor time of this process so far: clock ticks of user and system, by proc(5).
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    fields
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum()
}

#[tokio::test]
#[ignore = "measures for 55 s"]
async fn fifty_idle_launchers_cost_next_to_nothing() {
    let host = Host::new();
    let pods: Vec<_> = (0..50).map(|number| format!("p-{number}")).collect();
    for pod in &pods {
        host.pod(pod);
    }
    let _process = Process::start(&host.paths(), &pods.join(","));
    let (launchers, mut seen) = start(&host, Patience::default()).await;
    for pod in &pods {
        launchers.attach(&vmi(pod, &[pod])).await.unwrap();
        next(&mut seen).await;
    }
    let before = ticks();
    let lost = tokio::time::timeout(Duration::from_secs(55), seen.recv()).await;
    assert!(lost.is_err(), "{lost:?}");
    let used = ticks() - before;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let memory = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    println!("50 idle launchers: {used} ticks of 10 ms in 55 s, {memory}");
    assert!(used <= 55, "more than 1 % of a core");
}
