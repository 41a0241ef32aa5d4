//! What outlives the node's process, and what does not.

use rustix::process::Signal;
use serde_json::json;
use single_node::sandbox::record::Started;
use single_node::sandbox::{Exec, ExecRequest};

use crate::node::{Node, pod, uid};
use crate::place::FERROVIRT;

/// The keeper and first process of a pod's container `main`.
fn processes(node: &Node, name: &str) -> Started {
    let observed = node.runner.observed(&uid(name)).unwrap();
    observed.runs("main").started().unwrap().clone()
}

#[tokio::test]
async fn another_node_process_finds_what_runs() {
    let Some(mut node) = Node::new() else { return };
    let script = "echo begun; until [ -e /tmp/end ]; do sleep 0.05; done; exit 4";
    node.memory.put_pod(pod("stays", script));
    node.wait_for_phase("stays", "Running").await;
    let before = processes(&node, "stays");
    node.restart();
    node.wait_for("stays", "found", |_| {
        node.runner
            .observed(&uid("stays"))
            .is_some_and(|observed| observed.has_running())
    })
    .await;
    assert_eq!(processes(&node, "stays"), before);
    std::fs::write(format!("/proc/{}/root/tmp/end", before.process.pid), "").unwrap();
    let ended = node.wait_for_phase("stays", "Failed").await;
    assert_eq!(
        ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        4
    );
    // The only news was the end.
    assert_eq!(node.memory.writes("stays"), 1);
    assert_eq!(node.log("stays", "main"), "begun\n");
}

#[tokio::test]
async fn what_ended_meanwhile_is_told() {
    let Some(mut node) = Node::new() else { return };
    node.memory.put_pod(pod(
        "ended",
        "until [ -e /tmp/end ]; do sleep 0.05; done; echo words > /dev/termination-log; exit 5",
    ));
    node.wait_for_phase("ended", "Running").await;
    let processes = processes(&node, "ended");
    // The runner hears nothing any more.
    let deaf = std::sync::Arc::clone(&node.runner);
    node.restart();
    drop(deaf);
    std::fs::write(format!("/proc/{}/root/tmp/end", processes.process.pid), "").unwrap();
    let ended = node.wait_for_phase("ended", "Failed").await;
    let terminated = &ended["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&terminated["exitCode"], &terminated["message"]),
        (&json!(5), &json!("words\n"))
    );
}

