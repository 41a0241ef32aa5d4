//! The launcher in a pod: a real process, real sockets, guests of a few instructions.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "an integration test is a test module as a whole"
)]

mod server {
    pub mod pod;
}

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use proto::cmd::info::CmdInfoRequest;
use proto::cmd::info::cmd_info_client::CmdInfoClient;
use proto::cmd::v1 as wire;
use proto::cmd::v1::EmptyRequest;
use proto::domain::{Domain, LifeCycle, StateChangeReason};
use proto::stats::DomainStats;
use serde_json::json;
use tonic::Code;

use self::server::pod::{IDLE, POWER_OFF, Pod, SAY_H, Told, done, instance, request};

fn is(status: LifeCycle) -> impl Fn(&Domain) -> bool {
    move |domain| domain.status.status == status
}

async fn domain(client: &mut wire::cmd_client::CmdClient<tonic::transport::Channel>) -> String {
    let answer = client.get_domain(EmptyRequest {}).await.unwrap();
    let answer = answer.into_inner();
    assert!(answer.response.unwrap().success);
    answer.domain
}

#[tokio::test]
async fn a_launcher_is_ready_when_its_socket_has_its_name() {
    let mut pod = Pod::new(&IDLE);
    pod.start(&[]);
    let channel = pod.channel().await;
    assert!(!pod.path("share/sockets/launcher-init-sock").exists());
    let info = CmdInfoClient::new(channel).info(CmdInfoRequest {}).await;
    assert_eq!(info.unwrap().into_inner().supported_cmd_versions.len(), 1);
    let mut client = pod.client().await;
    done(client.ping(EmptyRequest {}).await);
    assert_eq!(domain(&mut client).await, "");
    let version = client.get_qemu_version(EmptyRequest {}).await.unwrap();
    assert!(version.into_inner().version.starts_with("ferrovirt"));
    for dir in ["ephemeral", "libvirt", "share/hotplug-disks", "private"] {
        assert!(pod.path(dir).is_dir(), "{dir}");
    }
    pod.signal(Signal::SIGTERM);
    assert_eq!(pod.ended().await, 0);
}

#[tokio::test]
async fn an_instance_runs_pauses_goes_on_and_is_killed() {
    let mut pod = Pod::new(&IDLE);
    let mut agent = pod.agent();
    pod.put("share/container-disks/disk_0.sock", b"");
    pod.start(&[]);
    let mut client = pod.client().await;
    let vmi = instance(json!({}));
    let began = Instant::now();
    done(client.sync_virtual_machine(request(&vmi)).await);
    println!("first sync: {:?}", began.elapsed());
    let (kind, running) = agent.domain_that(is(LifeCycle::Running)).await;
    assert_eq!(kind, "ADDED");
    assert_eq!(running.spec.type_, "qemu");
    assert_eq!(running.spec.name, "default_tiny");
    let memory = running.spec.current_memory.clone().unwrap();
    assert_eq!((memory.value, memory.unit.as_str()), (32 << 10, "KiB"));
    assert!(running.spec.features.acpi.is_some());
    assert_eq!(
        Domain::from_json(domain(&mut client).await.as_bytes()).unwrap(),
        Some(running)
    );

    let began = Instant::now();
    for _ in 0..100 {
        done(client.sync_virtual_machine(request(&vmi)).await);
    }
    println!("sync with nothing to do: {:?}", began.elapsed() / 100);

    done(client.pause_virtual_machine(request(&vmi)).await);
    let (kind, paused) = agent.domain_that(is(LifeCycle::Paused)).await;
    assert_eq!(kind, "MODIFIED");
    assert_eq!(paused.status.reason, StateChangeReason::User);
    // A pause that the user wished for outlives a sync.
    done(client.sync_virtual_machine(request(&vmi)).await);
    let ping = client.guest_ping(wire::GuestPingRequest::default()).await;
    assert!(ping.unwrap().into_inner().response.unwrap().success);
    done(client.unpause_virtual_machine(request(&vmi)).await);
    agent.domain_that(is(LifeCycle::Running)).await;

    let stats = client.get_domain_stats(EmptyRequest {}).await.unwrap();
    let stats: DomainStats = serde_json::from_str(&stats.into_inner().domain_stats).unwrap();
    assert_eq!(stats.name, "default_tiny");
    assert_eq!(stats.vcpu.len(), 1);
    assert_eq!(stats.memory.unwrap().total, Some(32 << 10));

    done(client.kill_virtual_machine(request(&vmi)).await);
    let (kind, ended) = agent.domain_that(is(LifeCycle::Shutoff)).await;
    assert_eq!(kind, "MODIFIED");
    assert_eq!(ended.status.reason, StateChangeReason::Destroyed);
    assert!(ended.meta.deletion_timestamp.is_some());
    done(client.delete_virtual_machine(request(&vmi)).await);
    assert_eq!(pod.ended().await, 0);
    assert!(!pod.path("share/container-disks/disk_0.sock").exists());
}

