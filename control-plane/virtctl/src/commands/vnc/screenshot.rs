//! `virtctl vnc screenshot`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::super::Session;
use crate::argument;
use crate::cluster::Kind;
use crate::failure::Failure;

/// Write a picture (PNG) of what the display shows.
#[derive(Debug, Args)]
pub(super) struct Screenshot {
    /// Instance, or the virtual machine of that name
    #[arg(value_name = "VMI", value_parser = argument::instance)]
    name: String,
    /// File to write, - for standard output
    #[arg(short, long)]
    file: PathBuf,
    /// Move the pointer before, so that the guest wakes its display up
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, value_name = "BOOL")]
    move_cursor: bool,
}

impl Screenshot {
    /// Writes the picture.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let cluster = session.cluster().await?;
        let action = format!("vnc/screenshot?moveCursor={}", self.move_cursor);
        let path = cluster.action(Kind::Instance, &self.name, &action);
        let picture = cluster.download(&path).await;
        let picture =
            picture.map_err(|refusal| refusal.of(format!("Can't access VMI {}:", self.name)))?;
        if self.file.as_os_str() == "-" {
            let mut out = std::io::stdout().lock();
            return out.write_all(&picture).map_err(Failure::Output);
        }
        std::fs::write(&self.file, picture).map_err(|source| Failure::Local {
            attempt: format!("write {}", self.file.display()),
            source,
        })
    }
}
