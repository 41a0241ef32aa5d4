//! The local ssh and scp, which reach a machine by `virtctl port-forward --stdio`.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::super::Session;
use super::{Login, SshFlags};
use crate::argument::Place;
use crate::failure::Failure;

/// What a local client is to do.
pub(in crate::commands) struct Client {
    place: Place,
    user: Option<String>,
    flags: SshFlags,
    /// Command line of this program as far as it says which cluster is meant.
    virtctl: Vec<String>,
}

impl Client {
    /// Puts together what flags and target say.
    ///
    /// # Errors
    ///
    /// Fails when no cluster is configured, which is better known now than from the client.
    pub(in crate::commands) async fn of(
        session: &Session,
        flags: &SshFlags,
        login: &Login,
    ) -> Result<Self, Failure> {
        let cluster = session.cluster().await?;
        let flag = session.connection.namespace.as_deref();
        let this = std::env::current_exe();
        let this = this.map_or_else(|_| "virtctl".to_owned(), |path| path.display().to_string());
        let mut virtctl = vec![this];
        virtctl.extend(session.connection.to_arguments());
        let local_user = ["USER", "LOGNAME"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok());
        let user = login.user.clone().or_else(|| flags.username.clone());
        Ok(Self {
            place: login.target.place(flag, &cluster.namespace),
            user: user.or(local_user).filter(|user| !user.is_empty()),
            flags: flags.clone(),
            virtctl,
        })
    }

    /// Returns the options that ssh and scp have in common.
    pub(in crate::commands) fn options(&self) -> Vec<String> {
        let mut options = vec!["-o".to_owned(), self.proxy_command()];
        // An empty name is none: scripts leave the file to the client by it.
        if let Some(file) = self.flags.known_hosts.as_ref().filter(|it| !it.is_empty()) {
            options.extend(["-o".to_owned(), format!("UserKnownHostsFile={file}")]);
        }
        options.extend(self.flags.local_ssh_opts.iter().cloned());
        if let Some(file) = &self.flags.identity_file {
            options.extend(["-i".to_owned(), file.clone()]);
        }
        options
    }

    /// Returns the machine under the name by which the client remembers its key.
    pub(in crate::commands) fn host(&self) -> String {
        let place = &self.place;
        let host = format!("{}.{}.{}", place.kind.short(), place.name, place.namespace);
        match &self.user {
            Some(user) => format!("{user}@{host}"),
            None => host,
        }
    }

    fn proxy_command(&self) -> String {
        let place = &self.place;
        let target = format!("{}/{}/{}", place.kind.short(), place.name, place.namespace);
        let port = self.flags.port.to_string();
        let words = ["port-forward", "--stdio=true", &target, &port];
        let words = self.virtctl.iter().map(String::as_str).chain(words);
        let words: Vec<String> = words.map(quoted).collect();
        format!("ProxyCommand={}", words.join(" "))
    }
}

/// Returns a word as ssh and then a shell take it to be one.
fn quoted(word: &str) -> String {
    let word = word.replace('%', "%%");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:%@,+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word;
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Lets another program take this process, which succeeds or returns why not.
pub(in crate::commands) fn become_program(program: &str, arguments: &[String]) -> Failure {
    tracing::info!(program, ?arguments, "run");
    let source = Command::new(program).args(arguments).exec();
    Failure::Local {
        attempt: format!("run {program}, which this command needs (install the OpenSSH client)"),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Login, SshFlags};
    use super::{Client, quoted};

    fn client(flags: SshFlags) -> Client {
        let login = Login::parse("jane@vm/a/n").unwrap();
        Client {
            place: login.target.place(None, "other"),
            user: login.user,
            flags,
            virtctl: vec![
                "/opt/my tools/virtctl".to_owned(),
                "--context=a%b".to_owned(),
            ],
        }
    }

    fn flags() -> SshFlags {
        SshFlags {
            username: None,
            identity_file: None,
            port: 2222,
            known_hosts: None,
            local_ssh_opts: Vec::new(),
            local_ssh: None,
        }
    }

    #[test]
    fn the_client_connects_through_this_program_and_this_cluster() {
        let client = client(flags());
        let proxy = "ProxyCommand='/opt/my tools/virtctl' --context=a%%b port-forward --stdio=true vm/a/n 2222";
        assert_eq!(client.options(), ["-o", proxy]);
        assert_eq!(client.host(), "jane@vm.a.n");
    }

    #[test]
    fn options_of_the_client_are_passed_on() {
        let client = client(SshFlags {
            identity_file: Some("k".to_owned()),
            known_hosts: Some("h".to_owned()),
            local_ssh_opts: vec!["-v".to_owned()],
            ..flags()
        });
        assert_eq!(
            client.options()[2..],
            ["-o", "UserKnownHostsFile=h", "-v", "-i", "k"]
        );
    }

    #[test]
    fn a_file_of_known_machines_without_a_name_is_left_to_the_client() {
        let client = client(SshFlags {
            known_hosts: Some(String::new()),
            ..flags()
        });
        assert_eq!(client.options().len(), 2);
    }

    #[test]
    fn words_stay_words_for_a_shell() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("$(id)"), "'$(id)'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
