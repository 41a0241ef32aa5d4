//! One container.

use single_node::sandbox::container::Life;
use single_node::sandbox::spec::UserSpec;

use crate::place::{Place, end_of, ferrovirt};

#[test]
fn a_container_runs_logs_and_ends_with_its_status() {
    let Some(place) = Place::new() else { return };
    let (container, spec) = place.script("c", "echo hello; echo $$ >&2; own-program; exit 7");
    let began = std::time::Instant::now();
    let mut fresh = container.start(ferrovirt(), &spec).unwrap();
    println!("started after {:?}", began.elapsed());
    let ended = end_of(&container);
    assert_eq!((ended.code, ended.failure), (7, None));
    fresh.keeper.wait().unwrap();
    let log = place.log("c");
    for line in ["hello", "1", "own program"] {
        assert!(log.lines().any(|found| found == line), "{log:?}");
    }
}

#[test]
fn a_container_that_cannot_start_says_why() {
    let Some(place) = Place::new() else { return };
    let (container, mut spec) = place.script("c", "");
    spec.argv = vec!["no-such-program".to_owned()];
    let error = container.start(ferrovirt(), &spec).unwrap_err().to_string();
    assert!(
        error.contains("no-such-program") && error.contains("no such program"),
        "{error}"
    );
    let Life::Ended {
        ended,
        started: None,
    } = container.life().unwrap()
    else {
        panic!("{:?}", container.life())
    };
    assert_eq!(ended.code, 128);
}

#[test]
fn a_container_has_its_own_view_and_few_rights() {
    let Some(place) = Place::new() else { return };
    let script = "id -u; id -g; id -G; grep -c . /proc/mounts; ls -d /work /home/* 2>&1; cat /proc/sys/kernel/hostname; \
        grep Cap /proc/self/status; grep NoNewPrivs /proc/self/status; ls /dev; touch /x 2>&1; ps -e | wc -l; : > /dev/null";
    let (container, mut spec) = place.script("c", script);
    spec.user = UserSpec {
        uid: Some(107),
        gid: Some(107),
        groups: vec![107, 3000],
        ..UserSpec::default()
    };
    spec.capabilities = 1 << 10;
    spec.ambient_capabilities = 1 << 10;
    container
        .start(ferrovirt(), &spec)
        .unwrap()
        .keeper
        .wait()
        .unwrap();
    let log = place.log("c");
    println!("{log}");
    assert_eq!(end_of(&container).code, 0);
    assert!(log.starts_with("107\n107\n107 3000\n"), "{log}");
    assert!(
        log.contains("CapEff:\t0000000000000400") && log.contains("CapBnd:\t0000000000000400"),
        "{log}"
    );
    assert!(log.contains("NoNewPrivs:\t1"), "{log}");
    assert!(log.contains("touch: cannot touch '/x'"), "{log}");
}

#[test]
fn a_container_has_a_terminal_where_it_wants_one() {
    let Some(place) = Place::new() else { return };
    let (container, mut spec) = place.script(
        "c",
        "test -t 0 && test -t 1 && test -t 2 && echo terminal > /dev/tty; exit 2",
    );
    spec.has_terminal = true;
    let mut fresh = container.start(ferrovirt(), &spec).unwrap();
    fresh.keeper.wait().unwrap();
    assert_eq!(end_of(&container).code, 2);
    assert!(place.log("c").contains("terminal"), "{}", place.log("c"));
}

#[test]
fn devices_are_those_of_the_container() {
    let Some(place) = Place::new() else { return };
    let (container, mut spec) =
        place.script("c", "ls /dev; cat /dev/made/zero | head -c 3 | wc -c");
    spec.devices.push(single_node::sandbox::spec::Device {
        source: "/dev/zero".into(),
        target: "/dev/made/zero".to_owned(),
        permissions: "rw".to_owned(),
    });
    container
        .start(ferrovirt(), &spec)
        .unwrap()
        .keeper
        .wait()
        .unwrap();
    let log = place.log("c");
    let names: Vec<_> = log.lines().collect();
    let expected = [
        "fd", "full", "made", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero", "3",
    ];
    assert_eq!(names, expected);
}
