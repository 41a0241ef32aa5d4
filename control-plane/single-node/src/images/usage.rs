//! Which containers use an image: those whose specification, or whose pod's volumes, name its files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sandbox::container::{Container, Life};
use crate::sandbox::image::ImageRoot;

/// Returns the users of a root folder below the folder of all sandboxes, as `pod <uid> container <name>`.
pub(super) fn users(sandboxes: &Path, root: &Path) -> Vec<String> {
    let mut users = Vec::new();
    for pod in folders(sandboxes) {
        for container in folders(&pod.join("containers")) {
            let mut runs = folders(&container).into_iter();
            if runs.any(|run| uses(&Container::at(run), root)) {
                users.push(format!("pod {} container {}", name(&pod), name(&container)));
            }
        }
    }
    users
}

fn uses(container: &Container, root: &Path) -> bool {
    if !matches!(container.life(), Ok(Life::Running(_))) {
        return false;
    }
    let spec = container.spec().ok().flatten();
    spec.is_some_and(|spec| {
        spec.root == ImageRoot::Folder(root.to_owned())
            || spec.mounts.iter().any(|it| it.source.starts_with(root))
    })
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|it| it.path())
        .filter(|it| it.is_dir())
        .collect()
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
