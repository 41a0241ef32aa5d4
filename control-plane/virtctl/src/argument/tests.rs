use std::time::Duration;

use super::{
    ForwardedPort, Place, Protocol, Subject, Target, instance, label, machine, minutes, name,
    namespace, seconds,
};
use crate::cluster::Kind;

#[test]
fn what_would_change_a_path_is_no_name() {
    for good in ["a", "my-vm", "vm.example", "0"] {
        assert_eq!(name(good).as_deref(), Ok(good));
    }
    for bad in [
        "", "../x", "a/b", "A", "a?b", "-a", "a.", "a b", "\u{e4}", "%2e",
    ] {
        assert!(name(bad).is_err(), "{bad:?}");
        assert!(namespace(bad).is_err(), "{bad:?}");
    }
    assert!(name(&"a".repeat(254)).is_err());
    assert!(namespace("a.b").is_err());
}

#[test]
fn objects_are_named_by_one_word_or_two() {
    assert_eq!(machine("myvm").as_deref(), Ok("myvm"));
    assert_eq!(machine("vm/myvm").as_deref(), Ok("myvm"));
    assert!(machine("vmi/myvm").is_err());
    assert_eq!(instance("vmi/a").as_deref(), Ok("a"));
    assert_eq!(instance("vm/a").as_deref(), Ok("a"));
    assert!(instance("pod/a").is_err());

    let object = |kind: &str, name: Option<&str>| {
        let subject = Subject {
            kind: kind.to_owned(),
            name: name.map(ToOwned::to_owned),
        };
        subject.object().ok()
    };
    let vm = Some((Kind::Machine, "a".to_owned()));
    assert_eq!(object("vm", Some("a")), vm);
    assert_eq!(object("VirtualMachines", Some("a")), vm);
    assert_eq!(object("vm/a", None), vm);
    assert_eq!(
        object("vmi", Some("a")),
        Some((Kind::Instance, "a".to_owned()))
    );
    assert_eq!(object("vm", None), None);
    assert_eq!(object("vm/a", Some("b")), None);
    assert_eq!(object("pod", Some("a")), None);
}

#[test]
fn targets_have_the_forms_of_all_versions() {
    let check = |text: &str, flag: Option<&str>, kind, name: &str, namespace: &str| {
        let place = Target::parse(text).unwrap().place(flag, "of-context");
        let expected = Place {
            kind,
            name: name.to_owned(),
            namespace: namespace.to_owned(),
        };
        assert_eq!(place, expected, "{text}");
    };
    check("a", None, Kind::Instance, "a", "of-context");
    check("vm/a", None, Kind::Machine, "a", "of-context");
    check("vmi/a", Some("n"), Kind::Instance, "a", "n");
    check("vm/a/m", Some("n"), Kind::Machine, "a", "m");
    check("a.m", None, Kind::Instance, "a", "m");
    check("vmi/a.m", None, Kind::Instance, "a", "m");
    check("vmi/a.b.m", None, Kind::Instance, "a.b", "m");
    check("vmi/a.b", Some("n"), Kind::Instance, "a.b", "n");
    check("vmi/a.b/n", None, Kind::Instance, "a.b", "n");
    for bad in ["", "pod/a", "vm/", "vm//n", "vm/a/", "vm/a/n/x", "vm/A"] {
        assert!(Target::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn ports_may_have_a_protocol_and_a_target() {
    let check = |text: &str, protocol, local, remote| {
        let expected = ForwardedPort {
            protocol,
            local,
            remote,
        };
        assert_eq!(ForwardedPort::parse(text), Ok(expected), "{text}");
    };
    check("8080", Protocol::Tcp, 8080, 8080);
    check("8080:80", Protocol::Tcp, 8080, 80);
    check("udp/53:5353", Protocol::Udp, 53, 5353);
    check("TCP/22", Protocol::Tcp, 22, 22);
    check(":22", Protocol::Tcp, 0, 22);
    for bad in ["", "0", "80:0", "65536", "sctp/1", "a:b", "1:2:3", "-1"] {
        assert!(ForwardedPort::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn times_are_numbers_or_have_units() {
    assert_eq!(minutes("5"), Ok(Duration::from_secs(300)));
    assert_eq!(minutes("30s"), Ok(Duration::from_secs(30)));
    assert_eq!(seconds("2"), Ok(Duration::from_secs(2)));
    assert_eq!(seconds("1m"), Ok(Duration::from_secs(60)));
    assert!(minutes("-1").is_err() && minutes("soon").is_err());
    assert_eq!(label("a=b"), Ok(("a".to_owned(), "b".to_owned())));
    assert!(label("=b").is_err() && label("a").is_err());
}
