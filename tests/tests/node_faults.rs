//! What a node survives: a handler that is killed or replaced, launchers that are killed or fall silent, an API server
//! that is away or answers badly.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    use nix::sys::signal::Signal;
    use serde_json::{Value, json};
    use tests::api_endpoint::{ObjectKey, Which};
    use tests::node::status::{condition, is_final, phases};
    use tests::node::{GuestConsole, Node, manifest, until};
    use tests::program;

    const PATIENCE: Duration = Duration::from_secs(60);
    /// Time in which the status must have caught up.
    const CATCH_UP: Duration = Duration::from_secs(5);

    /// A node with its agent.
    fn node() -> Option<Node> {
        let mut node = Node::new()?;
        node.start_handler(&[]);
        Some(node)
    }

    /// Starts an instance whose guest counts on its console.
    fn counting(node: &mut Node, name: &str) -> (ObjectKey, GuestConsole) {
        let key = node.schedule(manifest::vmi(name));
        node.wait_for_phase(&key, "Running", PATIENCE);
        let mut console = node.console(name);
        console.log_in();
        console.start_counting();
        assert!(console.next_count() > 0);
        (key, console)
    }

    /// Checks that a guest counted on without a gap.
    fn counts_on(console: &mut GuestConsole, from: u64) -> u64 {
        let next = console.next_count();
        assert_eq!(next, from + 1, "the guest was stopped or started anew");
        next
    }

    fn phase(node: &Node, key: &ObjectKey) -> Value {
        node.api.get(key).unwrap_or_default()["status"]["phase"].clone()
    }

    /// Another build of a handler, as an upgrade brings one: another file at another place, with other contents.
    fn another_build(node: &Node) -> PathBuf {
        let own = program("virt-handler").expect("the node has one");
        let other = node.path("upgraded-handler");
        let mut contents = fs::read(own).expect("read the handler");
        contents.extend_from_slice(b"another build");
        fs::write(&other, contents).expect("write the other build");
        let is_program = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&other, is_program).expect("make it a program");
        other
    }

    /// Adds to each record of launchers a field that this build does not know, as another build may have.
    fn add_fields_to_records(node: &Node) -> usize {
        let records = fs::read_dir(node.path("private/ghost-records")).expect("there are records");
        let paths = records.flatten().map(|entry| entry.path());
        let add = |path: PathBuf| {
            let text = fs::read(&path).expect("read a record");
            let mut record: Value = serde_json::from_slice(&text).expect("a record is JSON");
            record["addedLater"] = json!({"by": "another build"});
            fs::write(&path, record.to_string()).expect("write the record");
        };
        paths.map(add).count()
    }

    #[test]
    fn guests_outlive_handlers_that_are_killed_ended_and_replaced() {
        let Some(mut node) = node() else { return };
        let (key, mut console) = counting(&mut node, "stays");
        let goes = node.schedule(manifest::vmi("goes"));
        node.wait_for_phase(&goes, "Running", PATIENCE);
        let pid = node.pod("stays").launcher_pid();
        let before = node.api.get(&key).expect("the instance is there");
        let mut count = console.next_count();

        node.stop_handler(Signal::SIGKILL);
        // What happens meanwhile is seen afterwards.
        node.pod("goes").signal(Signal::SIGKILL);
        node.start_handler(&[]);
        let gone = node.wait_for_phase(&goes, "Failed", CATCH_UP);
        assert_eq!(
            gone["status"]["reason"], "LauncherLost",
            "{:#}",
            gone["status"]
        );
        node.wait_for_event("goes", "Stopped", CATCH_UP);
        count = counts_on(&mut console, count);

        let began = Instant::now();
        node.stop_handler(Signal::SIGTERM);
        assert!(
            began.elapsed() < CATCH_UP,
            "a handler has nothing to wait for"
        );
        assert_eq!(add_fields_to_records(&node), 1);
        let upgraded = another_build(&node);
        node.start_handler_program(&upgraded, &[]);
        // It works: what is wanted now is done.
        node.api.change(&key, |vmi| {
            vmi["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        });
        node.wait_for_event("stays", "ShuttingDown", CATCH_UP);
        counts_on(&mut console, count);
        assert_eq!(phases(&before).last(), Some(&"Running"));
        assert_eq!(node.pod("stays").launcher_pid(), pid);
        node.wait_for(&key, "final", PATIENCE, is_final);
    }

    #[test]
    fn nothing_that_happens_while_the_handler_is_away_is_lost() {
        let Some(mut node) = node() else { return };
        let off = node.schedule(manifest::vmi("off"));
        let ill = node.schedule(manifest::vmi("ill"));
        node.wait_for_phase(&off, "Running", PATIENCE);
        node.wait_for_phase(&ill, "Running", PATIENCE);
        let mut console = node.console("off");
        console.log_in();
        node.stop_handler(Signal::SIGKILL);
        console.send("poweroff\n");
        console.expect("Power down", PATIENCE);
        // A new instance comes while nobody looks.
        let late = node.schedule(manifest::vmi("late"));
        node.start_handler(&[]);
        let vmi = node.wait_for(&off, "final", CATCH_UP, is_final);
        assert_eq!(vmi["status"]["phase"], "Succeeded", "{:#}", vmi["status"]);
        node.wait_for_event("off", "Stopped", CATCH_UP);
        node.wait_for_phase(&late, "Running", PATIENCE);
        assert_eq!(phase(&node, &ill), "Running");
    }

    #[test]
    fn a_killed_launcher_fails_its_instance_within_five_seconds_and_leaves_nothing() {
        let Some(mut node) = node() else { return };
        let key = node.schedule(manifest::vmi("killed"));
        let (stays, mut console) = counting(&mut node, "stays");
        node.wait_for_phase(&key, "Running", PATIENCE);
        assert!(!node.leftovers("killed").is_empty(), "there are records");
        let count = console.next_count();
        node.pod("killed").signal(Signal::SIGKILL);
        let vmi = node.wait_for_phase(&key, "Failed", CATCH_UP);
        assert_eq!(
            vmi["status"]["reason"], "LauncherLost",
            "{:#}",
            vmi["status"]
        );
        let message = condition(&vmi, "Synchronized")["message"].clone();
        let message = message.as_str().unwrap_or_default();
        assert!(message.contains("gone without a final event"), "{message}");
        let event = node.wait_for_event("killed", "Stopped", CATCH_UP);
        assert_eq!(event["type"], "Warning");
        node.wait_until_clean("killed", CATCH_UP);
        counts_on(&mut console, count);
        assert_eq!(phase(&node, &stays), "Running");
    }

    #[test]
    fn a_launcher_that_falls_silent_fails_its_instance_and_no_other() {
        let Some(mut node) = Node::new() else { return };
        node.start_handler(&["--watchdog-timeout=3s", "--launcher-start-timeout=8s"]);
        let silent = node.schedule(manifest::vmi("silent"));
        node.wait_for_phase(&silent, "Running", PATIENCE);
        // This one never answered at all.
        let mute = manifest::vmi("mute");
        node.start_pod(&mute);
        let socket = node.pod("mute").volume("sockets").join("launcher-sock");
        assert!(until(PATIENCE, || socket.exists()));
        node.pod("mute").signal(Signal::SIGSTOP);
        let mute = node.write_scheduled(mute);
        node.pod("silent").signal(Signal::SIGSTOP);
        let began = Instant::now();
        // Others come and run meanwhile.
        let other = node.schedule(manifest::vmi("other"));
        node.wait_for_phase(&other, "Running", Duration::from_secs(5));
        let vmi = node.wait_for_phase(&silent, "Failed", Duration::from_secs(10));
        assert!(began.elapsed() > Duration::from_secs(2), "it had its time");
        assert_eq!(
            vmi["status"]["reason"], "LauncherLost",
            "{:#}",
            vmi["status"]
        );
        let message = condition(&vmi, "Synchronized")["message"].clone();
        let message = message.as_str().unwrap_or_default();
        assert!(message.contains("has not answered"), "{message}");
        node.wait_for_phase(&mute, "Failed", Duration::from_secs(20));
        node.wait_until_clean("silent", CATCH_UP);
        assert_eq!(phase(&node, &other), "Running");
    }

    #[test]
    fn a_launcher_that_never_comes_fails_its_instance_in_time() {
        let Some(mut node) = Node::new() else { return };
        node.start_handler(&["--launcher-start-timeout=2s"]);
        let key = node.write_scheduled(manifest::vmi("absent"));
        let vmi = node.wait_for_phase(&key, "Failed", Duration::from_secs(10));
        assert_eq!(
            vmi["status"]["reason"], "LauncherNotStarted",
            "{:#}",
            vmi["status"]
        );
    }

    #[test]
    fn refused_writes_and_closed_watches_lose_nothing() {
        let Some(mut node) = node() else { return };
        for (number, code) in [409, 429, 500].into_iter().enumerate() {
            let name = format!("refused{number}");
            node.api.answer(code, Which::Writes, 3);
            let key = node.schedule(manifest::vmi(&name));
            let vmi = node.wait_for_phase(&key, "Running", PATIENCE);
            assert_eq!(
                phases(&vmi),
                ["Pending", "Scheduling", "Scheduled", "Running"]
            );
            node.wait_for_event(&name, "Started", PATIENCE);
        }
        node.api.close_watches();
        let key = node.schedule(manifest::vmi("closed"));
        node.wait_for_phase(&key, "Running", PATIENCE);
        // A watch that goes on from a revision which is forgotten must list anew.
        node.api.go_away();
        let key = node.schedule(manifest::vmi("compacted"));
        node.api.compact();
        node.api.come_back().expect("the port is free");
        node.wait_for_phase(&key, "Running", PATIENCE);
        node.api.answer(500, Which::All, 10);
        node.pod("closed").signal(Signal::SIGKILL);
        let closed = tests::api_endpoint::Resource::vmis().key(tests::node::NAMESPACE, "closed");
        node.wait_for_phase(&closed, "Failed", PATIENCE);
        node.wait_for_event("closed", "Stopped", PATIENCE);
    }

    /// Counts attempts to connect to a port that a test holds in place of the endpoint, each refused by closing it.
    fn refuse_for(address: &str, time: Duration) -> u64 {
        let listener = std::net::TcpListener::bind(address).expect("take the endpoint's port");
        listener.set_nonblocking(true).expect("do not wait");
        let attempts = std::cell::Cell::new(0);
        let _time_is_over = until(time, || {
            while listener.accept().is_ok() {
                attempts.set(attempts.get() + 1);
            }
            false
        });
        attempts.get()
    }

    #[test]
    fn an_api_server_that_is_away_for_a_minute_is_asked_rarely_and_told_all_afterwards() {
        let Some(mut node) = node() else { return };
        let (stays, mut console) = counting(&mut node, "stays");
        let (dies, off) = (manifest::vmi("dies"), manifest::vmi("off"));
        let (dies, off) = (node.schedule(dies), node.schedule(off));
        node.wait_for_phase(&dies, "Running", PATIENCE);
        node.wait_for_phase(&off, "Running", PATIENCE);
        let mut console_of_off = node.console("off");
        console_of_off.log_in();
        let count = console.next_count();

        node.api.go_away();
        node.pod("dies").signal(Signal::SIGKILL);
        console_of_off.send("poweroff\n");
        let address = node.api.url().replace("http://", "");
        let attempts = refuse_for(&address, Duration::from_secs(60));
        // Watches of two kinds, a heartbeat, two instances with something to tell, and events: each backs off.
        assert!(
            (4..200).contains(&attempts),
            "{attempts} attempts in a minute"
        );
        let late = node.schedule(manifest::vmi("late"));
        let (_, writes_before) = node.api.requests();
        node.api.come_back().expect("the port is free");

        let wait = Duration::from_secs(30);
        let vmi = node.wait_for_phase(&dies, "Failed", wait);
        assert_eq!(
            vmi["status"]["reason"], "LauncherLost",
            "{:#}",
            vmi["status"]
        );
        node.wait_for_phase(&off, "Succeeded", wait);
        node.wait_for_phase(&late, "Running", wait);
        node.wait_for_event("dies", "Stopped", wait);
        node.wait_for_event("off", "Stopped", wait);
        counts_on(&mut console, count);
        assert_eq!(phase(&node, &stays), "Running");
        let (_, writes) = node.api.requests();
        assert!(
            writes - writes_before < 60,
            "{} writes",
            writes - writes_before
        );
        println!("{attempts} attempts to reach the API server in a minute");
    }

    #[test]
    fn nonsense_on_the_notify_socket_changes_nothing() {
        use std::io::Write;
        use std::os::fd::AsRawFd;
        use std::os::unix::net::UnixStream;

        let Some(mut node) = node() else { return };
        let (key, mut console) = counting(&mut node, "told");
        let folder = node.pod("told").volume("public");
        let folder = fs::File::open(folder).expect("the pod has the folder");
        let socket = format!(
            "/proc/self/fd/{}/domain-notify-pipe.sock",
            folder.as_raw_fd()
        );
        let half: &[&[u8]] = &[
            b"",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x40\x00",
            b"{\"kind\":\"Domain\",\"metadata\":{\"name\":\"to",
        ];
        let say = |text: &&[u8]| {
            let mut stream = UnixStream::connect(Path::new(&socket)).expect("the socket is there");
            // The handler may close it first.
            let _closed = stream.write_all(text);
            stream
        };
        half.iter().cycle().take(30).map(say).for_each(drop);
        // A pod has four connections; what is left for its launcher is enough.
        let _open: Vec<UnixStream> = half.iter().map(say).collect();
        let count = console.next_count();
        counts_on(&mut console, count);
        assert_eq!(phase(&node, &key), "Running");
        console.send("\u{3}");
        console.run("true");
        console.send("poweroff\n");
        let vmi = node.wait_for(&key, "final", PATIENCE, is_final);
        assert_eq!(vmi["status"]["phase"], "Succeeded", "{:#}", vmi["status"]);
    }
}
