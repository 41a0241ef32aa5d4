//! What a new machine's guest is told: cloud-init, keys and passwords.

use api::access_credentials::{
    AccessCredential, CredentialSecret, CredentialSource, GuestAgentUsers, PasswordPropagation,
    SshPropagation, SshPublicKeyCredential, UserPasswordCredential,
};
use api::object::Presence;
use api::volumes::{CloudInitSource, Volume};
use clap::ValueEnum;
use serde_json::json;

use super::parameters::Parameters;
use super::volumes::CLOUD_INIT_DISK;

/// First line of user data in YAML.
const HEADER: &str = "#cloud-config";

/// Where cloud-init finds its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DataSource {
    #[value(name = "nocloud")]
    NoCloud,
    #[value(name = "configdrive")]
    ConfigDrive,
    #[value(name = "none")]
    Off,
}

/// What cloud-init is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UserData {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) ssh_keys: Vec<String>,
    /// Whether SELinux lets the guest agent write keys.
    pub(super) agent_manages_ssh: bool,
}

impl UserData {
    /// Returns it in cloud-init's YAML; JSON strings are YAML's as well.
    pub(super) fn text(&self) -> String {
        let mut lines = vec![HEADER.to_owned()];
        if let Some(user) = &self.user {
            lines.push(format!("user: {}", json!(user)));
        }
        if let Some(password) = &self.password {
            lines.push(format!("password: {}", json!(password)));
            lines.push("chpasswd: { expire: False }".to_owned());
        }
        if !self.ssh_keys.is_empty() {
            lines.push("ssh_authorized_keys:".to_owned());
            lines.extend(
                self.ssh_keys
                    .iter()
                    .map(|key| format!("  - {}", json!(key))),
            );
        }
        if self.agent_manages_ssh {
            lines.push("runcmd:".to_owned());
            lines.push("  - [ setsebool, -P, 'virt_qemu_ga_manage_ssh', 'on' ]".to_owned());
        }
        lines.join("\n")
    }

    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Returns the volume with cloud-init's data. User data in base64 are taken instead of `user_data`.
pub(super) fn volume(
    data_source: DataSource,
    user_data: &UserData,
    user_data_base64: Option<&str>,
    network_data_base64: Option<&str>,
) -> Volume {
    let mut source = CloudInitSource {
        network_data_base64: network_data_base64.unwrap_or_default().to_owned(),
        ..CloudInitSource::default()
    };
    match user_data_base64 {
        Some(data) => data.clone_into(&mut source.user_data_base64),
        None => source.user_data = user_data.text(),
    }
    let mut volume = Volume {
        name: CLOUD_INIT_DISK.to_owned(),
        ..Volume::default()
    };
    match data_source {
        DataSource::ConfigDrive => volume.cloud_init_config_drive = Some(source),
        DataSource::NoCloud | DataSource::Off => volume.cloud_init_no_cloud = Some(source),
    }
    volume
}

/// A credential, and what it needs of cloud-init.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Credential {
    pub(super) credential: AccessCredential,
    /// Data source that carries it.
    pub(super) data_source: Option<DataSource>,
    /// Whether the agent must be allowed to write keys.
    pub(super) needs_agent_for_ssh: bool,
}

/// Reads the value of `--access-cred`; `user` is the one of the whole machine.
pub(super) fn credential(text: &str, user: Option<&str>) -> Result<Credential, String> {
    let parameters = Parameters::parse("access-cred", text)?;
    parameters.check(&["type", "src", "method", "user"])?;
    let source = CredentialSource {
        secret: Some(CredentialSecret {
            secret_name: parameters.local_source("secret")?.to_owned(),
        }),
    };
    let kind = parameters.get("type").unwrap_or("ssh").to_ascii_lowercase();
    let method = parameters
        .get("method")
        .unwrap_or("ga")
        .to_ascii_lowercase();
    if kind == "ssh" && method == "ga" {
        return agent_keys(&parameters, source, user);
    }
    if parameters.get("user").is_some() {
        return Err(parameters
            .wrong("user cannot be specified with selected access credential type and method"));
    }
    match (kind.as_str(), method.as_str()) {
        ("ssh", "nocloud") => Ok(data_source_keys(source, DataSource::NoCloud)),
        ("ssh", "configdrive") => Ok(data_source_keys(source, DataSource::ConfigDrive)),
        ("password", "ga") => Ok(passwords(source)),
        ("ssh", _) => Err(parameters.wrong(&format!(
            "invalid access credentials ssh method {method:?}, supported values are: ga, nocloud, configdrive"
        ))),
        ("password", _) => Err(parameters.wrong(&format!(
            "invalid access credentials password method {method:?}, supported values are: ga"
        ))),
        _ => Err(parameters.wrong(&format!(
            "invalid access credential type {kind:?}, supported values are: ssh, password"
        ))),
    }
}

fn agent_keys(
    parameters: &Parameters<'_>,
    source: CredentialSource,
    user: Option<&str>,
) -> Result<Credential, String> {
    let Some(user) = parameters.get("user").or(user) else {
        return Err(parameters.wrong(
            "user must be specified with access credential ssh method ga (\"--user\" flag or param \"user\")",
        ));
    };
    let propagation_method = SshPropagation {
        qemu_guest_agent: Some(GuestAgentUsers {
            users: vec![user.to_owned()],
        }),
        ..SshPropagation::default()
    };
    Ok(Credential {
        credential: keys(source, propagation_method),
        data_source: None,
        needs_agent_for_ssh: true,
    })
}

fn data_source_keys(source: CredentialSource, data_source: DataSource) -> Credential {
    let is_no_cloud = data_source == DataSource::NoCloud;
    let propagation_method = SshPropagation {
        no_cloud: is_no_cloud.then_some(Presence {}),
        config_drive: (!is_no_cloud).then_some(Presence {}),
        qemu_guest_agent: None,
    };
    Credential {
        credential: keys(source, propagation_method),
        data_source: Some(data_source),
        needs_agent_for_ssh: false,
    }
}

fn keys(source: CredentialSource, propagation_method: SshPropagation) -> AccessCredential {
    AccessCredential {
        ssh_public_key: Some(SshPublicKeyCredential {
            source,
            propagation_method,
        }),
        user_password: None,
    }
}

fn passwords(source: CredentialSource) -> Credential {
    let credential = UserPasswordCredential {
        source,
        propagation_method: PasswordPropagation {
            qemu_guest_agent: Some(Presence {}),
        },
    };
    Credential {
        credential: AccessCredential {
            ssh_public_key: None,
            user_password: Some(credential),
        },
        data_source: None,
        needs_agent_for_ssh: false,
    }
}
