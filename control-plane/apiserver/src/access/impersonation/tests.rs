use http::{HeaderMap, HeaderName, HeaderValue};

use super::{User, asked, take};
use crate::access::Attributes;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    // Collected, a header that repeats would replace itself.
    let mut headers = HeaderMap::new();
    for (name, value) in pairs.iter().map(pair) {
        headers.append(name, value);
    }
    headers
}

fn rights(of: &[Attributes]) -> Vec<String> {
    let right = |it: &Attributes| {
        let Attributes {
            verb,
            group,
            namespace,
            name,
            ..
        } = it;
        format!("{verb} {group}/{}/{namespace}/{name}", it.full_resource())
    };
    of.iter().map(right).collect()
}

#[test]
fn a_user_is_in_the_group_of_those_who_proved_it_and_in_those_that_are_said() {
    #[track_caller]
    fn check(pairs: &[(&'static str, &'static str)], name: &str, groups: &[&str]) {
        let (user, _) = asked(&headers(pairs)).unwrap().unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups),
            (name, groups.iter().map(|it| (*it).to_owned()).collect())
        );
    }
    check(
        &[("impersonate-user", "bob")],
        "bob",
        &["system:authenticated"],
    );
    let staff = [
        ("impersonate-user", "bob"),
        ("impersonate-group", "a"),
        ("impersonate-group", "b"),
    ];
    check(&staff, "bob", &["a", "b", "system:authenticated"]);
    let nobody = [("impersonate-user", "system:anonymous")];
    check(&nobody, "system:anonymous", &["system:unauthenticated"]);
    let robot = "system:serviceaccount:ns:robot";
    let of_robot = [
        "system:serviceaccounts",
        "system:serviceaccounts:ns",
        "system:authenticated",
    ];
    check(&[("impersonate-user", robot)], robot, &of_robot);
}

#[test]
fn each_thing_that_is_said_takes_a_right() {
    let all = headers(&[
        ("impersonate-user", "bob"),
        ("impersonate-group", "staff"),
        ("impersonate-uid", "17"),
        ("impersonate-extra-example.org%2fscope", "all"),
    ]);
    let (user, wanted) = asked(&all).unwrap().unwrap();
    assert_eq!(user.uid, "17");
    assert_eq!(user.extra["example.org/scope"], ["all"]);
    assert_eq!(
        rights(&wanted),
        [
            "impersonate /users//bob",
            "impersonate /groups//staff",
            "impersonate authentication.k8s.io/uids//17",
            "impersonate authentication.k8s.io/userextras/example.org/scope//all",
        ]
    );
    let robot = headers(&[("impersonate-user", "system:serviceaccount:ns:robot")]);
    let (_, wanted) = asked(&robot).unwrap().unwrap();
    assert_eq!(rights(&wanted), ["impersonate /serviceaccounts/ns/robot"]);
}

#[test]
fn without_a_user_nobody_is_meant() {
    assert_eq!(asked(&HeaderMap::new()), Ok(None));
    for (name, value) in [
        ("impersonate-group", "system:masters"),
        ("impersonate-user", ""),
        ("impersonate-uid", "1"),
    ] {
        let refused = asked(&headers(&[(name, value)])).unwrap_err();
        assert_eq!(refused.code, 400, "{name}");
    }
}

#[test]
fn nothing_behind_hears_of_it() {
    let mut given = headers(&[
        ("impersonate-user", "bob"),
        ("impersonate-extra-x", "y"),
        ("accept", "application/json"),
    ]);
    let taken = take(&mut given);
    assert_eq!((taken.len(), given.len()), (2, 1));
    assert_eq!(User::anonymous().groups, ["system:unauthenticated"]);
}
