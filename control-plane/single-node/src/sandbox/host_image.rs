//! The built-in image of our own components: the host's `/usr`, and over it the launcher under all its names.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, linkat};

use super::image::{Image, ImageError, ImageRoot};

/// Reference of the image, without its tag.
pub const LAUNCHER_IMAGE: &str = "registry.example/ferrovirt/virt-launcher";
/// Name of the program that the image is for.
const LAUNCHER: &str = "virt-launcher";
/// Its other names.
const NAMES: [&str; 5] = [
    "virt-launcher-monitor",
    "virt-probe",
    "virt-freezer",
    "virt-tail",
    "container-disk",
];
/// Folder of the programs in the state.
const PROGRAMS: &str = "programs";
/// Search path of programs in the image.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether a reference means the built-in image.
#[must_use]
pub fn is_built_in(reference: &str) -> bool {
    let rest = reference.strip_prefix(LAUNCHER_IMAGE);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
}

/// Returns the built-in image, with the programs' folder made below `state` when it is missing. Blocks.
///
/// # Errors
///
/// Fails when there is no launcher at this path, or the folder cannot be written.
pub fn resolve(launcher: &Path, state: &Path) -> Result<Image, ImageError> {
    let failed = |error: &io::Error| ImageError::Failed {
        reference: LAUNCHER_IMAGE.to_owned(),
        reason: format!(
            "the program {} cannot be used: {error}; put virt-launcher beside ferrovirt",
            launcher.display()
        ),
    };
    let (programs, version) = programs(launcher, state).map_err(|error| failed(&error))?;
    Ok(Image {
        root: ImageRoot::Host(programs),
        digest: format!("{LAUNCHER_IMAGE}@built-in:{version}"),
        entrypoint: vec![format!("/usr/bin/{LAUNCHER}")],
        cmd: Vec::new(),
        env: vec![PATH.to_owned()],
        user: String::new(),
        workdir: String::new(),
    })
}

/// Returns the folder whose `bin` has the programs. Another build gets another folder, as containers may run the older.
fn programs(launcher: &Path, state: &Path) -> io::Result<(PathBuf, String)> {
    let found = fs::metadata(launcher)?;
    let version = format!("{:x}-{:x}-{:x}", found.ino(), found.mtime(), found.len());
    let folder = state.join(PROGRAMS).join(&version);
    let bin = folder.join("bin");
    if bin.join(NAMES[NAMES.len() - 1]).symlink_metadata().is_ok() {
        return Ok((folder, version));
    }
    fs::create_dir_all(&bin)?;
    let program = bin.join(LAUNCHER);
    if !program.exists() {
        copy(launcher, &program)?;
    }
    for name in NAMES {
        match symlink(LAUNCHER, bin.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok((folder, version))
}

/// Removes the folders of all programs, which no container may use any more. Blocks.
///
/// # Errors
///
/// Fails when something cannot be removed.
pub fn forget(state: &Path) -> io::Result<()> {
    match fs::remove_dir_all(state.join(PROGRAMS)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A second name of the same file shares its memory with the first; on another file system there is a copy. Nothing that
/// exists is ever written to: it may be the launcher itself, under a name that another made at the same time.
fn copy(launcher: &Path, program: &Path) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let new = program.with_extension(format!("{}-{number}", std::process::id()));
    // Left by a process of the same number that was killed.
    let _not_there = fs::remove_file(&new);
    // The file itself, where its name is a link.
    let linked = linkat(CWD, launcher, CWD, &new, AtFlags::SYMLINK_FOLLOW);
    if linked.is_err() {
        let mut from = fs::File::open(launcher)?;
        let mut to = fs::File::create_new(&new)?;
        io::copy(&mut from, &mut to)?;
        to.set_permissions(from.metadata()?.permissions())?;
    }
    fs::rename(&new, program)?;
    // Two names of the same file are left both.
    let _gone = fs::remove_file(&new);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use super::{is_built_in, programs};

    #[test]
    fn the_launcher_stays_whole_however_many_ask_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let launcher = folder.path().join("virt-launcher");
        for round in 0..50 {
            fs::write(&launcher, format!("program {round}")).unwrap();
            let state = folder.path().join(format!("state{round}"));
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| programs(&launcher, &state).unwrap());
                }
            });
            let (made, _) = programs(&launcher, &state).unwrap();
            for path in [
                launcher.clone(),
                made.join("bin/virt-launcher"),
                made.join("bin/virt-probe"),
            ] {
                assert_eq!(
                    fs::read_to_string(path).unwrap(),
                    format!("program {round}")
                );
            }
            assert_eq!(fs::read_dir(made.join("bin")).unwrap().count(), 6);
            fs::remove_file(&launcher).unwrap();
        }
    }

    #[test]
    fn only_the_own_image_is_built_in() {
        assert!(is_built_in("registry.example/ferrovirt/virt-launcher:v1"));
        assert!(is_built_in("registry.example/ferrovirt/virt-launcher"));
        assert!(!is_built_in(
            "registry.example/ferrovirt/virt-launcher-more:v1"
        ));
        assert!(!is_built_in("quay.io/kubevirt/virt-launcher:v1"));
    }
}
