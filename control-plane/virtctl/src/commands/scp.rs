//! `virtctl scp`: the local scp, connected through the API server.

use std::process::ExitCode;

use clap::Args;

use super::Session;
use super::ssh::{Login, SshClient, SshFlags, become_program};
use crate::failure::Failure;

/// Copy files from or to a virtual machine or an instance, by the local scp client.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Copy a file to the home folder of user jdoe:
  virtctl scp myfile.bin jdoe@vm/myvm:

  # Copy a folder from a virtual machine of another namespace:
  virtctl scp --recursive jdoe@vm/myvm/mynamespace:/var/log ./logs")]
pub(crate) struct Scp {
    /// File, or [USER@]TARGET:FILE
    #[arg(value_name = "FROM")]
    from: String,
    /// File, or [USER@]TARGET:FILE
    #[arg(value_name = "TO")]
    to: String,
    #[command(flatten)]
    client: SshFlags,
    /// Copy folders with what is in them
    #[arg(short, long)]
    recursive: bool,
    /// Keep times and modes
    #[arg(long)]
    preserve: bool,
}

/// What is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Copying<'a> {
    login: Login,
    remote: &'a str,
    local: &'a str,
    is_upload: bool,
}

impl Scp {
    /// Becomes the client.
    pub(super) async fn run(&self, session: &Session) -> Result<ExitCode, Failure> {
        let copying = copying(&self.from, &self.to).map_err(Failure::Argument)?;
        let client = SshClient::of(session, &self.client, &copying.login).await?;
        let mut arguments = client.options();
        let options = [("-r", self.recursive), ("-p", self.preserve)];
        let options = options.into_iter().filter(|(_, is_set)| *is_set);
        arguments.extend(options.map(|(option, _)| option.to_owned()));
        let remote = format!("{}:{}", client.host(), copying.remote);
        let local = copying.local.to_owned();
        let pair = if copying.is_upload {
            [local, remote]
        } else {
            [remote, local]
        };
        arguments.push("--".to_owned());
        arguments.extend(pair);
        Err(become_program("scp", &arguments))
    }
}

/// Tells which side is the machine: the one with a colon.
fn copying<'a>(from: &'a str, to: &'a str) -> Result<Copying<'a>, String> {
    let (remote, local, is_upload) = match (from.split_once(':'), to.split_once(':')) {
        (Some(remote), None) => (remote, to, false),
        (None, Some(remote)) => (remote, from, true),
        (Some(_), Some(_)) => {
            return Err(format!(
                "copying from a remote location to another remote location is not supported: {from:?} to {to:?}"
            ));
        }
        (None, None) => {
            return Err(format!(
                "none of the two provided locations seems to be a remote location: {from:?} to {to:?}: write TARGET:FILE"
            ));
        }
    };
    Ok(Copying {
        login: Login::parse(remote.0)?,
        remote: remote.1,
        local,
        is_upload,
    })
}

#[cfg(test)]
mod tests {
    use super::copying;

    #[test]
    fn the_side_with_a_colon_is_the_machine() {
        let up = copying("f", "jane@vm/a:g").unwrap();
        assert_eq!((up.local, up.remote, up.is_upload), ("f", "g", true));
        assert_eq!(up.login.user.as_deref(), Some("jane"));
        let down = copying("vmi/a.n:", "f").unwrap();
        assert_eq!((down.local, down.remote, down.is_upload), ("f", "", false));
        for (from, to) in [("f", "g"), ("vm/a:f", "vm/b:g"), ("x/a:f", "g")] {
            assert!(copying(from, to).is_err(), "{from} {to}");
        }
    }
}
