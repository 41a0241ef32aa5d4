//! The handler and its launchers, with real sockets and processes. Launchers are stand-ins without a machine.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module as a whole"
)]

mod faults;
mod processes;
mod stand_in;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::Duration;

use handler::config::Patience;
use handler::launchers::{AttachError, CommandError, Launchers, Seen};
use serde_json::json;
use stand_in::{Host, Script, StandIn, running, vmi};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::timeout;

/// Starts what is tested.
async fn start(host: &Host, patience: Patience) -> (Launchers, Receiver<Seen>) {
    let (sender, seen) = mpsc::channel(16);
    let launchers = Launchers::start(host.paths(), patience, sender).await;
    (launchers.unwrap(), seen)
}

/// Returns what is seen next, which must be soon.
async fn next(seen: &mut Receiver<Seen>) -> Seen {
    let next = timeout(Duration::from_secs(20), seen.recv()).await;
    next.expect("nothing is seen").expect("all is over")
}

#[tokio::test]
async fn a_launcher_is_attached_to_and_remembered() {
    let host = Host::new();
    let pod = host.pod("p-1");
    let script = Script::with_domain(&running("vm"));
    let _stand_in = StandIn::serve(&pod, &script);
    let (launchers, mut seen) = start(&host, Patience::default()).await;
    let launcher = launchers.attach(&vmi("vm", &["p-0", "p-1"])).await.unwrap();
    assert_eq!(launcher.pid, i32::try_from(std::process::id()).unwrap());
    assert_eq!(launcher.pod_uid, "p-1");
    assert_eq!(launcher.emptydir("public"), pod.volume("public"));
    let record = fs::read_to_string(host.path("v/ghost-records/u-vm")).unwrap();
    assert!(record.contains("p-1/volumes"), "{record}");
    assert_eq!(fs::metadata(pod.notify_socket()).unwrap().uid(), 107);
    let Seen::Domain { key, uid, domain } = next(&mut seen).await else {
        panic!("no domain is seen");
    };
    assert_eq!((key, uid.as_str()), (launcher.key.clone(), "u-vm"));
    assert_eq!(*domain, running("vm"));
    assert_eq!(launchers.domain(&launcher.key), Some(domain));
}

#[tokio::test]
async fn commands_reach_the_launcher_and_refusals_come_back() {
    let host = Host::new();
    let script = Script::new();
    let _stand_in = StandIn::serve(&host.pod("p-1"), &script);
    let (launchers, _seen) = start(&host, Patience::default()).await;
    let launcher = launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
    launcher.ping().await.unwrap();
    assert_eq!(launcher.domain().await.unwrap(), None);
    launcher
        .sync(b"{}".to_vec(), Default::default())
        .await
        .unwrap();
    assert_eq!(script.synced(), [b"{}".to_vec()]);
    *script.refusal.lock().unwrap() = Some("no such CPU".to_owned());
    let refused = launcher.sync(b"{}".to_vec(), Default::default()).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.ends_with("answers: no such CPU"), "{refused}");
    let refused = launcher.pause(Vec::new()).await.unwrap_err();
    assert!(matches!(refused, CommandError::Refused { .. }), "{refused}");
    let bad = launcher.guest_info().await.unwrap_err();
    assert!(matches!(bad, CommandError::BadAnswer { .. }), "{bad}");
}

