use std::os::unix::fs::PermissionsExt;

use super::{Authority, Subject};
use crate::access::{User, user_of_certificate};

#[test]
fn the_authority_is_made_once_and_signs_users() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::open(folder.path()).unwrap();
    let again = Authority::open(folder.path()).unwrap();
    assert_eq!(authority.certificate(), again.certificate());
    let mode = folder
        .path()
        .join("ca.key")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let subject = Subject {
        name: "admin",
        group: Some("system:masters"),
        hosts: &["localhost"],
        addresses: &["127.0.0.1".parse().unwrap()],
    };
    let identity = again.sign(&subject).unwrap();
    let der = super::certificates(&identity.certificate).unwrap();
    assert_eq!(user_of_certificate(&der[0]).unwrap(), User::master("admin"));
    assert!(authority.server(&identity).is_ok());
}

#[test]
fn a_damaged_authority_is_an_error_and_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.crt"), "nonsense").unwrap();
    std::fs::write(folder.path().join("ca.key"), "nonsense").unwrap();
    assert!(Authority::open(folder.path()).is_err());
    assert_eq!(
        std::fs::read_to_string(folder.path().join("ca.crt")).unwrap(),
        "nonsense"
    );
}
