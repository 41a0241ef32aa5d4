//! Logins at registries: `--creds`, pull secrets, and the files that Docker and Podman keep.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::HeaderValue;
use serde::Deserialize;

use crate::images::reference::Reference;

/// Most bytes of a file of logins.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Who pulls.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Login {
    /// User and password.
    Password {
        /// User.
        user: String,
        /// Password, or token that is used as one.
        password: String,
    },
    /// A token that is good for other tokens (`identitytoken`).
    Token(String),
}

/// Why logins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// It is not `user:password`.
    #[error("credentials must be USER:PASSWORD")]
    NoPassword,
    /// It is not what Docker writes.
    #[error("{from}: it is no Docker configuration with logins: {reason}")]
    Malformed {
        /// The secret or file.
        from: String,
        /// What is wrong.
        reason: String,
    },
}

/// Logins, each for a registry or a part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Keyring {
    /// For every registry.
    all: Option<Login>,
    /// By place, as in Docker's file: host, perhaps with the beginning of a path.
    by_place: Vec<(String, Login)>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

impl Login {
    /// Returns the header that shows it; a token cannot be shown so.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { user, password } = self else {
            return None;
        };
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl Keyring {
    /// Returns a keyring with one login, `user:password`, for every registry.
    ///
    /// # Errors
    ///
    /// Fails when there is no colon.
    pub fn of_user(text: &str) -> Result<Self, KeyringError> {
        let (user, password) = text.split_once(':').ok_or(KeyringError::NoPassword)?;
        Ok(Self {
            all: Some(Login::Password {
                user: user.to_owned(),
                password: password.to_owned(),
            }),
            by_place: Vec::new(),
        })
    }

    /// Adds the logins of a Docker configuration (`.dockerconfigjson`), or of its older form (`.dockercfg`).
    ///
    /// # Errors
    ///
    /// Fails when it is malformed.
    pub fn add(&mut self, from: &str, config: &[u8]) -> Result<(), KeyringError> {
        let malformed = |reason: String| KeyringError::Malformed {
            from: from.to_owned(),
            reason,
        };
        for (place, entry) in entries(config).map_err(|error| malformed(error.to_string()))? {
            if let Some(login) = entry.login().map_err(&malformed)? {
                self.by_place.push((plain(&place), login));
            }
        }
        Ok(())
    }

    /// Returns the logins that this user has in the files of Docker and Podman. Blocks shortly.
    #[must_use]
    pub fn of_files() -> Self {
        let mut keyring = Self::default();
        for path in files() {
            let is_small = fs::metadata(&path).is_ok_and(|it| it.len() <= FILE_MAX_BYTES);
            let Some(config) = is_small.then(|| fs::read(&path).ok()).flatten() else {
                continue;
            };
            if let Err(error) = keyring.add(&path.display().to_string(), &config) {
                tracing::warn!(%error, "cannot use logins");
            }
        }
        keyring
    }

    /// Returns the logins to try for an image, the most particular first; none for nobody in particular.
    pub(in crate::images) fn logins(&self, reference: &Reference) -> Vec<Option<Login>> {
        let matching = self
            .by_place
            .iter()
            .filter(|(place, _)| is_for(place, reference));
        let mut matching: Vec<_> = matching.collect();
        matching.sort_by_key(|(place, _)| std::cmp::Reverse(place.len()));
        let logins = matching
            .into_iter()
            .map(|(_, login)| login)
            .chain(&self.all);
        let logins: Vec<_> = logins.cloned().map(Some).collect();
        if logins.is_empty() {
            vec![None]
        } else {
            logins
        }
    }
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

fn entries(config: &[u8]) -> Result<BTreeMap<String, Entry>, serde_json::Error> {
    #[derive(Deserialize)]
    struct File {
        auths: Option<BTreeMap<String, Entry>>,
    }
    let file: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(config)?;
    let is_older = !file.is_empty() && file.values().all(|it| it.get("auth").is_some());
    if is_older {
        return serde_json::from_slice(config);
    }
    let file: File = serde_json::from_slice(config)?;
    Ok(file.auths.unwrap_or_default())
}

impl Entry {
    fn login(self) -> Result<Option<Login>, String> {
        if let Some(token) = self.identitytoken.filter(|it| !it.is_empty()) {
            return Ok(Some(Login::Token(token)));
        }
        if let (Some(user), Some(password)) = (self.username, self.password) {
            return Ok(Some(Login::Password { user, password }));
        }
        let Some(auth) = self.auth.filter(|it| !it.is_empty()) else {
            return Ok(None);
        };
        let auth = auth.trim().trim_end_matches('=');
        let decoded = STANDARD_NO_PAD
            .decode(auth)
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8(decoded).map_err(|error| error.to_string())?;
        let pair = text.trim_end_matches('\0').split_once(':');
        let (user, password) = pair.ok_or("an auth has no colon")?;
        Ok(Some(Login::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        }))
    }
}

