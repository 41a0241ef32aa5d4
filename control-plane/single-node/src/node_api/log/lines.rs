//! Lines of a log as a container's keeper writes it: `<time> <stream> <F or P> <text>`, in a file that is put aside (`.1`)
//! when it is long.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// Bytes of lines that are read at once.
const PIECE_LEN_BYTES: usize = 128 << 10;
/// Bytes that are looked at once for the ends of lines.
const STEP_LEN_BYTES: usize = 64 << 10;
/// Longest line; keepers write shorter ones.
const LINE_LEN_MAX_BYTES: u64 = 1 << 20;

/// A line, or a part of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node_api) struct Line {
    pub(in crate::node_api) time: String,
    pub(in crate::node_api) is_stderr: bool,
    /// Whether the line ends here.
    pub(in crate::node_api) is_whole: bool,
    pub(in crate::node_api) text: Vec<u8>,
}

impl Line {
    /// Returns when it was written.
    pub(super) fn at(&self) -> Timestamp {
        self.time.parse().unwrap_or(Timestamp::MAX)
    }
}

/// Reads a line without its end; `None` for what is none.
pub(super) fn parse(line: &[u8]) -> Option<Line> {
    let mut fields = line.splitn(4, |it| *it == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?.to_owned();
    let is_stderr = fields.next()? == b"stderr";
    let is_whole = fields.next()? != b"P";
    Some(Line {
        time,
        is_stderr,
        is_whole,
        text: fields.next()?.to_vec(),
    })
}

/// The lines of a log, from some line on. It can be read on when it has grown.
pub(in crate::node_api) struct Lines {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// Files that come after the one that is read.
    later: VecDeque<File>,
    /// A line whose end was not written yet.
    pending: Vec<u8>,
}

impl Lines {
    /// Opens a log: all of it, or its last lines. Blocks.
    pub(in crate::node_api) fn open(path: &Path, tail: Option<u64>) -> io::Result<Self> {
        let mut aside = path.to_owned().into_os_string();
        aside.push(".1");
        let mut files = VecDeque::new();
        for path in [Path::new(&aside), path] {
            match File::open(path) {
                Ok(file) => files.push_back(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // It was put aside between the two.
        if let [first, second] = files.make_contiguous()
            && first.metadata()?.ino() == second.metadata()?.ino()
        {
            files.pop_back();
        }
        if let Some(tail) = tail {
            seek_to_tail(&mut files, tail)?;
        }
        Ok(Self {
            path: path.to_owned(),
            file: files.pop_front().map(BufReader::new),
            later: files,
            pending: Vec::new(),
        })
    }

    /// The folder of the log.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Reads some of the next lines; none when there are no more for now. Blocks.
    pub(in crate::node_api) fn read(&mut self) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        let mut len_bytes = 0;
        while len_bytes < PIECE_LEN_BYTES {
            let Some(line) = self.line()? else { break };
            len_bytes += line.len();
            lines.extend(parse(&line));
        }
        Ok(lines)
    }

    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(file) = &mut self.file else {
                // The keeper may not have made it yet.
                self.file = self.next_file()?;
                if self.file.is_none() {
                    return Ok(None);
                }
                continue;
            };
            let len = file
                .by_ref()
                .take(LINE_LEN_MAX_BYTES)
                .read_until(b'\n', &mut self.pending)?;
            if self.pending.ends_with(b"\n") || self.pending.len() as u64 >= LINE_LEN_MAX_BYTES {
                let mut line = std::mem::take(&mut self.pending);
                line.pop_if(|it| *it == b'\n');
                return Ok(Some(line));
            }
            if len > 0 {
                continue;
            }
            let Some(next) = self.next_file()? else {
                return Ok(None);
            };
            // What was written before the file was put aside.
            if let Some(file) = &mut self.file
                && file.read_until(b'\n', &mut self.pending)? > 0
            {
                self.later.push_front(next.into_inner());
                continue;
            }
            self.pending.clear();
            self.file = Some(next);
        }
    }

    /// Returns the file after the current one, if there is one by now.
    fn next_file(&mut self) -> io::Result<Option<BufReader<File>>> {
        if let Some(file) = self.later.pop_front() {
            return Ok(Some(BufReader::new(file)));
        }
        let current = match &self.file {
            Some(file) => Some(file.get_ref().metadata()?.ino()),
            None => None,
        };
        match fs::metadata(&self.path) {
            Ok(found) if Some(found.ino()) == current => Ok(None),
            Ok(_) => File::open(&self.path).map(|it| Some(BufReader::new(it))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Leaves the files from the one that has the first of the last lines on, and goes to that line.
fn seek_to_tail(files: &mut VecDeque<File>, tail: u64) -> io::Result<()> {
    let mut left = tail;
    for at in (0..files.len()).rev() {
        let begin = tail_of(&mut files[at], &mut left)?;
        if let Some(begin) = begin {
            files[at].seek(SeekFrom::Start(begin))?;
            files.drain(..at);
            return Ok(());
        }
        files[at].rewind()?;
    }
    Ok(())
}

/// Returns where the last lines of a file begin; `None` when it has fewer, and then how many are left to be found.
fn tail_of(file: &mut File, left: &mut u64) -> io::Result<Option<u64>> {
    let len_bytes = file.seek(SeekFrom::End(0))?;
    let mut end = len_bytes;
    let mut step = vec![0; STEP_LEN_BYTES];
    if *left == 0 {
        return Ok(Some(len_bytes));
    }
    while end > 0 {
        let begin = end.saturating_sub(STEP_LEN_BYTES as u64);
        let len = usize::try_from(end - begin).unwrap_or(STEP_LEN_BYTES);
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut step[..len])?;
        for at in (0..len).rev() {
            let after = begin + at as u64 + 1;
            if step[at] == b'\n' && after != len_bytes {
                *left -= 1;
                if *left == 0 {
                    return Ok(Some(after));
                }
            }
        }
        end = begin;
    }
    // The first line of the file has no line's end before it.
    if len_bytes > 0 {
        *left -= 1;
    }
    Ok((*left == 0).then_some(0))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::Path;

    use super::Lines;

    fn write(path: &Path, lines: std::ops::Range<u32>) {
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        for line in lines {
            writeln!(file, "2026-01-02T03:04:05.000000000Z stdout F {line}").unwrap();
        }
    }

    fn read(lines: &mut Lines) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let some = lines.read().unwrap();
            if some.is_empty() {
                return all;
            }
            all.extend(
                some.into_iter()
                    .map(|it| String::from_utf8(it.text).unwrap()),
            );
        }
    }

    fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
        range.map(|it| it.to_string()).collect()
    }

    #[test]
    fn the_last_lines_are_found_in_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        write(&folder.path().join("0.log.1"), 0..5000);
        write(&path, 5000..9000);
        for tail in [0, 1, 3, 3999, 4000, 4001, 8999, 9000, 20_000] {
            let mut lines = Lines::open(&path, Some(tail)).unwrap();
            let first = 9000_u64.saturating_sub(tail);
            assert_eq!(
                read(&mut lines),
                numbers(u32::try_from(first).unwrap()..9000),
                "{tail}"
            );
        }
        assert_eq!(
            read(&mut Lines::open(&path, None).unwrap()),
            numbers(0..9000)
        );
    }

    #[test]
    fn a_log_is_read_on_when_it_grows_and_when_it_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut lines = Lines::open(&path, None).unwrap();
        assert_eq!(read(&mut lines), numbers(0..0));
        write(&path, 0..3);
        assert_eq!(read(&mut lines), numbers(0..3));
        let mut file = fs::File::options().append(true).open(&path).unwrap();
        file.write_all(b"2026-01-02T03:04:05.000000000Z stdout F ")
            .unwrap();
        assert_eq!(read(&mut lines), numbers(0..0));
        file.write_all(b"3\n").unwrap();
        assert_eq!(read(&mut lines), numbers(3..4));
        write(&path, 4..6);
        fs::rename(&path, folder.path().join("0.log.1")).unwrap();
        write(&path, 6..8);
        assert_eq!(read(&mut lines), numbers(4..8));
        write(&path, 8..9);
        assert_eq!(read(&mut lines), numbers(8..9));
        fs::write(&path, "").unwrap();
        assert_eq!(read(&mut Lines::open(&path, Some(1)).unwrap()), ["5"]);
    }
}
