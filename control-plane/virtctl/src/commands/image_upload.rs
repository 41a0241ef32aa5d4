//! `virtctl image-upload`, which needs the containerized data importer.

use clap::Args;

use super::Session;
use crate::failure::Failure;

/// Upload a disk image into a claim: not supported yet.
///
/// This needs the containerized data importer (CDI) and a version of this program that speaks to it.
#[derive(Debug, Args)]
pub(crate) struct ImageUpload {
    /// What upstream's command takes
    #[arg(value_name = "ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
    arguments: Vec<String>,
}

impl ImageUpload {
    /// Says what to do instead.
    pub(super) fn run(&self, session: &Session) -> Result<(), Failure> {
        let image = self
            .arguments
            .iter()
            .find_map(|word| word.strip_prefix("--image-path="));
        let image = image.unwrap_or("the image");
        Err(Failure::Argument(format!(
            "{} image-upload is not supported yet: there is no containerized data importer to upload to. \
             Make a container image that has {image} as the only file in /disk, for a containerDisk volume, \
             or copy {image} as disk.img into a claim, by a pod that mounts it.",
            session.program.name()
        )))
    }
}
