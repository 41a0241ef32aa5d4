//! A launcher in a pod's folders with real guests, and as the first process of a PID namespace.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    unreachable_pub,
    dead_code,
    reason = "an integration test is a test module as a whole; it shares a scene with others"
)]

#[path = "../../launcher/tests/server/pod.rs"]
mod pod;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::cmd::v1 as wire;
use proto::cmd::v1::EmptyRequest;
use proto::cmd::v1::cmd_client::CmdClient;
use proto::domain::{Domain, LifeCycle, StateChangeReason};
use serde_json::{Value, json};
use tests::{guests, program, skip};
use tokio::time::{interval, timeout};
use tonic::transport::Channel;

use self::pod::{Agent, IDLE, Pod, SAY_H, TIME_LIMIT, UID, done, instance, request};

type Client = CmdClient<Channel>;

/// Ticks until something is there.
async fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let mut ticks = interval(Duration::from_millis(20));
    let found = timeout(TIME_LIMIT, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            ticks.tick().await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("no {what}"))
}

fn console_log(pod: &Pod) -> String {
    let log = fs::read(pod.path(&format!("private/{UID}/virt-serial0-log")));
    String::from_utf8_lossy(&log.unwrap_or_default()).into_owned()
}

fn is(status: LifeCycle) -> impl Fn(&Domain) -> bool {
    move |domain| domain.status.status == status
}

/// A pod with a Debian kernel and one of the initramfs archives; its instance.
fn debian(with_agent: bool) -> Option<(Pod, PathBuf, Value)> {
    let (guests, launcher) = (guests()?, program("virt-launcher")?);
    let pod = Pod::new(&IDLE);
    let boot = "share/container-disks/kernel-boot";
    let initrd = if with_agent {
        guests.agent_initrd()
    } else {
        guests.initrd()
    };
    fs::copy(guests.kernel(), pod.path(&format!("{boot}/vmlinuz"))).unwrap();
    fs::copy(initrd, pod.path(&format!("{boot}/initrd"))).unwrap();
    pod.put("private/vmi-disks/root/disk.img", b"");
    fs::copy(
        guests.root_raw(),
        pod.path("private/vmi-disks/root/disk.img"),
    )
    .unwrap();
    let vmi = instance(json!({"spec": {
        "domain": {
            "memory": {"guest": "192Mi"},
            "firmware": {"kernelBoot": {
                "kernelArgs": "console=ttyS0 quiet",
                "container": {"image": "boot", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd"},
            }},
            "devices": {"disks": [{"name": "root", "disk": {"bus": "virtio"}}]},
        },
        "volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": "root"}}],
    }}));
    Some((pod, launcher, vmi))
}

/// A pod whose kernel is a few instructions.
fn tiny(code: &[u8]) -> Option<(Pod, PathBuf)> {
    Some((Pod::new(code), program("virt-launcher")?))
}

async fn run(client: &mut Client, script: &str, timeout_seconds: i32) -> wire::ExecResponse {
    let call = wire::ExecRequest {
        domain_name: "default_tiny".to_owned(),
        command: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        timeout_seconds,
    };
    client.exec(call).await.unwrap().into_inner()
}

async fn ping(client: &mut Client) -> wire::Response {
    let call = wire::GuestPingRequest {
        timeout_seconds: 30,
        ..wire::GuestPingRequest::default()
    };
    let answer = client.guest_ping(call).await.unwrap();
    answer.into_inner().response.unwrap()
}

async fn freeze(client: &mut Client, vmi: &Value, unfreeze_timeout_seconds: i32) {
    let call = wire::FreezeRequest {
        vmi: request(vmi).vmi,
        unfreeze_timeout_seconds,
    };
    done(client.freeze_virtual_machine(call).await);
}

async fn tells_of_its_guest(client: &mut Client) {
    let info = client.get_guest_info(EmptyRequest {}).await.unwrap();
    let info = info.into_inner();
    assert!(info.response.unwrap().success);
    let info: Value = serde_json::from_str(&info.guest_info_response).unwrap();
    assert_eq!(info["os"]["id"], "ferrovirt-demo", "{info:#}");
    assert_eq!(info["hostname"], "ferrovirt");
    assert_ne!(info["guestAgentVersion"], "");
    let users = client.get_users(EmptyRequest {}).await.unwrap();
    let users: Value = serde_json::from_str(&users.into_inner().guest_user_list_response).unwrap();
    assert!(users.is_array(), "{users}");
    let mounted = client.get_filesystems(EmptyRequest {}).await.unwrap();
    let mounted = mounted.into_inner().guest_filesystems_response;
    let mounted: Value = serde_json::from_str(&mounted).unwrap();
    assert_eq!(mounted[0]["mountPoint"], "/mnt/disk", "{mounted:#}");
    assert_eq!(mounted[0]["fileSystemType"], "ext4");
}

