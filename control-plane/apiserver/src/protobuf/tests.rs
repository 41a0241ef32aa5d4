use super::*;

/// Writes a field of bytes.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        field.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    field.push(u8::try_from(length).unwrap());
    [field.as_slice(), content].concat()
}

fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn body(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC, &bytes(1, &meta), &bytes(2, object)].concat()
}

fn map_entry(number: u8, key: &str, value: &[u8]) -> Vec<u8> {
    bytes(
        number,
        &[bytes(1, key.as_bytes()), bytes(2, value)].concat(),
    )
}

#[test]
fn a_secret_is_read_with_bytes_and_without_what_is_zero() {
    let metadata = [
        bytes(1, b"a"),
        bytes(2, b""),
        number(7, 0),
        bytes(8, b""),
        map_entry(11, "x", b""),
    ]
    .concat();
    let object = [
        bytes(1, &metadata),
        map_entry(2, "key", b"\x00\xff"),
        bytes(3, b"Opaque"),
    ]
    .concat();
    assert_eq!(
        decode(&body("v1", "Secret", &object)).unwrap(),
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "labels": {"x": ""}},
            "data": {"key": "AP8="}, "type": "Opaque",
        })
    );
}

#[test]
fn pointers_to_zero_are_values_and_inner_messages_flatten() {
    let quantity = bytes(1, b"1Gi");
    let resources = map_entry(1, "memory", &quantity);
    let port = [number(1, 1), bytes(3, b"http")].concat();
    let get = [bytes(1, b"/x"), bytes(2, &port)].concat();
    let probe = [bytes(1, &bytes(2, &get)), number(2, 0)].concat();
    let container = [bytes(1, b"c"), bytes(8, &resources), bytes(10, &probe)].concat();
    let volume = [bytes(1, b"v"), bytes(2, &bytes(2, b""))].concat();
    let pod = [
        bytes(1, &volume),
        bytes(2, &container),
        number(4, 0),
        number(11, 0),
    ]
    .concat();
    let template = bytes(2, &pod);
    let deployment = bytes(2, &[number(1, 0), bytes(3, &template)].concat());
    let found = decode(&body("apps/v1", "Deployment", &deployment)).unwrap();
    assert_eq!(found["spec"]["replicas"], 0);
    assert_eq!(
        found["spec"]["template"]["spec"],
        json!({
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{
                "name": "c", "resources": {"limits": {"memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"path": "/x", "port": "http"}},
            }],
            "terminationGracePeriodSeconds": 0,
        })
    );
}

#[test]
fn times_and_lists_of_texts_are_read() {
    let seconds = [8, 0x80, 0x8d, 0xce, 0xa5, 0x06];
    let metadata = [bytes(1, b"t"), bytes(8, &seconds)].concat();
    let extra = bytes(
        5,
        &[
            bytes(1, b"scope"),
            bytes(2, &[bytes(1, b"a"), bytes(1, b"b")].concat()),
        ]
        .concat(),
    );
    let review = [bytes(1, &metadata), bytes(2, &extra)].concat();
    let found = decode(&body(
        "authorization.k8s.io/v1",
        "SubjectAccessReview",
        &review,
    ))
    .unwrap();
    assert_eq!(
        found["metadata"]["creationTimestamp"],
        "2023-07-16T05:56:16Z"
    );
    assert_eq!(found["spec"]["extra"], json!({"scope": ["a", "b"]}));
}

#[test]
fn what_is_not_known_is_said_so() {
    let failed = |body: &[u8], code| {
        let failure = decode(body).unwrap_err();
        assert_eq!(failure.code, code, "{failure}");
        failure.message
    };
    assert!(
        failed(&body("kubevirt.io/v1", "VirtualMachine", b""), 415)
            .contains("VirtualMachine of kubevirt.io/v1")
    );
    let unknown = bytes(15, b"x");
    assert!(failed(&body("v1", "ConfigMap", &unknown), 415).contains("field 15 of v1.ConfigMap"));
    failed(b"{}", 400);
    failed(b"", 400);
}

#[test]
fn malformed_bodies_are_refused() {
    let whole = body("v1", "Secret", &bytes(1, &bytes(1, b"a")));
    for end in 5..whole.len() {
        let _either = decode(&whole[..end]);
    }
    let wrong_type = body("v1", "Secret", &number(1, 5));
    assert_eq!(decode(&wrong_type).unwrap_err().code, 400);
    let no_text = body("v1", "Secret", &bytes(3, b"\xff"));
    assert_eq!(decode(&no_text).unwrap_err().code, 400);
    let mut deep = Vec::new();
    for _ in 0..200 {
        // A schema is the only message that holds itself; owners, selectors and all else end.
        deep = bytes(2, &deep);
    }
    assert!(decode(&body("v1", "Pod", &deep)).is_err());
}

proptest::proptest! {
    #[test]
    fn random_bytes_never_panic(noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        for kind in ["Pod", "Secret", "Event"] {
            drop(decode(&body("v1", kind, &noise)));
        }
        drop(decode(&noise));
    }
}
