//! Dumps of the guest's memory.

use std::path::{Component, Path, PathBuf};
use std::thread;

use tracing::Span;

use super::DomainError;
use super::owner::{Owner, now};
use super::state::Dump;

impl Owner {
    pub(super) fn dump_memory(&mut self, path: PathBuf) -> Result<(), DomainError> {
        let machine = self.machine()?.machine.clone();
        let folder = &self.setup.paths.hotplug_disk_dir;
        if !is_below(&path, folder) {
            let folder = folder.clone();
            return Err(DomainError::DumpPath { path, folder });
        }
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(facts) = &mut self.facts else {
            return Err(DomainError::NoMachine);
        };
        let known = facts.dump.as_ref();
        if known.is_some_and(|dump| dump.file_name == file_name && dump.failure.is_none()) {
            return Ok(());
        }
        facts.dump = Some(Dump {
            file_name: file_name.into_owned(),
            began: now(),
            ..Dump::default()
        });
        let tasks = self.tasks.clone();
        let work = move || {
            let failure = machine.dump_memory(&path).err();
            let failure = failure.map(|error| vmm::error_chain(&error));
            // The owner ends with the process.
            drop(tasks.send(Box::new(|owner: &mut Self| owner.dumped(failure))));
        };
        let span = Span::current();
        let thread = thread::Builder::new().name("memory-dump".to_owned());
        thread.spawn(move || span.in_scope(work))?;
        self.publish();
        Ok(())
    }

    fn dumped(&mut self, failure: Option<String>) {
        if let Some(dump) = self.facts.as_mut().and_then(|facts| facts.dump.as_mut()) {
            tracing::info!(failure, "dump of the memory has ended");
            dump.ended = Some(now());
            dump.failure = failure;
            self.publish();
        }
    }
}

/// Whether a path leads to a file in a folder, by its words alone.
fn is_below(path: &Path, folder: &Path) -> bool {
    let Ok(rest) = path.strip_prefix(folder) else {
        return false;
    };
    let mut parts = rest.components();
    rest.file_name().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_below;

    #[test]
    fn dumps_stay_in_their_folder() {
        let check = |path: &str| is_below(Path::new(path), Path::new("/run/hotplug-disks"));
        assert!(check("/run/hotplug-disks/claim/x.dump"));
        for path in [
            "/run/hotplug-disks",
            "/run/hotplug-disks/../x",
            "/run/hotplug-disks/a/../../x",
            "/etc/passwd",
            "x",
            "",
        ] {
            assert!(!check(path), "{path}");
        }
    }
}
