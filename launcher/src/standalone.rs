//! One instance without a cluster: from its manifest to a machine's end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{FieldError, FieldPath};

use crate::cli::{Cli, ConsoleChoice};
use crate::console::{Console, ConsoleSocket};
use crate::convert::{Converted, Environment, checked, convert};
use crate::host;
use crate::host_devices::Variables;
use crate::images::ImageStore;
use crate::instance::{Instance, InstanceError};
use crate::life::{self, LifeError};
use crate::state_dir::{Layout, StateDir, StateDirError};
use crate::support::Remarks;
use crate::volumes::{
    Place, Standalone, VolumeCause, VolumeError, plan_kernel, plan_volumes, prepare,
};

/// Why an instance did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneError {
    /// There is no manifest.
    #[error("nothing to run: give a manifest with --standalone FILE or set STANDALONE_VMI")]
    NoManifest,
    /// The manifest is not usable.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// Fields of the instance are wrong.
    #[error("{first}{}", more(*others))]
    Fields {
        /// The first of them.
        first: FieldError,
        /// How many more there are.
        others: usize,
    },
    /// A volume cannot be prepared.
    #[error("{field}")]
    Volume {
        /// The field, as the manifest calls it.
        field: FieldPath,
        /// Why.
        source: Box<VolumeCause>,
    },
    /// There is no place for the machine's files.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The console socket cannot be made.
    #[error("make the console socket {}: give another --state-dir", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The machine did not run to its end.
    #[error(transparent)]
    Life(#[from] LifeError),
}

fn more(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => " (and 1 more error)".to_owned(),
        _ => format!(" (and {others} more errors)"),
    }
}

/// Runs the instance that the command line names, until its guest powers off.
///
/// # Errors
///
/// Fails when the instance cannot run; no file of it is left behind then.
pub fn run(cli: &Cli) -> Result<(), StandaloneError> {
    let instance = match (&cli.standalone, &cli.standalone_vmi) {
        (Some(path), _) => Instance::from_file(path)?,
        (None, Some(value)) => Instance::from_variable(value)?,
        (None, None) => return Err(StandaloneError::NoManifest),
    };
    let metadata = &instance.vmi.metadata;
    let ns = metadata.namespace_or_default();
    let _span = tracing::info_span!("vmi", ns, name = metadata.name, uid = metadata.uid).entered();
    life::hold_signals().map_err(LifeError::from)?;
    let (mut state, converted) = build(cli, &instance)?;
    let console = Console::new();
    let devices = &instance.vmi.spec.domain.devices;
    let has_console = devices.autoattach_serial_console.unwrap_or(true);
    if has_console {
        listen(&instance, &console, &mut state)?;
    }
    let with_terminal = has_console && cli.console == ConsoleChoice::Terminal;
    let grace = grace_period(cli, &instance);
    life::run(converted.config, &console, with_terminal, grace, || {
        state.started();
    })?;
    tracing::info!("machine has ended");
    Ok(())
}

/// What the instance says, else what the controller says.
fn grace_period(cli: &Cli, instance: &Instance) -> Duration {
    let spec = &instance.vmi.spec;
    let given = spec
        .termination_grace_period_seconds
        .or(cli.cluster.grace_period_seconds);
    Duration::from_secs(given.unwrap_or_else(|| spec.grace_period_seconds()))
}

fn listen(
    instance: &Instance,
    console: &Console,
    state: &mut StateDir,
) -> Result<(), StandaloneError> {
    let path = Layout::new(state.root(), &instance.vmi).serial_socket();
    state.claim_socket(&path)?;
    let socket = ConsoleSocket::listen(&path, console)
        .map_err(|source| StandaloneError::Socket { path, source })?;
    tracing::info!(socket = %socket.path().display(), "serial console listens");
    Ok(())
}

/// Makes the machine's files and its configuration.
fn build(cli: &Cli, instance: &Instance) -> Result<(StateDir, Converted), StandaloneError> {
    let fields = |errors| field_errors(instance, errors);
    let vmi = checked(&instance.vmi).map_err(fields)?;
    let mut state = StateDir::acquire(cli.state_dir.as_deref())?;
    let agent_socket = Layout::new(state.root(), &vmi).agent_socket();
    state.claim_socket(&agent_socket)?;
    let place = Place::Standalone(Standalone {
        root: state.root().to_owned(),
        volume_dir: cli.volume_dir.clone(),
        images: ImageStore::new(cli.image_dir.clone(), cache_dir(cli, state.root())),
    });
    let plans = plan_volumes(&vmi, &place).map_err(|error| fields(vec![error]))?;
    let kernel = plan_kernel(&vmi, &place);
    let volumes = prepare(&plans, kernel.as_ref(), &place, &mut state).map_err(|error| {
        let VolumeError { field, source } = error;
        let field = instance.field_in_manifest(&field);
        StandaloneError::Volume { field, source }
    })?;
    let environment = Environment {
        accel: cli.accel,
        bios: cli.bios.clone().or_else(host::bios_image),
        memory_bytes: host::memory_bytes(),
        agent_socket: Some(agent_socket),
        strict: false,
        device_variables: Variables::new(),
    };
    let converted = convert(&instance.vmi, &volumes, &environment).map_err(fields)?;
    log_remarks(instance, &instance.remarks);
    log_remarks(instance, &converted.remarks);
    Ok((state, converted))
}

fn field_errors(instance: &Instance, errors: Vec<FieldError>) -> StandaloneError {
    let others = errors.len().saturating_sub(1);
    let first = errors
        .into_iter()
        .next()
        .unwrap_or_else(|| FieldError::new(FieldPath::new("spec"), "not valid"));
    let path = instance.field_in_manifest(&first.path);
    StandaloneError::Fields {
        first: FieldError { path, ..first },
        others,
    }
}

fn log_remarks(instance: &Instance, remarks: &Remarks) {
    for FieldError { path, message, .. } in &remarks.warnings {
        let field = instance.field_in_manifest(path);
        tracing::warn!(%field, reason = message, "field is not honoured");
    }
    for FieldError { path, message, .. } in &remarks.notes {
        let field = instance.field_in_manifest(path);
        tracing::info!(%field, reason = message, "field is not honoured");
    }
}

fn cache_dir(cli: &Cli, state_dir: &Path) -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    cli.cache_dir
        .clone()
        .or_else(|| {
            host::cache_dir(
                variable("XDG_CACHE_HOME").as_deref(),
                variable("HOME").as_deref(),
            )
        })
        .unwrap_or_else(|| state_dir.join("images"))
}