#[tokio::test]
async fn a_guest_that_powers_off_ends_the_launcher() {
    let mut pod = Pod::new(&[&SAY_H[..], &POWER_OFF].concat());
    let mut agent = pod.agent();
    pod.start(&[]);
    let mut client = pod.client().await;
    done(
        client
            .sync_virtual_machine(request(&instance(json!({}))))
            .await,
    );
    let (_, ended) = agent.domain_that(is(LifeCycle::Shutoff)).await;
    assert_eq!(ended.status.reason, StateChangeReason::Shutdown);
    assert_eq!(pod.ended().await, 0);
    let log = pod.path(&format!("private/{}/virt-serial0-log", server::pod::UID));
    assert_eq!(fs::read(log).unwrap(), b"H");
}

#[tokio::test]
async fn a_signal_is_passed_on_and_the_machine_killed_after_its_grace_period() {
    let mut pod = Pod::new(&IDLE);
    let mut agent = pod.agent();
    pod.start(&["--grace-period-seconds", "2"]);
    let mut client = pod.client().await;
    let vmi = instance(json!({}));
    done(client.sync_virtual_machine(request(&vmi)).await);
    let began = Instant::now();
    pod.signal(Signal::SIGTERM);
    let grace = |domain: &Domain| domain.spec.metadata.kubevirt.grace_period.clone();
    let is_marked = |domain: &Domain| {
        grace(domain).is_some_and(|grace| grace.marked_for_graceful_shutdown == Some(true))
    };
    let (_, marked) = agent.domain_that(is_marked).await;
    assert_eq!(marked.status.status, LifeCycle::Running);
    assert_eq!(grace(&marked).unwrap().deletion_grace_period_seconds, 30);
    pod.signal(Signal::SIGTERM);
    done(client.shutdown_virtual_machine(request(&vmi)).await);
    let (_, asked) = agent
        .domain_that(|domain| grace(domain).unwrap().deletion_timestamp.is_some())
        .await;
    done(client.shutdown_virtual_machine(request(&vmi)).await);
    let (_, ended) = agent.domain_that(is(LifeCycle::Shutoff)).await;
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!(ended.status.reason, StateChangeReason::Destroyed);
    assert_eq!(
        grace(&ended).unwrap().deletion_timestamp,
        grace(&asked).unwrap().deletion_timestamp
    );
    assert_eq!(pod.ended().await, 0);
}

#[tokio::test]
async fn no_grace_period_is_an_immediate_kill() {
    let mut pod = Pod::new(&IDLE);
    let mut agent = pod.agent();
    pod.start(&["--grace-period-seconds", "15"]);
    let mut client = pod.client().await;
    let vmi = instance(json!({"spec": {"terminationGracePeriodSeconds": 0}}));
    done(client.sync_virtual_machine(request(&vmi)).await);
    let began = Instant::now();
    pod.signal(Signal::SIGTERM);
    agent.domain_that(is(LifeCycle::Shutoff)).await;
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(pod.ended().await, 0);
}