/// What monitoring gets: Debian's agent has no routes to tell yet.
async fn tells_figures(client: &mut Client) {
    let wished = wire::VmStatsRequest {
        guest_get_cpu_stats: Some(wire::AgentCpuStatsRequest {}),
        guest_get_disk_stats: Some(wire::AgentDiskStatsRequest {}),
        guest_get_os_info: Some(wire::AgentOsInfoRequest {}),
        guest_network_get_route: Some(wire::AgentNetworkRouteRequest {}),
        ..wire::VmStatsRequest::default()
    };
    let is_late = |part: &Option<wire::Response>| {
        let message = part.as_ref().map(|part| part.message.as_str());
        message.is_some_and(|message| message.contains("nothing came in time"))
    };
    let told = loop {
        let told = client.get_vm_stats(wished).await.unwrap().into_inner();
        let parts = [&told.guest_get_cpu_stats, &told.guest_get_disk_stats];
        // Guests on a software CPU take their time.
        if !parts.into_iter().any(is_late) {
            break told;
        }
    };
    let json = |part: &Option<wire::Response>| -> Value {
        let part = part.as_ref().unwrap();
        assert!(part.success, "{}", part.message);
        serde_json::from_str(&part.message).unwrap()
    };
    assert_ne!(told.guest_agent_version.as_ref().unwrap().message, "");
    assert!(json(&told.guest_get_cpu_stats)[0]["user"].is_u64());
    assert!(json(&told.guest_get_disk_stats).is_array());
    assert_eq!(json(&told.guest_get_os_info)["id"], "ferrovirt-demo");
    assert_eq!(
        (told.guest_network_get_route, told.guest_get_time),
        (None, None)
    );
}

/// A guest whose agent is killed for some seconds.
async fn misses_its_agent_at_once(pod: &Pod, client: &mut Client, agent: &mut Agent) {
    let kill = "ga=$(which qemu-ga); (sleep 1; mv $ga /gone; kill -KILL $(pidof qemu-ga); \
        echo agent-is-gone >/dev/console; sleep 6; mv /gone $ga) >/dev/null 2>&1 &";
    assert_eq!(run(client, kill, 30).await.exit_code, 0);
    let is_gone = || console_log(pod).contains("agent-is-gone").then_some(());
    until("end of the agent", is_gone).await;
    let missed = agent.domain_that(|domain| !domain.agent_connected());
    let missed = timeout(Duration::from_secs(5), missed).await;
    assert!(missed.is_ok(), "the agent is missed within five seconds");
    agent.domain_that(Domain::agent_connected).await;
    runs_programs(client).await;
}

async fn runs_programs(client: &mut Client) {
    let told = run(client, "echo out; exit 7", 30).await;
    assert!(told.response.unwrap().success);
    assert_eq!((told.exit_code, told.std_out.as_str()), (7, "out\n"));
    let slow = run(client, "sleep 100", 1).await.response.unwrap();
    assert!(!slow.success && !slow.message.is_empty());
}

async fn pauses(client: &mut Client, agent: &mut Agent, vmi: &Value) {
    done(client.pause_virtual_machine(request(vmi)).await);
    agent.domain_that(is(LifeCycle::Paused)).await;
    let answer = ping(client).await;
    assert!(answer.success, "{}", answer.message);
    done(client.sync_virtual_machine(request(vmi)).await);
    let domain = client.get_domain(EmptyRequest {}).await.unwrap();
    let domain = Domain::from_json(domain.into_inner().domain.as_bytes());
    let status = domain.unwrap().unwrap().status;
    assert_eq!(
        (status.status, status.reason),
        (LifeCycle::Paused, StateChangeReason::User)
    );
    done(client.unpause_virtual_machine(request(vmi)).await);
    agent.domain_that(is(LifeCycle::Running)).await;
}