fn files() -> Vec<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let docker = folder("DOCKER_CONFIG").or_else(|| Some(folder("HOME")?.join(".docker")));
    let podman = folder("XDG_RUNTIME_DIR").map(|it| it.join("containers/auth.json"));
    let named = folder("REGISTRY_AUTH_FILE");
    let docker = docker.map(|it| it.join("config.json"));
    [named, docker, podman].into_iter().flatten().collect()
}

/// Returns a place without scheme, API version and the other names of Docker's registry.
fn plain(place: &str) -> String {
    let place = place
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let place = place.trim_end_matches('/');
    let place = place.trim_end_matches("/v1").trim_end_matches("/v2");
    match place {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => {
            "docker.io".to_owned()
        }
        other => other.to_owned(),
    }
}

/// Whether a login is for an image: the host fits (`*` stands for one part of it), and the path begins the repository.
fn is_for(place: &str, reference: &Reference) -> bool {
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let (wanted, found) = (host.split('.'), reference.registry.split('.'));
    let is_host = wanted.clone().count() == found.clone().count()
        && wanted
            .zip(found)
            .all(|(wanted, found)| wanted == found || wanted == "*");
    let rest = reference.repository.strip_prefix(path);
    is_host && (path.is_empty() || rest.is_some_and(|it| it.is_empty() || it.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::{Keyring, Login};
    use crate::images::reference::Reference;

    fn users(keyring: &Keyring, reference: &str) -> Vec<String> {
        let reference = Reference::parse(reference).unwrap();
        let user = |login: Option<Login>| match login {
            Some(Login::Password { user, password }) => format!("{user}/{password}"),
            Some(Login::Token(token)) => token,
            None => "nobody".to_owned(),
        };
        keyring.logins(&reference).into_iter().map(user).collect()
    }

    #[test]
    fn the_most_particular_login_comes_first() {
        let config = br#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "ZG9ja2VyOnB3"},
            "quay.io": {"username": "quay", "password": "a:b"},
            "quay.io/team": {"identitytoken": "token"},
            "*.example.org": {"auth": "ZXg6cHc="},
            "empty.io": {}
        }, "credsStore": "desktop"}"#;
        let mut keyring = Keyring::default();
        keyring.add("secret", config).unwrap();
        assert_eq!(users(&keyring, "debian"), ["docker/pw"]);
        assert_eq!(users(&keyring, "quay.io/other/x"), ["quay/a:b"]);
        assert_eq!(users(&keyring, "quay.io/team/x"), ["token", "quay/a:b"]);
        assert_eq!(users(&keyring, "quay.io/teams/x"), ["quay/a:b"]);
        assert_eq!(users(&keyring, "r.example.org/x"), ["ex/pw"]);
        assert_eq!(users(&keyring, "empty.io/x"), ["nobody"]);
        assert_eq!(
            users(&Keyring::of_user("me:x").unwrap(), "a.io/b"),
            ["me/x"]
        );
    }

    #[test]
    fn malformed_secrets_are_told() {
        let mut keyring = Keyring::default();
        for odd in ["", "[]", r#"{"auths": {"a.io": {"auth": "?"}}}"#] {
            let error = keyring.add("secret pull", odd.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("secret pull"), "{error}");
        }
        keyring
            .add("older", br#"{"a.io": {"auth": "ZXg6cHc="}}"#)
            .unwrap();
        assert_eq!(users(&keyring, "a.io/x"), ["ex/pw"]);
        assert!(Keyring::of_user("me").is_err());
    }
}