#[tokio::test]
async fn no_connection_is_left_after_a_command() {
    let host = Host::new();
    let pod = host.pod("p-1");
    let _stand_in = StandIn::serve(&pod, &Script::new());
    let (launchers, _seen) = start(&host, Patience::default()).await;
    let launcher = launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
    let (pinged, asked) = tokio::join!(launcher.ping(), launcher.domain());
    assert!(pinged.is_ok() && asked.unwrap().is_none());
    let all_are_closed = async {
        while pod.command_connections() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let closed = timeout(Duration::from_secs(10), all_are_closed).await;
    assert!(closed.is_ok(), "{} are open", pod.command_connections());
}

#[tokio::test]
async fn calls_that_an_older_launcher_does_not_know_are_told_from_failures() {
    let host = Host::new();
    let _stand_in = StandIn::serve(&host.pod("p-1"), &Script::new());
    let (launchers, _seen) = start(&host, Patience::default()).await;
    let launcher = launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
    let error = launcher.version().await.unwrap_err();
    assert!(
        matches!(
            error,
            CommandError::Unimplemented {
                call: "GetQemuVersion"
            }
        ),
        "{error}"
    );
    let error = launcher.domain_stats().await.unwrap_err();
    assert!(
        matches!(error, CommandError::Unimplemented { .. }),
        "{error}"
    );
    launcher.ping().await.unwrap();
}

#[tokio::test]
async fn exactly_one_socket_must_be_there() {
    let host = Host::new();
    let (launchers, _seen) = start(&host, Patience::default()).await;
    let identity = vmi("vm", &["p-1", "p-2"]);
    let error = launchers.attach(&identity).await.unwrap_err();
    assert!(matches!(error, AttachError::NotYet(_)), "{error}");
    let (first, second) = (host.pod("p-1"), host.pod("p-2"));
    let _stand_ins = [&first, &second].map(|pod| StandIn::serve(pod, &Script::new()));
    let AttachError::Several { sockets, .. } = launchers.attach(&identity).await.unwrap_err()
    else {
        panic!("two sockets are no matter");
    };
    assert_eq!(sockets, [first.command_socket(), second.command_socket()]);
}

#[tokio::test]
async fn links_in_a_pod_are_not_followed() {
    let host = Host::new();
    let (honest, linked) = (host.pod("p-1"), host.pod("p-2"));
    let _stand_ins = [&honest].map(|pod| StandIn::serve(pod, &Script::new()));
    let (launchers, _seen) = start(&host, Patience::default()).await;
    symlink(honest.command_socket(), linked.command_socket()).unwrap();
    let error = launchers.attach(&vmi("vm", &["p-2"])).await.unwrap_err();
    assert!(matches!(error, AttachError::Connect { .. }), "{error}");
    let error = launchers
        .attach(&vmi("vm", &["../p/p-1"]))
        .await
        .unwrap_err();
    assert!(matches!(error, AttachError::Connect { .. }), "{error}");

    let elsewhere = host.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::remove_dir(honest.volume("public")).unwrap();
    symlink(&elsewhere, honest.volume("public")).unwrap();
    let error = launchers.attach(&vmi("vm", &["p-1"])).await.unwrap_err();
    assert!(matches!(error, AttachError::Prepare { .. }), "{error}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);

    fs::remove_file(honest.volume("public")).unwrap();
    fs::create_dir(honest.volume("public")).unwrap();
    symlink(elsewhere.join("file"), honest.notify_socket()).unwrap();
    launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
    assert!(
        !fs::symlink_metadata(honest.notify_socket())
            .unwrap()
            .is_symlink()
    );
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[tokio::test]
async fn a_launcher_that_speaks_no_known_version_is_not_attached_to() {
    let host = Host::new();
    let script = Script::new();
    let _stand_in = StandIn::serve(&host.pod("p-1"), &script);
    let (launchers, _seen) = start(&host, Patience::default()).await;
    *script.versions.lock().unwrap() = vec![2, 3];
    let error = launchers.attach(&vmi("vm", &["p-1"])).await.unwrap_err();
    assert!(matches!(error, AttachError::Versions { .. }), "{error}");
    *script.versions.lock().unwrap() = vec![2, 1];
    launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
}

#[tokio::test]
async fn events_come_in_order_and_the_last_one_counts() {
    let host = Host::new();
    let pod = host.pod("p-1");
    let _stand_in = StandIn::serve(&pod, &Script::new());
    let (launchers, mut seen) = start(&host, Patience::default()).await;
    let launcher = launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
    assert!(matches!(next(&mut seen).await, Seen::NoDomain { .. }));
    let mut domain = running("vm");
    for count in 1..=30 {
        domain.status.panic_count = count;
        let taken = pod.tell(stand_in::json(&domain)).await;
        assert!(taken.success, "{}", taken.message);
    }
    let mut last = 0;
    while last < 30 {
        let Seen::Domain { domain, .. } = next(&mut seen).await else {
            panic!("no domain is seen");
        };
        assert!(domain.status.panic_count > last);
        last = domain.status.panic_count;
    }
    let cached = launchers.domain(&launcher.key).unwrap();
    assert_eq!(cached.status.panic_count, 30);
}

#[tokio::test]
async fn kubernetes_events_are_passed_on_when_they_are_about_the_instance() {
    let host = Host::new();
    let pod = host.pod("p-1");
    let _stand_in = StandIn::serve(&pod, &Script::new());
    let (launchers, mut seen) = start(&host, Patience::default()).await;
    launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
    assert!(matches!(next(&mut seen).await, Seen::NoDomain { .. }));
    let event = |namespace: &str, name: &str| {
        json!({
            "metadata": {"namespace": namespace},
            "involvedObject": {
                "kind": "VirtualMachineInstance", "namespace": namespace, "name": name,
            },
            "reason": "Slow",
        })
    };
    for foreign in [
        event("default", "other"),
        event("kube-system", "vm"),
        json!([]),
    ] {
        let taken = pod.tell_k8s(&foreign).await;
        assert!(!taken.success);
    }
    assert!(pod.tell_k8s(&event("default", "vm")).await.success);
    let expected = Seen::Event {
        key: vmi("vm", &[]).key,
        event: event("default", "vm"),
    };
    assert_eq!(next(&mut seen).await, expected);
}

#[tokio::test]
async fn a_forgotten_launcher_leaves_nothing() {
    let host = Host::new();
    let pod = host.pod("p-1");
    let _stand_in = StandIn::serve(&pod, &Script::with_domain(&running("vm")));
    let (launchers, mut seen) = start(&host, Patience::default()).await;
    let launcher = launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
    next(&mut seen).await;
    let mut connection = pod.handler().await;
    launchers.forget("u-vm").await;
    assert!(launchers.all().is_empty());
    assert!(!host.path("v/ghost-records/u-vm").exists());
    assert!(!pod.notify_socket().exists());
    let error = launcher.ping().await.unwrap_err();
    assert!(matches!(error, CommandError::Unreachable { .. }), "{error}");
    let event = proto::notify::v1::DomainEventRequest {
        domain_json: stand_in::json(&running("vm")),
        event_type: "MODIFIED".to_owned(),
        ..Default::default()
    };
    let told = connection.handle_domain_event(event).await;
    assert!(!told.is_ok_and(|taken| taken.into_inner().success));
    // It can be attached to anew.
    launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
    assert!(matches!(next(&mut seen).await, Seen::Domain { .. }));
}

#[tokio::test]
async fn fifty_launchers_do_not_disturb_each_other() {
    let host = Host::new();
    let (launchers, mut seen) = start(&host, Patience::default()).await;
    let name = |number: usize| format!("vm-{number}");
    let pods: Vec<_> = (0..50)
        .map(|number| host.pod(&format!("p-{number}")))
        .collect();
    let scripts: Vec<_> = pods.iter().map(|_| Script::new()).collect();
    let _stand_ins: Vec<_> = pods
        .iter()
        .zip(&scripts)
        .map(|(pod, script)| StandIn::serve(pod, script))
        .collect();
    for number in 0..50 {
        let identity = vmi(&name(number), &[&format!("p-{number}")]);
        let launcher = launchers.attach(&identity).await.unwrap();
        assert!(matches!(next(&mut seen).await, Seen::NoDomain { .. }));
        launcher
            .sync(name(number).into_bytes(), Default::default())
            .await
            .unwrap();
    }
    let telling = async {
        for (number, pod) in pods.iter().enumerate() {
            let own = pod.tell(stand_in::json(&running(&name(number)))).await;
            assert!(own.success, "{}", own.message);
            let others = pod
                .tell(stand_in::json(&running(&name((number + 1) % 50))))
                .await;
            assert!(!others.success);
        }
    };
    let listening = async {
        let mut told = std::collections::BTreeSet::new();
        while told.len() < 50 {
            let Seen::Domain { key, domain, .. } = next(&mut seen).await else {
                continue;
            };
            assert_eq!(domain.meta.name, key.name);
            told.insert(key);
        }
    };
    tokio::join!(telling, listening);
    for (number, script) in scripts.iter().enumerate() {
        assert_eq!(script.synced(), [name(number).into_bytes()]);
    }
    assert_eq!(launchers.all().len(), 50);
}
