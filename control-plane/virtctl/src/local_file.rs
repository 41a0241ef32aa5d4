//! Files of the user.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::failure::Failure;

/// Bytes of a manifest or a key; API servers store less.
const TEXT_LEN_MAX_BYTES: u64 = 3 << 20;

/// Reads a text; `-` is standard input.
///
/// # Errors
///
/// Fails when it cannot be read, is too long or no text.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    let failed = |source| Failure::Local {
        attempt: format!("read {}", path.display()),
        source,
    };
    let mut source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(failed)?)
    };
    let mut text = String::new();
    let limited = &mut source.by_ref().take(TEXT_LEN_MAX_BYTES + 1);
    let len_bytes = limited.read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(len_bytes).is_ok_and(|len_bytes| len_bytes > TEXT_LEN_MAX_BYTES) {
        return Err(Failure::Argument(format!(
            "{} is longer than {TEXT_LEN_MAX_BYTES} bytes: is it the file you mean?",
            path.display()
        )));
    }
    Ok(text)
}