#[tokio::test]
async fn an_instance_that_cannot_run_is_refused_and_may_be_mended() {
    let mut pod = Pod::new(&IDLE);
    let mut agent = pod.agent();
    pod.start(&[]);
    let mut client = pod.client().await;
    for (wrong, expected) in [
        (
            json!({"spec": {"domain": {"cpu": {"cores": 1000}}}}),
            "spec.domain.cpu",
        ),
        (
            json!({"spec": {"domain": {"firmware": {"kernelBoot": {"container": {"kernelPath": "/no"}}}}}}),
            "kernelBoot",
        ),
        (json!({"metadata": {"uid": "../x"}}), "metadata.uid"),
        (json!({"spec": 5}), "read the instance"),
    ] {
        let answer = client
            .sync_virtual_machine(request(&instance(wrong)))
            .await
            .unwrap()
            .into_inner();
        assert!(!answer.success);
        assert!(answer.message.contains(expected), "{}", answer.message);
        assert_eq!(domain(&mut client).await, "");
    }
    let none = client
        .sync_virtual_machine(wire::VmiRequest::default())
        .await
        .unwrap();
    assert!(!none.into_inner().success);
    done(
        client
            .sync_virtual_machine(request(&instance(json!({}))))
            .await,
    );
    agent.domain_that(is(LifeCycle::Running)).await;
    let other = instance(json!({"metadata": {"uid": "another"}}));
    let other = client.sync_virtual_machine(request(&other)).await.unwrap();
    assert!(!other.into_inner().success);
}

#[tokio::test]
async fn devices_that_the_pod_was_given_are_named_until_they_can_be_attached() {
    let mut pod = Pod::new(&IDLE);
    pod.variables = vec![("USB_RESOURCE_KUBEVIRT_IO_WIFI-DONGLE", "1:7")];
    pod.start(&[]);
    let mut client = pod.client().await;
    for (names, expected) in [
        (
            vec!["a"],
            "spec.domain.devices.hostDevices[0]: attaching a (of kubevirt.io/wifi-dongle: USB device 1:7) is not \
             supported yet",
        ),
        (
            vec!["a", "b"],
            "spec.domain.devices.hostDevices[1]: USB_RESOURCE_KUBEVIRT_IO_WIFI-DONGLE has 1 addresses for 2 entries",
        ),
    ] {
        let device = |name| json!({"name": name, "deviceName": "kubevirt.io/wifi-dongle"});
        let devices: Vec<_> = names.into_iter().map(device).collect();
        let vmi = instance(json!({"spec": {"domain": {"devices": {"hostDevices": devices}}}}));
        let answer = client.sync_virtual_machine(request(&vmi)).await.unwrap();
        let answer = answer.into_inner();
        assert!(
            !answer.success && answer.message.contains(expected),
            "{}",
            answer.message
        );
    }
}

#[tokio::test]
async fn a_machine_may_start_paused() {
    let mut pod = Pod::new(&POWER_OFF);
    let mut agent = pod.agent();
    pod.start(&[]);
    let mut client = pod.client().await;
    let vmi = instance(json!({"spec": {"startStrategy": "Paused"}}));
    done(client.sync_virtual_machine(request(&vmi)).await);
    let (_, paused) = agent.domain_that(is(LifeCycle::Paused)).await;
    assert_eq!(paused.status.reason, StateChangeReason::User);
    done(client.sync_virtual_machine(request(&vmi)).await);
    done(client.unpause_virtual_machine(request(&vmi)).await);
    agent.domain_that(is(LifeCycle::Shutoff)).await;
}