#[tokio::test]
async fn a_container_does_not_outlive_its_keeper() {
    let Some(node) = Node::new() else { return };
    let mut wanted = pod("kept", "sleep 1000 & sleep 1000");
    wanted["spec"]["containers"][0]["securityContext"] =
        json!({"runAsUser": 107, "runAsGroup": 107});
    node.memory.put_pod(wanted);
    node.wait_for_phase("kept", "Running").await;
    let processes = processes(&node, "kept");
    processes.keeper.signal(Signal::KILL).unwrap();
    let ended = node.wait_for_phase("kept", "Failed").await;
    assert_eq!(
        ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        137
    );
    crate::place::until("the container's end", || {
        (!processes.process.is_alive()).then_some(())
    });
    node.memory.delete_pod("kept", 5);
    node.wait_until_gone("kept").await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn pods_that_nobody_wants_any_more_are_cleaned() {
    let Some(mut node) = Node::new() else { return };
    node.memory.put_pod(pod("orphan", "sleep 1000"));
    node.wait_for_phase("orphan", "Running").await;
    let processes = processes(&node, "orphan");
    node.memory.change("orphan", |pod| {
        *pod = json!({"metadata": {"name": "orphan", "uid": ""}});
    });
    node.restart();
    node.runner
        .keep_only(&std::collections::HashSet::new())
        .await;
    assert!(!processes.process.is_alive());
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn programs_run_in_containers_as_the_container_does() {
    let Some(node) = Node::new() else { return };
    let mut wanted = pod("exec", "echo $$ > /tmp/main; exec sleep 1000");
    wanted["spec"]["containers"][0]["securityContext"] =
        json!({"runAsUser": 107, "runAsGroup": 107});
    wanted["spec"]["containers"][0]["workingDir"] = json!("/tmp");
    node.memory.put_pod(wanted);
    node.wait_for_phase("exec", "Running").await;
    let handle = node.runner.container("default", "exec", "main").unwrap();
    let run = |argv: &[&str], terminal| {
        let argv = argv.iter().map(|text| (*text).to_owned()).collect();
        let request = ExecRequest {
            argv,
            has_stdin: true,
            has_output: true,
            terminal,
        };
        let mut exec = Exec::start(FERROVIRT.as_ref(), &handle.folder, &request).unwrap();
        let mut stdin = std::fs::File::from(exec.stdin.take().unwrap());
        std::io::Write::write_all(&mut stdin, b"line\n").unwrap();
        drop(stdin);
        let mut output = Vec::new();
        // A terminal that was closed cannot be read.
        let mut stdout = std::fs::File::from(exec.stdout.take().unwrap());
        let _hung_up = std::io::Read::read_to_end(&mut stdout, &mut output);
        (
            exec.child.wait().unwrap().code(),
            String::from_utf8(output).unwrap(),
        )
    };
    let (code, output) = run(
        &[
            "sh",
            "-c",
            "read line; echo got $line; id -u; pwd; cat /proc/1/comm; cat /proc/self/cgroup; exit 9",
        ],
        None,
    );
    assert_eq!(code, Some(9));
    assert!(
        output.starts_with("got line\n107\n/tmp\nsleep\n"),
        "{output}"
    );
    assert!(
        output.contains("/poduid-exec/main") || output.contains(":/\n"),
        "{output}"
    );
    let (code, output) = run(
        &["sh", "-c", "test -t 0 && test -t 1 && stty size"],
        Some((132, 43)),
    );
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("43 132"), "{output}");
    assert_eq!(run(&["no-such-program"], None).0, Some(127));
}

#[tokio::test]
async fn limits_are_those_of_the_pod() {
    let Some(node) = Node::new() else { return };
    let script = "head -c 60000000 /dev/zero | tail > /dev/null; echo $?; exec sleep 1000";
    let mut wanted = pod("limited", script);
    wanted["spec"]["containers"][0]["resources"] =
        json!({"limits": {"memory": "32Mi", "cpu": "500m"}});
    node.memory.put_pod(wanted);
    let group = "/sys/fs/cgroup/memory/";
    if !std::path::Path::new(group).exists() {
        println!("skipped: control groups of version 1 are not mounted here");
        return;
    }
    node.wait_for_phase("limited", "Running").await;
    let find = |controller: &str, file: &str| {
        let parent = &node.runner.options().cgroup_parent;
        let path = format!("/sys/fs/cgroup/{controller}/{parent}/poduid-limited/main/{file}");
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    assert_eq!(
        find("memory", "memory.limit_in_bytes").trim(),
        (32 << 20).to_string()
    );
    assert_eq!(find("cpu", "cpu.cfs_quota_us").trim(), "50000");
    let devices = find("devices", "devices.list");
    assert!(
        devices.contains("c 1:3 rwm") && !devices.contains("a *:*"),
        "{devices}"
    );
    // The shell outlives what was killed for want of memory.
    node.wait_for("limited", "past its limit", |_| {
        node.log("limited", "main").contains("137")
    })
    .await;
}

#[tokio::test]
async fn an_end_for_want_of_memory_is_named() {
    let Some(node) = Node::new() else { return };
    let mut wanted = pod("hungry", "exec tail /dev/zero");
    wanted["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "16Mi"}});
    node.memory.put_pod(wanted);
    let ended = node.wait_for_phase("hungry", "Failed").await;
    let terminated = &ended["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&terminated["exitCode"], &terminated["reason"]),
        (&json!(137), &json!("OOMKilled"))
    );
}

#[tokio::test]
async fn probes_hold_back_and_restart() {
    let Some(node) = Node::new() else { return };
    let mut wanted = pod("probed", "touch /tmp/alive; sleep 1000");
    wanted["spec"]["restartPolicy"] = json!("Always");
    let probe = |file: &str| json!({"exec": {"command": ["test", "-e", file]}, "periodSeconds": 1, "failureThreshold": 1});
    wanted["spec"]["terminationGracePeriodSeconds"] = json!(1);
    wanted["spec"]["containers"][0]["readinessProbe"] = probe("/tmp/ready");
    wanted["spec"]["containers"][0]["livenessProbe"] = probe("/tmp/alive");
    node.memory.put_pod(wanted);
    let running = node.wait_for_phase("probed", "Running").await;
    assert_eq!(running["status"]["containerStatuses"][0]["ready"], false);
    let at = |file: &str| {
        format!(
            "/proc/{}/root/tmp/{file}",
            processes(&node, "probed").process.pid
        )
    };
    std::fs::write(at("ready"), "").unwrap();
    node.wait_for("probed", "ready", |pod| {
        pod["status"]["containerStatuses"][0]["ready"] == true
    })
    .await;
    std::fs::remove_file(at("alive")).unwrap();
    node.wait_for("probed", "restarted", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 1
    })
    .await;
}

#[tokio::test]
async fn ports_are_probed_in_the_pods_network() {
    let Some(node) = Node::new() else { return };
    let Some(_) = std::path::Path::new("/usr/bin/python3")
        .exists()
        .then_some(())
    else {
        println!("skipped: there is no python3 to serve");
        return;
    };
    let mut wanted = pod(
        "served",
        "cd /tmp; exec python3 -m http.server 18080 --bind 127.0.0.1",
    );
    wanted["spec"]["containers"][0]["ports"] = json!([{"name": "web", "containerPort": 18080}]);
    let get = json!({"httpGet": {"port": "web", "path": "/"}, "periodSeconds": 1, "failureThreshold": 30});
    wanted["spec"]["containers"][0]["startupProbe"] = get;
    wanted["spec"]["containers"][0]["readinessProbe"] =
        json!({"tcpSocket": {"port": 18080}, "periodSeconds": 1});
    node.memory.put_pod(wanted);
    node.wait_for("served", "ready", |pod| {
        pod["status"]["containerStatuses"][0]["ready"] == true
    })
    .await;
}
