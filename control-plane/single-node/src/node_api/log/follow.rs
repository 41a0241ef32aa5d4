//! Following a log until its container has ended.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use tokio::time::timeout;

use super::lines::{Line, Lines};
use crate::node_api::descriptor::Descriptor;
use crate::sandbox::container::{Container, Life};

/// Longest wait for a change: a keeper that was killed changes no file.
const WAIT: Duration = Duration::from_secs(5);
/// Wait where the host gives no more watches.
const WAIT_BLIND: Duration = Duration::from_millis(250);
/// Bytes of changes that are read at once; what they say is not looked at.
const CHANGES_LEN_BYTES: usize = 4096;

/// Lines of a log, and those to come.
pub(in crate::node_api) struct Follower {
    /// Away while it is read.
    lines: Option<Lines>,
    /// The container, where the log is followed.
    container: Option<PathBuf>,
    watch: Option<Descriptor>,
}

impl Follower {
    /// Follows a log while the container of a folder runs; without one, what there is.
    pub(in crate::node_api) fn new(lines: Lines, container: Option<PathBuf>) -> Self {
        Self {
            lines: Some(lines),
            container,
            watch: None,
        }
    }

    /// Returns the next lines, at least one; `None` at the end.
    pub(in crate::node_api) async fn next(&mut self) -> io::Result<Option<Vec<Line>>> {
        loop {
            // Changes after this are seen, and what was written before is read.
            let has_ended = self.look().await;
            let lines = self.read().await?;
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
            if has_ended {
                return Ok(None);
            }
            match &self.watch {
                Some(watch) => {
                    let mut changes = [0; CHANGES_LEN_BYTES];
                    let _in_time = timeout(WAIT, watch.read(&mut changes)).await;
                }
                None => tokio::time::sleep(WAIT_BLIND).await,
            }
        }
    }

    /// Returns whether nothing will be written any more.
    async fn look(&mut self) -> bool {
        let Some(container) = self.container.clone() else {
            return true;
        };
        if let (None, Some(lines)) = (&self.watch, &self.lines) {
            self.watch = watch(&[lines.folder(), &container]).ok();
        }
        let look = move || !matches!(Container::at(container).life(), Ok(Life::Running(_)));
        tokio::task::spawn_blocking(look).await.unwrap_or(true)
    }

    async fn read(&mut self) -> io::Result<Vec<Line>> {
        let Some(mut lines) = self.lines.take() else {
            return Err(io::Error::other("the log was being read"));
        };
        let read = move || (lines.read(), lines);
        let (read, lines) = tokio::task::spawn_blocking(read).await?;
        self.lines = Some(lines);
        read
    }
}

/// Returns what can be read when something in a folder changes (inotify(7)).
fn watch(folders: &[&Path]) -> io::Result<Descriptor> {
    let file = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let changes =
        WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF;
    for folder in folders {
        add_watch(&file, *folder, changes)?;
    }
    Descriptor::readable(file)
}
