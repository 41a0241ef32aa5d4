//! Keys and passwords that the guest's agent hands to the guest while it runs (`accessCredentials`).

use std::io;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;

use api::Vmi;
use api::access_credentials::AccessCredential;
use tracing::Span;
use vmm::machine::MachineHandle;

use crate::agent::Agent;
use crate::volumes::{Place, credential_files, keys};

/// How often secrets are looked at: the kubelet takes a minute to write a change.
const INTERVAL: Duration = Duration::from_secs(10);

/// What the guest is to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Order {
    /// Keys that are all of a user's.
    Keys { user: String, keys: Vec<String> },
    /// A user's password.
    Password { user: String, password: String },
}

/// Hands credentials to the guest whenever its agent appears or a secret changes, until the machine has
/// ended. `tell` is called with each outcome.
///
/// # Errors
///
/// Fails when the host refuses a thread.
pub(super) fn keep_up(
    machine: &MachineHandle,
    agent: &Agent,
    vmi: &Vmi,
    place: Place,
    tell: impl Fn(Result<(), String>) + Send + 'static,
) -> io::Result<()> {
    let credentials = vmi.spec.access_credentials.iter();
    let credentials: Vec<_> = credentials
        .filter(|credential| credential.goes_by_agent())
        .cloned()
        .collect();
    if credentials.is_empty() {
        return Ok(());
    }
    let (machine, agent) = (machine.clone(), agent.clone());
    let span = Span::current();
    let work = move || {
        let events = machine.events();
        let mut given = None;
        while events.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Disconnected) {
            if !agent.report().connected {
                // A guest that starts anew may have forgotten everything.
                given = None;
                continue;
            }
            let orders = orders(&credentials, &place);
            if given.as_ref() == Some(&orders) {
                continue;
            }
            let outcome = orders.clone().and_then(|orders| give(&agent, &orders));
            if let Err(error) = &outcome {
                tracing::warn!(error, "guest did not get its credentials");
            }
            given = outcome.is_ok().then_some(orders);
            tell(outcome);
        }
    };
    thread::Builder::new()
        .name("credentials".to_owned())
        .spawn(move || span.in_scope(work))
        .map(drop)
}

/// Reads the secrets.
fn orders(credentials: &[AccessCredential], place: &Place) -> Result<Vec<Order>, String> {
    let mut orders = Vec::new();
    for credential in credentials {
        let files = credential_files(credential, place);
        let files = files.map_err(|error| vmm::error_chain(&error))?;
        let ssh = credential.ssh_public_key.as_ref();
        let users = ssh.and_then(|ssh| ssh.propagation_method.qemu_guest_agent.as_ref());
        if let Some(users) = users {
            let keys: Vec<String> = files.iter().flat_map(|(_, file)| keys(file)).collect();
            orders.extend(users.users.iter().map(|user| Order::Keys {
                user: user.clone(),
                keys: keys.clone(),
            }));
        } else {
            orders.extend(files.into_iter().map(|(user, file)| Order::Password {
                user,
                password: String::from_utf8_lossy(&file).trim().to_owned(),
            }));
        }
    }
    Ok(orders)
}

fn give(agent: &Agent, orders: &[Order]) -> Result<(), String> {
    for order in orders {
        let (user, done) = match order {
            Order::Keys { user, keys } => (user, agent.add_ssh_keys(user, keys, true)),
            Order::Password { user, password } => {
                (user, agent.set_user_password(user, password, false))
            }
        };
        done.map_err(|error| format!("user {user}: {}", vmm::error_chain(&error)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::{Order, orders};
    use crate::pod::PodPaths;
    use crate::volumes::Place;

    #[test]
    fn secrets_become_keys_and_passwords_of_users() {
        let dir = tempfile::tempdir().unwrap();
        let secret = |name: &str, files: &[(&str, &str)]| {
            let folder = dir.path().join(format!("secret/{name}-access-cred"));
            fs::create_dir_all(&folder).unwrap();
            for (file, text) in files {
                fs::write(folder.join(file), text).unwrap();
            }
        };
        secret(
            "keys",
            &[("a", "ssh-ed25519 A\n# no key\n"), ("b", "ssh-ed25519 B")],
        );
        secret("passwords", &[("root", "s3cret\n")]);
        let credentials: Vec<_> = [
            json!({"sshPublicKey": {
                "source": {"secret": {"secretName": "keys"}},
                "propagationMethod": {"qemuGuestAgent": {"users": ["root", "me"]}},
            }}),
            json!({"userPassword": {
                "source": {"secret": {"secretName": "passwords"}},
                "propagationMethod": {"qemuGuestAgent": {}},
            }}),
        ]
        .map(|credential| serde_json::from_value(credential).unwrap())
        .into();
        let place = Place::Pod {
            paths: PodPaths {
                private_dir: dir.path().to_owned(),
                ..PodPaths::default()
            },
            image_volume: false,
        };
        let keys = |user: &str| Order::Keys {
            user: user.to_owned(),
            keys: vec!["ssh-ed25519 A".to_owned(), "ssh-ed25519 B".to_owned()],
        };
        let password = Order::Password {
            user: "root".to_owned(),
            password: "s3cret".to_owned(),
        };
        assert_eq!(
            orders(&credentials, &place).unwrap(),
            [keys("root"), keys("me"), password]
        );
        fs::remove_dir_all(dir.path().join("secret")).unwrap();
        let error = orders(&credentials, &place).unwrap_err();
        assert!(error.contains("keys-access-cred"), "{error}");
    }
}
