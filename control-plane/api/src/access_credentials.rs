//! `accessCredentials`: keys and passwords that the guest gets from secrets.

use crate::object::{Presence, object};

object! {
    /// A key or a password; exactly one of the fields is set.
    pub struct AccessCredential {
        /// Public keys for SSH.
        pub ssh_public_key: Option<SshPublicKeyCredential>,
        /// Passwords of users.
        pub user_password: Option<UserPasswordCredential>,
    }

    /// Public keys for SSH.
    pub struct SshPublicKeyCredential {
        /// Where they come from.
        pub source: CredentialSource,
        /// How the guest gets them.
        pub propagation_method: SshPropagation,
    }

    /// Passwords of users: each key of the secret is a user, its value the password.
    pub struct UserPasswordCredential {
        /// Where they come from.
        pub source: CredentialSource,
        /// How the guest gets them.
        pub propagation_method: PasswordPropagation,
    }

    /// Where keys and passwords come from.
    pub struct CredentialSource {
        /// A secret.
        pub secret: Option<CredentialSecret>,
    }

    /// A secret with keys or passwords.
    pub struct CredentialSecret {
        /// Its name.
        pub secret_name: String,
    }

    /// How the guest gets public keys; exactly one of the fields is set.
    pub struct SshPropagation {
        /// In the metadata of its `cloudInitConfigDrive` volume.
        pub config_drive: Option<Presence>,
        /// In the metadata of its `cloudInitNoCloud` volume.
        pub no_cloud: Option<Presence>,
        /// By the guest agent, while the guest runs.
        pub qemu_guest_agent: Option<GuestAgentUsers>,
    }

    /// Users whose `authorized_keys` the guest agent writes.
    pub struct GuestAgentUsers {
        /// Their names.
        pub users: Vec<String>,
    }

    /// How the guest gets passwords.
    pub struct PasswordPropagation {
        /// By the guest agent, while the guest runs.
        pub qemu_guest_agent: Option<Presence>,
    }
}

impl AccessCredential {
    /// Returns the name of the secret that holds the key or password; empty when none is named.
    pub fn secret_name(&self) -> &str {
        let ssh = self.ssh_public_key.as_ref().map(|ssh| &ssh.source);
        let password = self.user_password.as_ref().map(|password| &password.source);
        ssh.or(password)
            .and_then(|source| source.secret.as_ref())
            .map_or("", |secret| &secret.secret_name)
    }

    /// Whether the guest agent hands it to the guest, which it can do at any time.
    pub fn goes_by_agent(&self) -> bool {
        let ssh = self.ssh_public_key.as_ref();
        let password = self.user_password.as_ref();
        ssh.is_some_and(|ssh| ssh.propagation_method.qemu_guest_agent.is_some())
            || password.is_some_and(|p| p.propagation_method.qemu_guest_agent.is_some())
    }
}
