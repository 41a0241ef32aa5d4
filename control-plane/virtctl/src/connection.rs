//! Which cluster is meant: kubeconfig and the flags that overrule it, as kubectl has them.

use std::path::PathBuf;
use std::time::Duration;

use api::error_chain::chain;
use clap::Args;
use kube::Config;
use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, KubeconfigError, NamedAuthInfo,
    NamedCluster, NamedContext,
};

use crate::failure::Failure;

/// Name of what flags add to a kubeconfig.
const BY_FLAGS: &str = "flags";

/// Flags that say which cluster is meant.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct ConnectionFlags {
    /// Namespace of the objects [default: the one of the context]
    #[arg(short, long, global = true, value_name = "NAMESPACE", value_parser = crate::argument::namespace)]
    pub(crate) namespace: Option<String>,
    /// File that describes the cluster [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,
    /// Cluster of the kubeconfig
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) cluster: Option<String>,
    /// User of the kubeconfig
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) user: Option<String>,
    /// Address of the API server, https://HOST:PORT
    #[arg(
        short,
        long,
        global = true,
        hide_short_help = true,
        value_name = "URL",
        visible_alias = "master"
    )]
    pub(crate) server: Option<String>,
    /// Bearer token of the user
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) token: Option<String>,
    /// User to act as
    #[arg(
        long = "as",
        global = true,
        hide_short_help = true,
        value_name = "USER"
    )]
    pub(crate) act_as: Option<String>,
    /// Group to act as; may be repeated
    #[arg(
        long = "as-group",
        global = true,
        hide_short_help = true,
        value_name = "GROUP",
        requires = "act_as"
    )]
    pub(crate) act_as_groups: Vec<String>,
    /// File with the certificates that vouch for the server
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub(crate) certificate_authority: Option<PathBuf>,
    /// File with the user's certificate
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub(crate) client_certificate: Option<PathBuf>,
    /// File with the user's key
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub(crate) client_key: Option<PathBuf>,
    /// Name that the server's certificate must have [default: the one in its address]
    #[arg(long, global = true, hide_short_help = true, value_name = "NAME")]
    pub(crate) tls_server_name: Option<String>,
    /// Believe whoever answers: do not check the server's certificate
    #[arg(
        long,
        global = true, hide_short_help = true,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        hide_default_value = true,
        value_name = "BOOL"
    )]
    pub(crate) insecure_skip_tls_verify: bool,
    /// Time for an answer, 30s or 1m [default: a little longer than the server's own]
    #[arg(long, global = true, hide_short_help = true, value_name = "TIME", value_parser = crate::argument::seconds)]
    pub(crate) request_timeout: Option<Duration>,
    /// Has no effect: nothing is asked for compressed
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_compression: Option<bool>,
}

impl ConnectionFlags {
    /// Returns the flags as a command line has them, for a program that calls this one again; not the namespace.
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let values = [
            ("kubeconfig", path(&self.kubeconfig)),
            ("context", self.context.clone()),
            ("cluster", self.cluster.clone()),
            ("user", self.user.clone()),
            ("server", self.server.clone()),
            ("token", self.token.clone()),
            ("as", self.act_as.clone()),
            ("certificate-authority", path(&self.certificate_authority)),
            ("client-certificate", path(&self.client_certificate)),
            ("client-key", path(&self.client_key)),
            ("tls-server-name", self.tls_server_name.clone()),
        ];
        let mut arguments: Vec<String> = values
            .into_iter()
            .filter_map(|(flag, value)| Some(format!("--{flag}={}", value?)))
            .collect();
        let groups = self.act_as_groups.iter();
        arguments.extend(groups.map(|group| format!("--as-group={group}")));
        if self.insecure_skip_tls_verify {
            arguments.push("--insecure-skip-tls-verify".to_owned());
        }
        arguments
    }

    /// Whether there is a cluster without any kubeconfig.
    fn names_server(&self) -> bool {
        self.server.is_some()
    }

    /// Reads what the kubeconfig and the flags say; inside a pod without either, its service account is used.
    ///
    /// # Errors
    ///
    /// Fails when there is no kubeconfig, it is wrong, or lacks what the flags name.
    pub(crate) async fn config(&self) -> Result<Config, Failure> {
        let read = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let kubeconfig = match read {
            Ok(kubeconfig) => kubeconfig,
            Err(_) if self.kubeconfig.is_none() && self.names_server() => Kubeconfig::default(),
            Err(error) if self.kubeconfig.is_none() => {
                return self.of_pod().ok_or_else(|| wrong(&error));
            }
            Err(error) => return Err(wrong(&error)),
        };
        self.check_user(&kubeconfig)?;
        let kubeconfig = overruled(kubeconfig, self);
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        config.map_err(|error| wrong(&error))
    }

    /// Checks that there is the user that is named: without one, somebody else would ask.
    fn check_user(&self, kubeconfig: &Kubeconfig) -> Result<(), Failure> {
        let mut users = kubeconfig.auth_infos.iter();
        match &self.user {
            Some(user) if users.all(|named| named.name != *user) => Err(Failure::Configuration(
                format!("--user={user}: the kubeconfig has no such user"),
            )),
            _ => Ok(()),
        }
    }

    fn of_pod(&self) -> Option<Config> {
        let mut config = Config::incluster().ok()?;
        config.auth_info.impersonate.clone_from(&self.act_as);
        Some(config)
    }
}