async fn freezes(client: &mut Client, agent: &mut Agent, vmi: &Value) {
    let is = |wanted: &'static str| {
        move |domain: &Domain| domain.status.fs_freeze_status.status == wanted
    };
    freeze(client, vmi, 0).await;
    agent.domain_that(is("frozen")).await;
    done(client.unfreeze_virtual_machine(request(vmi)).await);
    agent.domain_that(is("thawed")).await;
    freeze(client, vmi, 1).await;
    agent.domain_that(is("frozen")).await;
    agent.domain_that(is("thawed")).await;
}

async fn dumps_memory(pod: &Pod, client: &mut Client, agent: &mut Agent) {
    let path = pod.path("share/hotplug-disks/guest.dump");
    let call = wire::MemoryDumpRequest {
        vmi: None,
        dump_path: path.to_str().unwrap().to_owned(),
    };
    done(client.virtual_machine_memory_dump(call).await);
    let dump = |domain: &Domain| domain.spec.metadata.kubevirt.memory_dump.clone();
    let is_complete = |domain: &Domain| dump(domain).is_some_and(|dump| dump.completed);
    let (_, domain) = agent.domain_that(is_complete).await;
    let dump = dump(&domain).unwrap();
    assert!(!dump.failed, "{}", dump.failure_reason);
    assert!(dump.end_timestamp.is_some());
    let mut head = [0; 5];
    fs::File::open(path).unwrap().read_exact(&mut head).unwrap();
    assert_eq!(&head, b"\x7fELF\x02");
}

#[tokio::test]
async fn a_guest_with_an_agent_does_what_it_is_told() {
    let Some((mut pod, launcher, mut vmi)) = debian(true) else {
        return;
    };
    pod.put(
        "private/secret/keys-access-cred/me",
        b"ssh-ed25519 AAAA me\n",
    );
    vmi["spec"]["accessCredentials"] = json!([{"sshPublicKey": {
        "source": {"secret": {"secretName": "keys"}},
        "propagationMethod": {"qemuGuestAgent": {"users": ["root"]}},
    }}]);
    let mut agent = pod.agent();
    pod.start_as(&launcher, &["--qemu-fsfreeze-status-interval", "1s"]);
    let mut client = pod.client().await;
    done(client.sync_virtual_machine(request(&vmi)).await);
    let is_known =
        |domain: &Domain| domain.agent_connected() && !domain.status.os_info.id.is_empty();
    agent.domain_that(is_known).await;
    runs_programs(&mut client).await;
    tells_of_its_guest(&mut client).await;
    tells_figures(&mut client).await;
    misses_its_agent_at_once(&pod, &mut client, &mut agent).await;
    let answer = ping(&mut client).await;
    assert!(answer.success, "{}", answer.message);
    pauses(&mut client, &mut agent, &vmi).await;
    freezes(&mut client, &mut agent, &vmi).await;
    let has_keys = |domain: &Domain| {
        let outcome = &domain.spec.metadata.kubevirt.access_credential;
        outcome.as_ref().is_some_and(|outcome| outcome.succeeded)
    };
    if !has_keys(&known(&mut client).await) {
        agent.domain_that(has_keys).await;
    }
    let keys = run(&mut client, "cat /root/.ssh/authorized_keys", 30).await;
    assert_eq!(keys.std_out.trim(), "ssh-ed25519 AAAA me");
    dumps_memory(&pod, &mut client, &mut agent).await;

    done(client.soft_reboot_virtual_machine(request(&vmi)).await);
    agent.domain_that(|domain| !domain.agent_connected()).await;
    agent.domain_that(Domain::agent_connected).await;
    let gone = run(&mut client, "test -e /root/.ssh/authorized_keys", 30).await;
    assert!(gone.response.unwrap().success, "the guest runs anew");
    done(client.shutdown_virtual_machine(request(&vmi)).await);
    let (_, ended) = agent.domain_that(is(LifeCycle::Shutoff)).await;
    assert_eq!(ended.status.reason, StateChangeReason::Shutdown);
    assert_eq!(pod.ended().await, 0);
}

