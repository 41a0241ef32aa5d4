//! `ferrovirt image`: bring images onto the node, list and remove them. It works on the store itself, so the node may run
//! or not.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{ImageInfo, Images, Keyring};
use crate::cli::StateArgs;

mod show;

/// What to do with images.
#[derive(Clone, Debug, Args)]
pub struct ImageArgs {
    /// What to do
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// What to do with images.
#[derive(Clone, Debug, Subcommand)]
pub enum ImageCommand {
    /// Import images from an archive or a folder
    Import(ImportArgs),
    /// Fetch an image from its registry
    Pull(PullArgs),
    /// List the images
    Ls(StateArgs),
    /// Remove images
    Rm(RemoveArgs),
}

/// What to import.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// OCI archive, archive of `docker save` or `podman save`, packed or not, OCI layout folder; - for standard input
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,

    /// Name of the image, such as quay.io/containerdisks/fedora:42 [default: the one that the archive says]
    #[arg(long, value_name = "REFERENCE")]
    pub name: Option<String>,

    /// Where the state is
    #[command(flatten)]
    pub state: StateArgs,
}

/// What to fetch.
#[derive(Clone, Debug, Args)]
pub struct PullArgs {
    /// Name of the image, such as quay.io/containerdisks/fedora:42
    #[arg(value_name = "REFERENCE")]
    pub reference: String,

    /// User and password at the registry [default: as in ~/.docker/config.json]
    #[arg(
        long,
        value_name = "USER:PASSWORD",
        env = "FERROVIRT_REGISTRY_CREDS",
        hide_env_values = true
    )]
    pub creds: Option<String>,

    /// Where the state is
    #[command(flatten)]
    pub state: StateArgs,
}

/// What to remove.
#[derive(Clone, Debug, Args)]
pub struct RemoveArgs {
    /// Names or digests of images
    #[arg(value_name = "REFERENCE", required = true)]
    pub references: Vec<String>,

    /// Where the state is
    #[command(flatten)]
    pub state: StateArgs,
}

/// Does what the command line says.
///
/// # Errors
///
/// Fails when it cannot be done.
pub fn main(args: &ImageArgs) -> anyhow::Result<()> {
    match &args.command {
        ImageCommand::Import(args) => import(args),
        ImageCommand::Pull(args) => pull(args),
        ImageCommand::Ls(args) => list(args),
        ImageCommand::Rm(args) => remove(args),
    }
}

fn open(state: &StateArgs) -> anyhow::Result<Images> {
    Ok(Images::open(&state.state().images())?)
}

fn import(args: &ImportArgs) -> anyhow::Result<()> {
    let images = open(&args.state)?;
    let name = args.name.as_deref();
    if name.is_some() && args.paths.len() > 1 {
        anyhow::bail!("--name: there are several archives, and one name names one image");
    }
    for path in &args.paths {
        let shown = show::Shown::new();
        let imported = images.import(path, name, &shown.report());
        shown.end();
        tell("imported", &imported?)?;
    }
    Ok(())
}

fn pull(args: &PullArgs) -> anyhow::Result<()> {
    let images = open(&args.state)?;
    let shown = show::Shown::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let keyring = match &args.creds {
        Some(creds) => Keyring::of_user(creds)?,
        None => Keyring::of_files(),
    };
    let report = shown.report();
    let pulled = runtime.block_on(images.pull(&args.reference, &keyring, &report));
    shown.end();
    tell("pulled", &[pulled?])
}

fn tell(what: &str, images: &[ImageInfo]) -> anyhow::Result<()> {
    for image in images {
        let names = image.references.join(", ");
        writeln!(
            std::io::stdout(),
            "{what} {names} ({})",
            show::size(image.size)
        )?;
    }
    Ok(())
}

fn list(args: &StateArgs) -> anyhow::Result<()> {
    let mut images = open(args)?.list()?;
    images.sort_by(|a, b| a.references.cmp(&b.references));
    write!(std::io::stdout(), "{}", table(&images, Timestamp::now()))?;
    Ok(())
}

/// Returns the images as a table, one line for each name.
fn table(images: &[ImageInfo], now: Timestamp) -> String {
    let mut rows = vec![["REFERENCE", "IMAGE ID", "CREATED", "SIZE"].map(str::to_owned)];
    for image in images {
        let names = image.references.iter().map(String::as_str);
        let unnamed = image.references.is_empty().then_some("<none>");
        for name in names.chain(unnamed) {
            rows.push([
                name.to_owned(),
                image.digest.hex()[..12].to_owned(),
                image
                    .created
                    .map_or_else(|| "-".to_owned(), |it| show::age(it, now)),
                show::size(image.size),
            ]);
        }
    }
    show::columns(&rows)
}

fn remove(args: &RemoveArgs) -> anyhow::Result<()> {
    let images = open(&args.state)?;
    for reference in &args.references {
        images.remove(reference)?;
        writeln!(std::io::stdout(), "removed {reference}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