fn wrong(error: &KubeconfigError) -> Failure {
    Failure::Configuration(chain(error))
}

/// Returns a kubeconfig whose chosen context says what flags say.
fn overruled(mut kubeconfig: Kubeconfig, flags: &ConnectionFlags) -> Kubeconfig {
    let name = flags.context.clone().or(kubeconfig.current_context.clone());
    let name = match name {
        Some(name) => name,
        None if flags.names_server() => BY_FLAGS.to_owned(),
        None => return kubeconfig,
    };
    let position = kubeconfig
        .contexts
        .iter()
        .position(|named| named.name == name);
    let mut context = match position.map(|position| kubeconfig.contexts.remove(position)) {
        Some(named) => named.context.unwrap_or_default(),
        None if flags.context.is_some() || !flags.names_server() => return kubeconfig,
        None => Context::default(),
    };
    let cluster = flags.cluster.as_ref().unwrap_or(&context.cluster);
    let cluster = kubeconfig
        .clusters
        .iter()
        .find(|named| named.name == *cluster);
    let cluster = cluster.and_then(|named| named.cluster.clone());
    // A cluster that is named must be there, unless its address is given.
    if cluster.is_some() || flags.names_server() {
        let cluster = Some(overruled_cluster(cluster.unwrap_or_default(), flags));
        let name = BY_FLAGS.to_owned();
        kubeconfig.clusters.retain(|named| named.name != name);
        kubeconfig.clusters.push(NamedCluster {
            name,
            cluster,
            ..NamedCluster::default()
        });
        BY_FLAGS.clone_into(&mut context.cluster);
    } else if let Some(cluster) = &flags.cluster {
        context.cluster.clone_from(cluster);
    }
    let wanted = flags.user.as_ref().or(context.user.as_ref());
    let user = kubeconfig
        .auth_infos
        .iter()
        .find(|named| Some(&named.name) == wanted);
    let user = user
        .and_then(|named| named.auth_info.clone())
        .unwrap_or_default();
    let name_of_user = BY_FLAGS.to_owned();
    kubeconfig
        .auth_infos
        .retain(|named| named.name != name_of_user);
    kubeconfig.auth_infos.push(NamedAuthInfo {
        name: name_of_user,
        auth_info: Some(overruled_user(user, flags)),
        ..NamedAuthInfo::default()
    });
    context.user = Some(BY_FLAGS.to_owned());
    kubeconfig.contexts.push(NamedContext {
        name: name.clone(),
        context: Some(context),
        ..NamedContext::default()
    });
    kubeconfig.current_context = Some(name);
    kubeconfig
}

fn overruled_cluster(mut cluster: Cluster, flags: &ConnectionFlags) -> Cluster {
    if let Some(server) = &flags.server {
        let has_scheme = server.contains("://");
        let server = if has_scheme {
            server.clone()
        } else {
            format!("http://{server}")
        };
        cluster.server = Some(server);
    }
    if let Some(path) = &flags.certificate_authority {
        cluster.certificate_authority = Some(path.display().to_string());
        cluster.certificate_authority_data = None;
    }
    if let Some(name) = &flags.tls_server_name {
        cluster.tls_server_name = Some(name.clone());
    }
    if flags.insecure_skip_tls_verify {
        cluster.insecure_skip_tls_verify = Some(true);
        cluster.certificate_authority = None;
        cluster.certificate_authority_data = None;
    }
    cluster
}

fn overruled_user(mut user: AuthInfo, flags: &ConnectionFlags) -> AuthInfo {
    if let Some(token) = &flags.token {
        user = AuthInfo {
            token: Some(token.clone().into()),
            ..AuthInfo::default()
        };
    }
    if let Some(path) = &flags.client_certificate {
        user.client_certificate = Some(path.display().to_string());
        user.client_certificate_data = None;
    }
    if let Some(path) = &flags.client_key {
        user.client_key = Some(path.display().to_string());
        user.client_key_data = None;
    }
    if flags.act_as.is_some() {
        user.impersonate.clone_from(&flags.act_as);
        user.impersonate_groups = Some(flags.act_as_groups.clone());
    }
    user
}

#[cfg(test)]
mod tests;