async fn known(client: &mut Client) -> Domain {
    let domain = client.get_domain(EmptyRequest {}).await.unwrap();
    Domain::from_json(domain.into_inner().domain.as_bytes())
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_guest_without_an_agent_reboots_by_its_power_button_and_is_reset() {
    let Some((mut pod, launcher, vmi)) = debian(false) else {
        return;
    };
    let mut agent = pod.agent();
    pod.start_as(&launcher, &[]);
    let mut client = pod.client().await;
    done(client.sync_virtual_machine(request(&vmi)).await);
    let logins = |count: usize| {
        let pod = &pod;
        until("login prompt", move || {
            (console_log(pod).matches("ferrovirt login:").count() >= count).then_some(())
        })
    };
    logins(1).await;
    let none = ping(&mut client).await;
    assert!(!none.success && !none.message.is_empty());
    done(client.soft_reboot_virtual_machine(request(&vmi)).await);
    logins(2).await;
    done(client.reset_virtual_machine(request(&vmi)).await);
    logins(3).await;
    assert!(is(LifeCycle::Running)(&known(&mut client).await));
    done(client.shutdown_virtual_machine(request(&vmi)).await);
    let (_, ended) = agent.domain_that(is(LifeCycle::Shutoff)).await;
    assert_eq!(ended.status.reason, StateChangeReason::Shutdown);
    assert_eq!(pod.ended().await, 0);
}

/// mov dx, 0x505; mov al, 1; out dx, al
const PANIC: [u8; 7] = [0x66, 0xba, 0x05, 0x05, 0xb0, 0x01, 0xee];
/// mov dx, 0xcf9; mov al, 6; out dx, al
const RESET: [u8; 7] = [0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee];
/// ud2, without anyone to take the exception
const TRIPLE_FAULT: [u8; 2] = [0x0f, 0x0b];

fn with_panic_device() -> Value {
    let devices = json!({"panicDevices": [{"model": "pvpanic"}]});
    instance(json!({"spec": {"domain": {"devices": devices}}}))
}

#[tokio::test]
async fn a_guest_that_hangs_after_its_panic_has_crashed() {
    let Some((mut pod, launcher)) = tiny(&[&PANIC[..], &IDLE].concat()) else {
        return;
    };
    let mut agent = pod.agent();
    pod.start_as(&launcher, &[]);
    let mut client = pod.client().await;
    let vmi = with_panic_device();
    done(client.sync_virtual_machine(request(&vmi)).await);
    let (_, panicked) = agent.domain_that(|it| it.status.panic_count == 1).await;
    assert_eq!(panicked.status.status, LifeCycle::Running);
    let (_, ended) = agent.domain_that(is(LifeCycle::Crashed)).await;
    assert_eq!(ended.status.reason, StateChangeReason::Panicked);
    assert!(ended.meta.deletion_timestamp.is_some());
    assert_eq!(pod.ended().await, 0);
}

#[tokio::test]
async fn a_guest_that_reboots_after_its_panic_runs_on() {
    let code = [&PANIC[..], &RESET, &IDLE].concat();
    let Some((mut pod, launcher)) = tiny(&code) else {
        return;
    };
    let mut agent = pod.agent();
    pod.start_as(&launcher, &[]);
    let mut client = pod.client().await;
    let vmi = with_panic_device();
    done(client.sync_virtual_machine(request(&vmi)).await);
    let (_, domain) = agent.domain_that(|it| it.status.panic_count > 2).await;
    assert_eq!(domain.status.status, LifeCycle::Running);
    done(client.kill_virtual_machine(request(&vmi)).await);
    agent.domain_that(is(LifeCycle::Shutoff)).await;
}

#[tokio::test]
async fn a_triple_fault_starts_the_guest_anew_but_not_for_ever() {
    let Some((mut pod, launcher)) = tiny(&[&SAY_H[..], &TRIPLE_FAULT].concat()) else {
        return;
    };
    let mut agent = pod.agent();
    pod.start_as(&launcher, &[]);
    let mut client = pod.client().await;
    let vmi = instance(json!({}));
    done(client.sync_virtual_machine(request(&vmi)).await);
    let (_, ended) = agent.domain_that(is(LifeCycle::Crashed)).await;
    assert_eq!(ended.status.reason, StateChangeReason::Crashed);
    until("second start", || {
        console_log(&pod).starts_with("HH").then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_consoles_log_is_bounded_and_the_latest_viewer_has_the_console() {
    // Says H for ever: jmp to the start
    let Some((mut pod, launcher)) = tiny(&[&SAY_H[..], &[0xeb, 0xf7]].concat()) else {
        return;
    };
    pod.start_as(&launcher, &[]);
    let mut client = pod.client().await;
    let vmi = instance(json!({}));
    done(client.sync_virtual_machine(request(&vmi)).await);
    let connect = || {
        let console = UnixStream::connect(pod.path(&format!("private/{UID}/virt-serial0")));
        let console = console.unwrap();
        console.set_read_timeout(Some(TIME_LIMIT)).unwrap();
        console
    };
    let mut byte = [0];
    let mut first = connect();
    first.read_exact(&mut byte).unwrap();
    let mut second = connect();
    second.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"H");
    first.read_to_end(&mut Vec::new()).unwrap();
    second.write_all(b"x").unwrap();
    drop(second);
    let log = pod.path(&format!("private/{UID}/virt-serial0-log"));
    let old = log.with_file_name("virt-serial0-log.0");
    until("old log", || old.is_file().then_some(())).await;
    let len = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    assert!(len(&old) >= 5 << 20 && len(&old) < 6 << 20);
    assert!(len(&log) < 6 << 20);
}

/// Makes a launcher the first process of a PID namespace; `None`, with the reason said, where that cannot be.
fn first_process(pod: &Pod, launcher: &Path) -> Option<PathBuf> {
    let unshare = "unshare --pid --fork --mount-proc --kill-child";
    let script = format!("#!/bin/sh\nexec {unshare} {} \"$@\"\n", launcher.display());
    let mut probe = std::process::Command::new("sh");
    probe.args(["-c", &format!("{unshare} true && command -v nsenter")]);
    if !nix::unistd::geteuid().is_root() || !probe.output().is_ok_and(|it| it.status.success()) {
        skip("a PID namespace needs root, unshare and nsenter");
        return None;
    }
    pod.put("first-process", script.as_bytes());
    let path = pod.path("first-process");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Some(path)
}

/// The children of a process, zombies too.
fn children(parent: i32) -> Vec<i32> {
    let is_child = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains(&format!("PPid:\t{parent}\n"))
    };
    let names = fs::read_dir("/proc").unwrap().flatten();
    let pids = names.filter_map(|name| name.file_name().to_str()?.parse().ok());
    pids.filter(is_child).collect()
}

#[tokio::test]
async fn the_first_process_reaps_orphans_ends_on_a_signal_and_lets_containers_go() {
    let Some((mut pod, launcher)) = tiny(&IDLE) else {
        return;
    };
    let Some(program) = first_process(&pod, &launcher) else {
        return;
    };
    let socket = "share/container-disks/disk_0.sock";
    pod.put(socket, b"");
    pod.start_as(&program, &["--grace-period-seconds", "1"]);
    let mut client = pod.client().await;
    let outer = i32::try_from(pod.launcher.as_ref().unwrap().id().unwrap()).unwrap();
    let first = children(outer)[0];
    let orphan = std::process::Command::new("nsenter")
        .args(["--pid", "--target", &first.to_string(), "sh", "-c"])
        .arg("(sleep 2 >/dev/null 2>&1 &)")
        .status();
    assert!(orphan.unwrap().success());
    assert_eq!(children(first).len(), 1, "the orphan is its child");
    until("reaping", || children(first).is_empty().then_some(())).await;
    done(
        client
            .sync_virtual_machine(request(&instance(json!({}))))
            .await,
    );
    assert!(pod.path(socket).exists());
    kill(Pid::from_raw(first), Signal::SIGTERM).unwrap();
    assert_eq!(pod.ended().await, 0);
    assert!(!pod.path(socket).exists());
}

#[tokio::test]
async fn a_first_process_that_failed_stays_if_told_to_and_says_so_by_its_exit_code() {
    let Some((mut pod, launcher)) = tiny(&IDLE) else {
        return;
    };
    let Some(program) = first_process(&pod, &launcher) else {
        return;
    };
    let socket = "share/container-disks/disk_0.sock";
    pod.put(socket, b"");
    pod.start_as(&program, &["--qemu-timeout", "1s", "--keep-after-failure"]);
    until("failure", || {
        pod.log().contains("stays until").then_some(())
    })
    .await;
    let outer = i32::try_from(pod.launcher.as_ref().unwrap().id().unwrap()).unwrap();
    kill(Pid::from_raw(children(outer)[0]), Signal::SIGTERM).unwrap();
    assert_eq!(pod.ended().await, 1);
    assert!(!pod.path(socket).exists());
}