#[tokio::test]
async fn a_node_agent_that_comes_late_gets_the_newest_state() {
    let mut pod = Pod::new(&IDLE);
    pod.start(&[]);
    let mut client = pod.client().await;
    let vmi = instance(json!({}));
    done(client.sync_virtual_machine(request(&vmi)).await);
    done(client.pause_virtual_machine(request(&vmi)).await);
    let mut agent = pod.agent();
    let Told::Domain(kind, domain) = agent.told().await else {
        panic!("an event came before the domain");
    };
    assert_eq!(
        (kind.as_str(), domain.status.status),
        ("ADDED", LifeCycle::Paused)
    );
}

#[tokio::test]
async fn what_is_not_honoured_is_told_to_the_user() {
    let mut pod = Pod::new(&IDLE);
    let mut agent = pod.agent();
    pod.start(&[]);
    let mut client = pod.client().await;
    let vmi = instance(json!({"spec": {"domain": {"cpu": {"model": "Nehalem"}}}}));
    done(client.sync_virtual_machine(request(&vmi)).await);
    let event = loop {
        if let Told::Event(event) = agent.told().await {
            break event;
        }
    };
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["involvedObject"]["uid"], server::pod::UID);
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("spec.domain.cpu.model"), "{message}");
}

#[tokio::test]
async fn unknown_fields_nulls_and_calls_are_borne() {
    let mut pod = Pod::new(&IDLE);
    pod.start(&[]);
    let mut client = pod.client().await;
    let vmi = instance(json!({
        "metadata": {"creationTimestamp": null, "newerField": {"a": [1]}},
        "spec": {"newerField": 1, "domain": {"ioThreads": null, "devices": {"disks": null}}},
        "status": {"newerField": true, "activePods": {"x": "y"}},
    }));
    let mut sent = request(&vmi);
    sent.options = Some(wire::VirtualMachineOptions {
        preallocated_volumes: vec!["x".to_owned()],
        ..wire::VirtualMachineOptions::default()
    });
    done(client.sync_virtual_machine(sent).await);
    let migration = client
        .migrate_virtual_machine(wire::MigrationRequest::default())
        .await;
    assert_eq!(migration.unwrap_err().code(), Code::Unimplemented);
    let dump = wire::MemoryDumpRequest {
        vmi: None,
        dump_path: "/etc/passwd".to_owned(),
    };
    let dump = client.virtual_machine_memory_dump(dump).await.unwrap();
    assert!(!dump.into_inner().success);
    done(client.sync_virtual_machine_cp_us(request(&vmi)).await);
    let more = instance(json!({"spec": {"domain": {"cpu": {"sockets": 4}}}}));
    let more = client.sync_virtual_machine_cp_us(request(&more)).await;
    let more = more.unwrap().into_inner();
    assert!(
        !more.success && more.message.contains("restart"),
        "{}",
        more.message
    );
}

#[tokio::test]
async fn memory_is_dumped_below_the_folder_of_hotplugged_volumes() {
    let mut pod = Pod::new(&IDLE);
    let mut agent = pod.agent();
    pod.start(&[]);
    let mut client = pod.client().await;
    let vmi = instance(json!({}));
    done(client.sync_virtual_machine(request(&vmi)).await);
    let path = pod.path("share/hotplug-disks/dump.memory.dump");
    let dump = wire::MemoryDumpRequest {
        vmi: None,
        dump_path: path.to_str().unwrap().to_owned(),
    };
    done(client.virtual_machine_memory_dump(dump.clone()).await);
    done(client.virtual_machine_memory_dump(dump).await);
    let dump = |domain: &Domain| domain.spec.metadata.kubevirt.memory_dump.clone();
    let (_, dumped) = agent
        .domain_that(|domain| dump(domain).is_some_and(|dump| dump.completed))
        .await;
    let dump = dump(&dumped).unwrap();
    assert!(!dump.failed, "{}", dump.failure_reason);
    assert_eq!(dump.file_name, "dump.memory.dump");
    assert!(fs::read(path).unwrap().starts_with(b"\x7fELF"));
}

