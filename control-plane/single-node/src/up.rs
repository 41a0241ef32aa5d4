//! `ferrovirt up`: puts the parts of a node together in one process.

mod components;
mod identities;
mod kubeconfig;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use apiserver::objects::Objects;
use apiserver::{ApiServer, LocalServices, Security};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::components::Components;
use self::identities::Identities;
use crate::cli::UpArgs;
use crate::node::{self, Machine};
use crate::state::State;

/// Port of the API server unless the command line says, as in Kubernetes.
const PORT: u16 = 6443;
/// Threads that serve; work that blocks has others.
const WORKERS_MAX: usize = 4;
/// Threads for work that blocks: mounts, images, folders of volumes.
const BLOCKING_MAX: usize = 16;

/// How the node was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Machines are shut down first.
    WithMachines,
    /// Machines run on.
    Alone,
}

/// Runs the node until it is told to end. Blocks.
///
/// # Errors
///
/// Fails when the node cannot start.
pub(crate) fn main(args: &UpArgs) -> anyhow::Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cpus.min(WORKERS_MAX))
        .max_blocking_threads(BLOCKING_MAX)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let done = runtime.block_on(run(args));
    runtime.shutdown_background();
    done
}

async fn run(args: &UpArgs) -> anyhow::Result<()> {
    let began = Instant::now();
    let state = args.state.state();
    let lock = state.lock()?;
    let machine = Machine::look(&node_name(args), state.path());
    say(&format!(
        "ferrovirt {}: node {}, state in {}",
        env!("CARGO_PKG_VERSION"),
        machine.name,
        state.path().display()
    ));
    let (listener, address) = listen(args.listen).await?;
    let identities = Identities::open(&state, &machine.name, address)?;
    let services = LocalServices::default();
    let stop = CancellationToken::new();
    let server = open(&state, &identities, services, stop.clone())?;
    let security = Security::Tls(Arc::new(identities.server_config()?));
    let serving = server.clone();
    let serving = tokio::spawn(async move { serving.serve(listener, security).await });
    let components = Components::start(args, &state, &machine, &server, &identities, &stop).await?;
    kubeconfig::write(&state.kubeconfig(), &identities, address)?;
    say(&format!("  API server  https://{address}"));
    say(&format!("  processors  {}", components.accelerator()));
    say(&format!(
        "ready in {:.1} s; in another terminal:",
        began.elapsed().as_secs_f64()
    ));
    say(&format!(
        "  export KUBECONFIG={}",
        state.kubeconfig().display()
    ));
    match until_told().await? {
        End::WithMachines => components.shut_down().await,
        End::Alone => {
            say("ending; machines run on, and the next `ferrovirt up` takes them up again");
        }
    }
    stop.cancel();
    serving
        .await
        .context("the API server ended badly")?
        .context("serve the API")?;
    drop(lock);
    Ok(())
}

fn node_name(args: &UpArgs) -> String {
    let host = || nix::unistd::gethostname().ok()?.into_string().ok();
    let name = args.node_name.clone().or_else(host);
    let name = name.unwrap_or_else(|| "node".to_owned()).to_lowercase();
    let clean = |it: char| {
        if it.is_ascii_alphanumeric() || it == '-' || it == '.' {
            it
        } else {
            '-'
        }
    };
    let name: String = name.chars().map(clean).collect();
    let name = name.trim_matches(['-', '.']).to_owned();
    if name.is_empty() {
        "node".to_owned()
    } else {
        name
    }
}

/// Takes the address of the API server: the one that is asked for, or the usual one, or any that is free.
async fn listen(wanted: Option<SocketAddr>) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let listener = match wanted {
        Some(address) => TcpListener::bind(address).await.with_context(|| {
            format!("listen on {address}: choose another address with --listen")
        })?,
        None => match TcpListener::bind(usual).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .context("listen on 127.0.0.1")?,
        },
    };
    let address = listener.local_addr().context("listen")?;
    Ok((listener, address))
}

fn open(
    state: &State,
    identities: &Identities,
    services: LocalServices,
    stop: CancellationToken,
) -> anyhow::Result<ApiServer> {
    let mut options = apiserver::Options::new(&state.objects(), identities.token_secret.clone());
    options.services = services;
    options.stop = stop;
    Ok(ApiServer::open(options)?)
}

/// Waits for the first signal to end.
async fn until_told() -> anyhow::Result<End> {
    let mut interrupted = signal(SignalKind::interrupt()).context("listen for signals")?;
    let mut terminated = signal(SignalKind::terminate()).context("listen for signals")?;
    Ok(tokio::select! {
        _ = interrupted.recv() => End::WithMachines,
        _ = terminated.recv() => End::Alone,
    })
}

pub(crate) fn say(text: &str) {
    let _unprintable = writeln!(std::io::stderr(), "{text}");
}

/// Writes the node and keeps telling that it is well.
async fn register(
    objects: &Objects,
    machine: &Machine,
    address: SocketAddr,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    node::register(objects, machine, &address.ip().to_string())
        .await
        .context("register the node")?;
    tokio::spawn(node::beat(
        objects.clone(),
        machine.name.clone(),
        stop.clone(),
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::node_name;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_node_has_a_name_that_kubernetes_takes() {
        for (given, wanted) in [
            ("My_Host.local", "my-host.local"),
            ("-x-", "x"),
            ("äö", "node"),
        ] {
            let name = format!("--node-name={given}");
            let cli = Cli::try_parse_from(["ferrovirt", "up", &name]).unwrap();
            let Command::Up(args) = cli.command else {
                panic!()
            };
            assert_eq!(node_name(&args), wanted);
        }
    }
}
