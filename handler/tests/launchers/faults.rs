//! Launchers that lie, keep silent, or are no more.

use std::fs;
use std::os::unix::net::UnixListener;

use handler::config::Patience;
use handler::launchers::{AttachError, Seen};
use proto::notify::v1::DomainEventRequest;

use crate::stand_in::{Host, Script, StandIn, ended, impatience, json, running, vmi};
use crate::{next, start};

#[tokio::test]
async fn wrong_events_are_refused_and_the_domain_is_asked_for() {
    let host = Host::new();
    let pod = host.pod("p-1");
    let script = Script::new();
    let _stand_in = StandIn::serve(&pod, &script);
    let (launchers, mut seen) = start(&host, Patience::default()).await;
    launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
    assert!(matches!(next(&mut seen).await, Seen::NoDomain { .. }));
    let whole = json(&running("vm"));
    let half = whole[..whole.len() / 2].to_vec();
    let event = |domain_json: Vec<u8>, kind: &str| DomainEventRequest {
        domain_json,
        event_type: kind.to_owned(),
        ..DomainEventRequest::default()
    };
    let mut domain = running("vm");
    let wrong = [
        (event(half, "MODIFIED"), "domainJSON"),
        (event(b"[]".to_vec(), "ADDED"), "domainJSON"),
        (event(Vec::new(), "ADDED"), "domainJSON"),
        (event(whole.clone(), "BOOKMARK"), "eventType"),
        (event(Vec::new(), "ERROR"), "error"),
    ];
    for (count, (event, expected)) in (1..).zip(wrong) {
        domain.status.panic_count = count;
        script.set_domain(&domain);
        let taken = pod.tell_event(event).await;
        assert!(
            !taken.success && taken.message.contains(expected),
            "{}",
            taken.message
        );
        let Seen::Domain { domain, .. } = next(&mut seen).await else {
            panic!("the domain was not asked for");
        };
        assert_eq!(domain.status.panic_count, count);
    }
    assert!(pod.tell_event(event(whole, "DELETED")).await.success);
    assert!(matches!(next(&mut seen).await, Seen::NoDomain { .. }));
}

#[tokio::test]
async fn a_launcher_may_not_speak_for_another_instance() {
    let host = Host::new();
    let pod = host.pod("p-1");
    let script = Script::with_domain(&running("other"));
    let _stand_in = StandIn::serve(&pod, &script);
    let (launchers, mut seen) = start(&host, Patience::default()).await;
    let error = launchers.attach(&vmi("vm", &["p-1"])).await.unwrap_err();
    assert!(matches!(error, AttachError::Foreign { .. }), "{error}");
    assert!(!host.path("v/ghost-records/u-vm").exists());
    script.set_domain(&running("vm"));
    launchers.attach(&vmi("vm", &["p-1"])).await.unwrap();
    assert!(matches!(next(&mut seen).await, Seen::Domain { .. }));
    let mut predecessor = running("vm");
    predecessor.meta.uid = "u-before".to_owned();
    for foreign in [running("other"), ended("other"), predecessor] {
        let taken = pod.tell(json(&foreign)).await;
        assert!(
            !taken.success && taken.message.contains("default/vm"),
            "{}",
            taken.message
        );
    }
    let cached = launchers.domain(&vmi("vm", &[]).key).unwrap();
    assert_eq!(*cached, running("vm"));
}

