//! `virtctl ssh`: the local ssh, connected through the API server.

mod client;

use std::process::ExitCode;

use clap::Args;

use self::client::Client;
use super::Session;
use crate::argument::Target;
use crate::failure::Failure;

/// Open an SSH connection to a virtual machine or an instance, by the local ssh client.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Connect to the virtual machine 'myvm' as user jdoe:
  virtctl ssh jdoe@vm/myvm

  # Use a key, and a virtual machine of another namespace:
  virtctl ssh -i ~/.ssh/id_ed25519 jdoe@vm/myvm/mynamespace

  # Run a command:
  virtctl ssh jdoe@vmi/myvmi -c 'uname -a'

  # Do not check the key of a machine that is made anew each time:
  virtctl ssh jdoe@vm/myvm -t '-o StrictHostKeyChecking=no' -t '-o UserKnownHostsFile=/dev/null'")]
pub(crate) struct Ssh {
    /// Machine, [USER@]TYPE/NAME[/NAMESPACE] or [USER@]NAME[.NAMESPACE]
    #[arg(value_name = "[USER@]TARGET", value_parser = Login::parse)]
    login: Login,
    #[command(flatten)]
    client: SshFlags,
    /// Command to run in the guest
    #[arg(short, long)]
    command: Option<String>,
}

/// Flags of ssh and scp.
#[derive(Clone, Debug, Args)]
pub(super) struct SshFlags {
    /// User in the guest [default: the local user]
    #[arg(short = 'l', long)]
    username: Option<String>,
    /// File with the private key
    #[arg(short, long, value_name = "FILE")]
    identity_file: Option<String>,
    /// Port of the guest's SSH server
    #[arg(short, long, default_value_t = 22, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// File with the keys of known machines [default: the local client's]
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<String>,
    /// Option for the local client, '-o Option=value'; may be repeated
    #[arg(short = 't', long, value_name = "OPTION", allow_hyphen_values = true)]
    local_ssh_opts: Vec<String>,
    /// Has no effect: the local client is always used
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    local_ssh: Option<bool>,
}

/// A user of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) target: Target,
}

impl Login {
    /// Reads `[USER@]TARGET`.
    ///
    /// # Errors
    ///
    /// Fails for an empty user and for what is no target.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (user, target) = match text.rsplit_once('@') {
            Some(("", _)) => return Err("expected username before '@'".to_owned()),
            Some((_, "")) => return Err("expected target after '@'".to_owned()),
            // An option of the client would be taken for the user.
            Some((user, _)) if user.starts_with('-') => {
                return Err(format!("{user:?} is no user"));
            }
            Some((user, target)) => (Some(user.to_owned()), target),
            None => (None, text),
        };
        let target = Target::parse(target)?;
        Ok(Self { user, target })
    }
}

impl Ssh {
    /// Becomes the client.
    pub(super) async fn run(&self, session: &Session) -> Result<ExitCode, Failure> {
        let client = Client::of(session, &self.client, &self.login).await?;
        let mut arguments = client.options();
        arguments.push(client.host());
        arguments.extend(self.command.clone());
        Err(become_program("ssh", &arguments))
    }
}

pub(super) use client::{Client as SshClient, become_program};

#[cfg(test)]
mod tests {
    use super::Login;
    use crate::argument::Target;

    #[test]
    fn a_user_may_stand_before_the_target() {
        let target = Target::parse("vm/a/n").unwrap();
        let user = Some("jane".to_owned());
        assert_eq!(Login::parse("jane@vm/a/n"), Ok(Login { user, target }));
        assert_eq!(Login::parse("vm/a").unwrap().user, None);
        let of_domain = Login::parse("jane@example.com@vm/a").unwrap();
        assert_eq!(of_domain.user.as_deref(), Some("jane@example.com"));
        for bad in ["@vm/a", "jane@", "-oProxyCommand=x@vm/a", "jane@pod/a", ""] {
            assert!(Login::parse(bad).is_err(), "{bad}");
        }
    }
}