#[tokio::test]
async fn the_console_is_where_the_node_agent_looks_for_it() {
    // Says back what it is told: in al, dx (0x3fd); test al, 1; jz; mov dl, 0xf8; in; out; mov dl, 0xfd
    const ECHO: [u8; 16] = [
        0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf7, 0xb2, 0xf8, 0xec, 0xee, 0xeb, 0xf1,
        0x90,
    ];
    let mut pod = Pod::new(&ECHO);
    pod.start(&[]);
    let mut client = pod.client().await;
    done(
        client
            .sync_virtual_machine(request(&instance(json!({}))))
            .await,
    );
    let socket = pod.path(&format!("private/{}/virt-serial0", server::pod::UID));
    let mut first = UnixStream::connect(&socket).unwrap();
    first.write_all(b"x").unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
    let mut second = UnixStream::connect(&socket).unwrap();
    second.write_all(b"y").unwrap();
    second.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"y");
    assert_eq!(first.read(&mut byte).unwrap(), 0);
}

#[tokio::test]
async fn a_drive_gets_another_medium_while_the_guest_runs() {
    let mut pod = Pod::new(&IDLE);
    let mut agent = pod.agent();
    pod.start(&[]);
    for image in ["container-disks/disk_0.img", "hotplug-disks/cd.img"] {
        pod.put(&format!("share/{image}"), &[0; 4096]);
    }
    let mut client = pod.client().await;
    let drive = json!([{"name": "cd", "cdrom": {"bus": "scsi"}}]);
    let one = instance(json!({"spec": {
        "domain": {"devices": {"disks": drive}},
        "volumes": [{"name": "cd", "containerDisk": {"image": "iso"}}],
    }}));
    done(client.sync_virtual_machine(request(&one)).await);
    let file = |domain: &Domain| domain.spec.devices.disks[0].source.file.clone();
    agent
        .domain_that(|domain| file(domain).ends_with("disk_0.img"))
        .await;
    let mut another = one.clone();
    another["spec"]["volumes"] = json!([{"name": "cd", "persistentVolumeClaim": {
        "claimName": "iso", "hotpluggable": true,
    }}]);
    another["status"] = json!({"volumeStatus": [{
        "name": "cd", "target": "", "hotplugVolume": {"attachPodName": "hp"},
        "persistentVolumeClaimInfo": {"volumeMode": "Filesystem"},
    }]});
    done(client.sync_virtual_machine(request(&another)).await);
    agent
        .domain_that(|domain| file(domain).ends_with("hotplug-disks/cd.img"))
        .await;
    another["spec"]["domain"]["devices"]["disks"] = json!([]);
    another["spec"]["volumes"] = json!([]);
    let refused = client.sync_virtual_machine(request(&another)).await;
    let refused = refused.unwrap().into_inner();
    assert!(refused.message.contains("disks[0]"), "{}", refused.message);
}

#[tokio::test]
async fn a_launcher_that_nobody_wants_fails_and_says_so() {
    let mut pod = Pod::new(&IDLE);
    pod.put("share/container-disks/kernel-boot.sock", b"");
    pod.start(&["--qemu-timeout", "1s"]);
    assert_eq!(pod.ended().await, 1);
    let log = pod.log();
    assert!(log.contains("--qemu-timeout"), "{log}");
    assert!(!pod.path("share/container-disks/kernel-boot.sock").exists());
}

#[tokio::test]
async fn the_monitor_is_the_same_program() {
    let mut pod = Pod::new(&IDLE);
    let monitor = pod.path("virt-launcher-monitor");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_virt-launcher"), &monitor).unwrap();
    pod.start_as(&monitor, &["--keep-after-failure"]);
    let mut client = pod.client().await;
    done(client.ping(EmptyRequest {}).await);
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        if pod.launcher.as_mut().unwrap().try_wait().unwrap().is_none() {
            pod.signal(signal);
            assert_eq!(pod.ended().await, 0);
        }
    }
}