#[tokio::test]
async fn a_silent_socket_holds_nobody_up() {
    let host = Host::new();
    let silent = UnixListener::bind(host.pod("p-1").command_socket()).unwrap();
    let _stand_in = StandIn::serve(&host.pod("p-2"), &Script::new());
    let (launchers, _seen) = start(&host, impatience()).await;
    let identity = vmi("silent", &["p-1"]);
    let attaching = launchers.attach(&identity);
    tokio::pin!(attaching);
    let other = async {
        let launcher = launchers.attach(&vmi("vm", &["p-2"])).await.unwrap();
        launcher.ping().await
    };
    tokio::select! {
        biased;
        attached = &mut attaching => panic!("the silent one came first: {attached:?}"),
        pinged = other => pinged.unwrap(),
    }
    let error = attaching.await.unwrap_err();
    assert!(matches!(error, AttachError::Silent { .. }), "{error}");
    drop(silent);
    let error = launchers.attach(&identity).await.unwrap_err();
    assert!(matches!(error, AttachError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn running_launchers_are_taken_over_after_a_restart() {
    let host = Host::new();
    let pod = host.pod("p-1");
    let script = Script::new();
    let _stand_in = StandIn::serve(&pod, &script);
    let (before, mut seen) = start(&host, Patience::default()).await;
    before.attach(&vmi("vm", &["p-1"])).await.unwrap();
    assert!(matches!(next(&mut seen).await, Seen::NoDomain { .. }));
    drop(before);
    assert_eq!(seen.recv().await, None);
    script.set_domain(&running("vm"));

    let (after, mut seen) = start(&host, Patience::default()).await;
    assert!(matches!(next(&mut seen).await, Seen::Domain { .. }));
    let key = vmi("vm", &[]).key;
    assert_eq!(*after.domain(&key).unwrap(), running("vm"));
    after.get(&key).unwrap().ping().await.unwrap();
    assert!(pod.tell(json(&ended("vm"))).await.success);
    let Seen::Domain { domain, .. } = next(&mut seen).await else {
        panic!("the event is not seen");
    };
    assert_eq!(*domain, ended("vm"));
}

#[tokio::test]
async fn what_an_ended_launcher_told_last_outlives_the_handler() {
    let host = Host::new();
    let pod = host.pod("p-1");
    let stand_in = StandIn::serve(&pod, &Script::with_domain(&running("vm")));
    let (before, mut seen) = start(&host, Patience::default()).await;
    before.attach(&vmi("vm", &["p-1"])).await.unwrap();
    next(&mut seen).await;
    assert!(pod.tell(json(&ended("vm"))).await.success);
    drop((before, seen, stand_in));
    fs::remove_file(pod.command_socket()).unwrap();

    let (after, mut seen) = start(&host, Patience::default()).await;
    let Seen::Domain { domain, key, .. } = next(&mut seen).await else {
        panic!("the last word is forgotten");
    };
    assert_eq!(*domain, ended("vm"));
    assert_eq!(after.domain(&key), Some(domain));
    let error = after.attach(&vmi("vm", &["p-1"])).await.unwrap_err();
    assert!(matches!(error, AttachError::Lost { .. }), "{error}");
    after.forget("u-vm").await;
    assert_eq!(after.domain(&key), None);
    assert_eq!(
        fs::read_dir(host.path("v/final-domains")).unwrap().count(),
        0
    );
}

#[tokio::test]
async fn a_launcher_on_record_that_is_no_more_is_lost() {
    let host = Host::new();
    let pod = host.pod("p-1");
    let stand_in = StandIn::serve(&pod, &Script::with_domain(&running("vm")));
    let (before, mut seen) = start(&host, Patience::default()).await;
    before.attach(&vmi("vm", &["p-1"])).await.unwrap();
    next(&mut seen).await;
    drop((before, seen, stand_in));
    fs::remove_file(pod.command_socket()).unwrap();
    drop(UnixListener::bind(pod.command_socket()).unwrap());
    fs::write(host.path("v/ghost-records/u-torn"), r#"{"name":"#).unwrap();

    let (_after, mut seen) = start(&host, Patience::default()).await;
    let Seen::Lost { uid, reason, .. } = next(&mut seen).await else {
        panic!("the launcher is not lost");
    };
    assert_eq!(uid, "u-vm");
    assert!(reason.contains("without a final event"), "{reason}");
    assert!(!host.path("v/ghost-records/u-torn").exists());
}

#[tokio::test]
async fn a_launcher_on_record_that_keeps_silent_is_lost_after_the_watchdogs_time() {
    let host = Host::new();
    let pod = host.pod("p-1");
    let stand_in = StandIn::serve(&pod, &Script::with_domain(&running("vm")));
    let (before, mut seen) = start(&host, Patience::default()).await;
    before.attach(&vmi("vm", &["p-1"])).await.unwrap();
    next(&mut seen).await;
    drop((before, seen, stand_in));
    fs::remove_file(pod.command_socket()).unwrap();
    let _silent = UnixListener::bind(pod.command_socket()).unwrap();

    let (after, mut seen) = start(&host, impatience()).await;
    let Seen::Lost { reason, .. } = next(&mut seen).await else {
        panic!("the launcher is not lost");
    };
    assert!(reason.contains("does not answer"), "{reason}");
    let error = after.attach(&vmi("vm", &["p-1"])).await.unwrap_err();
    assert!(matches!(error, AttachError::Lost { .. }), "{error}");
}
