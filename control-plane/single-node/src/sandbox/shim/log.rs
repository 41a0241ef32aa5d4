//! A container's log as the kubelet's readers expect it (CRI): each line is `<time> <stream> <F or P> <text>`, where `P`
//! is a line that goes on in the next.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// A file longer than this is put aside; one is kept beside the current, so a container's logs take twice as much.
const FILE_LEN_MAX_BYTES: u64 = 10 << 20;
/// Longer lines are written in parts.
const LINE_LEN_MAX_BYTES: usize = 16 << 10;

/// Where output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A log that is written.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    len_bytes: u64,
    /// Beginnings of lines whose end has not come yet.
    pending: [Vec<u8>; 2],
}

impl Log {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = append(path)?;
        let len_bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            len_bytes,
            pending: [Vec::new(), Vec::new()],
        })
    }

    /// Writes output. What cannot be written is lost; the container does not wait for room.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let now = Timestamp::now();
        let mut lines = Vec::with_capacity(bytes.len() + 64);
        let pending = &mut self.pending[stream as usize];
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            pending.extend_from_slice(part);
            if let Some(line) = pending.strip_suffix(b"\n") {
                push(&mut lines, now, stream, 'F', line);
                pending.clear();
            } else if pending.len() >= LINE_LEN_MAX_BYTES {
                push(&mut lines, now, stream, 'P', pending);
                pending.clear();
            }
        }
        self.append(&lines);
    }

    /// Writes lines that had no end.
    pub(super) fn finish(&mut self) {
        let now = Timestamp::now();
        let mut lines = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pending = std::mem::take(&mut self.pending[stream as usize]);
            if !pending.is_empty() {
                push(&mut lines, now, stream, 'F', &pending);
            }
        }
        self.append(&lines);
    }

    fn append(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if self.len_bytes >= FILE_LEN_MAX_BYTES {
            self.put_aside();
        }
        if self.file.write_all(lines).is_ok() {
            self.len_bytes += u64::try_from(lines.len()).unwrap_or(u64::MAX);
        }
    }

    fn put_aside(&mut self) {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".1");
        if fs::rename(&self.path, aside).is_ok()
            && let Ok(file) = append(&self.path)
        {
            self.file = file;
            self.len_bytes = 0;
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn push(lines: &mut Vec<u8>, now: Timestamp, stream: Stream, end: char, text: &[u8]) {
    lines.extend_from_slice(format!("{now:.9} {} {end} ", stream.name()).as_bytes());
    lines.extend_from_slice(text);
    lines.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::{LINE_LEN_MAX_BYTES, Log, Stream};

    fn written(path: &std::path::Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect()
    }

    #[test]
    fn lines_of_both_streams_are_kept_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ns_pod_uid/compute/0.log");
        let mut log = Log::open(&path).unwrap();
        log.write(Stream::Stdout, b"one\ntw");
        log.write(Stream::Stderr, b"oops\n");
        log.write(Stream::Stdout, b"o\nthree");
        log.finish();
        assert_eq!(
            written(&path),
            [
                "stdout F one",
                "stderr F oops",
                "stdout F two",
                "stdout F three"
            ]
        );
    }

    #[test]
    fn long_lines_are_written_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = Log::open(&path).unwrap();
        log.write(Stream::Stdout, &vec![b'x'; LINE_LEN_MAX_BYTES]);
        log.write(Stream::Stdout, b"y\n");
        let lines = written(&path);
        assert!(lines[0].starts_with("stdout P xxx"), "{}", &lines[0][..20]);
        assert_eq!(lines[1], "stdout F y");
    }

    #[test]
    fn logs_do_not_grow_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = Log::open(&path).unwrap();
        let line = [vec![b'x'; 1 << 20], vec![b'\n']].concat();
        for _ in 0..35 {
            log.write(Stream::Stdout, &line);
        }
        let len = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().len();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(len("0.log") + len("0.log.1") < 24 << 20);
    }
}
