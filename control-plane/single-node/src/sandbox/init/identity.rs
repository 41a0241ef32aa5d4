//! Who runs a container, and with which rights.

use std::fs::File;
use std::io::{self, Read};

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::process::Signal;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs,
};

use super::told;
use crate::sandbox::spec::{ContainerSpec, UserSpec};

/// Bytes of an account file that are read.
const ACCOUNTS_LEN_MAX_BYTES: u64 = 1 << 20;

/// An account of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sandbox) struct Account {
    pub(in crate::sandbox) uid: u32,
    pub(in crate::sandbox) gid: u32,
    pub(in crate::sandbox) groups: Vec<u32>,
    pub(in crate::sandbox) home: String,
}

/// Finds the account in the container's own files. To be called when `/` is the container's.
pub(in crate::sandbox) fn resolve(spec: &ContainerSpec) -> io::Result<Account> {
    let account = account(
        &spec.user,
        &accounts("/etc/passwd"),
        &accounts("/etc/group"),
    )?;
    if spec.user.must_not_be_root && account.uid == 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "container has runAsNonRoot and image will run as root: set securityContext.runAsUser",
        ));
    }
    Ok(account)
}

fn accounts(path: &str) -> String {
    let mut text = Vec::new();
    // An image without accounts has numbers only.
    let _absent =
        File::open(path).and_then(|file| file.take(ACCOUNTS_LEN_MAX_BYTES).read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

fn account(user: &UserSpec, passwd: &str, group: &str) -> io::Result<Account> {
    let (name, group_name) = user.name.split_once(':').unwrap_or((&user.name, ""));
    let unknown = |kind: &str, name: &str| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("the image has no {kind} {name:?}"),
        )
    };
    let named = |name: &str| fields(passwd).find(|entry| entry.first() == Some(&name));
    let uid = match user.uid {
        Some(uid) => uid,
        None if name.is_empty() => 0,
        None => number(
            named(name)
                .and_then(|entry| entry.get(2).copied())
                .unwrap_or(name),
        )
        .ok_or_else(|| unknown("user", name))?,
    };
    let entry = fields(passwd).find(|entry| entry.get(2).copied().and_then(number) == Some(uid));
    let own_group = entry.as_ref().and_then(|entry| number(entry.get(3)?));
    let group_number = |name: &str| {
        let entry = fields(group).find(|entry| entry.first() == Some(&name));
        number(
            entry
                .and_then(|entry| entry.get(2).copied())
                .unwrap_or(name),
        )
    };
    let gid = match user.gid {
        Some(gid) => gid,
        None if group_name.is_empty() || user.uid.is_some() => own_group.unwrap_or(0),
        None => group_number(group_name).ok_or_else(|| unknown("group", group_name))?,
    };
    let home = entry
        .and_then(|entry| entry.get(5).copied())
        .filter(|home| !home.is_empty());
    Ok(Account {
        uid,
        gid,
        groups: user.groups.clone(),
        home: home.unwrap_or("/").to_owned(),
    })
}

fn fields(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// Takes the account, and gives up all rights that the container does not have.
pub(in crate::sandbox) fn assume(spec: &ContainerSpec, account: &Account) -> io::Result<()> {
    let wanted = CapabilitySet::from_bits_retain(spec.capabilities);
    let own = rustix::thread::capabilities(None)?.permitted;
    let kept = wanted & own;
    for bit in (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        if !kept.contains(bit) {
            // The kernel knows fewer than there are bits.
            let _unknown = remove_capability_from_bounding_set(bit);
        }
    }
    let groups: Vec<_> = account.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).map_err(told("set the groups"))?;
    let gid = Gid::from_raw(account.gid);
    setresgid(gid, gid, gid).map_err(told("set the group"))?;
    set_keep_capabilities(true)?;
    let uid = Uid::from_raw(account.uid);
    setresuid(uid, uid, uid).map_err(told("set the user"))?;
    set_keep_capabilities(false)?;
    restrict(
        kept,
        kept & CapabilitySet::from_bits_retain(spec.ambient_capabilities),
        uid,
    )?;
    if spec.no_new_privileges {
        set_no_new_privs(true)?;
    }
    // Without its keeper nobody would note how the container ends.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Root has capabilities by being root; others only those that are passed on to programs (capabilities(7)).
fn restrict(kept: CapabilitySet, ambient: CapabilitySet, uid: Uid) -> io::Result<()> {
    let (permitted, inheritable) = if uid.is_root() {
        (kept, CapabilitySet::empty())
    } else {
        (ambient, ambient)
    };
    clear_ambient_capability_set()?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: permitted,
            permitted,
            inheritable,
        },
    )
    .map_err(told("give up capabilities"))?;
    for capability in inheritable.iter() {
        configure_capability_in_ambient_set(capability, true)
            .map_err(told("pass capabilities on"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Account, account};
    use crate::sandbox::spec::UserSpec;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/srv:/bin/false\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:\n";

    fn check(user: UserSpec, uid: u32, gid: u32, home: &str) {
        let found = account(&user, PASSWD, GROUP).unwrap();
        assert_eq!(
            found,
            Account {
                uid,
                gid,
                groups: user.groups,
                home: home.to_owned()
            }
        );
    }

    fn named(name: &str) -> UserSpec {
        UserSpec {
            name: name.to_owned(),
            ..UserSpec::default()
        }
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        check(named(""), 0, 0, "/root");
        check(named("web"), 33, 44, "/srv");
        check(named("33"), 33, 44, "/srv");
        check(named("web:staff"), 33, 50, "/srv");
        check(named("1000:1001"), 1000, 1001, "/");
        account(&named("nobody-here"), PASSWD, GROUP).unwrap_err();
        account(&named("web:nothing"), PASSWD, GROUP).unwrap_err();
    }

    #[test]
    fn numbers_of_the_pod_take_precedence() {
        let user = UserSpec {
            uid: Some(107),
            groups: vec![7],
            ..named("web")
        };
        check(user.clone(), 107, 0, "/");
        check(
            UserSpec {
                gid: Some(107),
                ..user
            },
            107,
            107,
            "/",
        );
    }
}
