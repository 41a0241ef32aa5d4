//! Texts that come from a launcher, which shares its pod with the guest's code, made fit for a status.

/// Most characters of a name.
pub(super) const NAME_CHARS_MAX: usize = 253;
/// Most characters of a message: what an event holds.
pub const MESSAGE_CHARS_MAX: usize = 1024;

/// Returns a text without control characters and not longer than so many characters, the last of which is then `…`.
#[must_use]
pub fn bounded(text: &str, chars_max: usize) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut rest = text.chars();
    let mut kept: String = rest.by_ref().take(chars_max).map(printable).collect();
    if rest.next().is_some() {
        kept.pop();
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::bounded;

    #[test]
    fn texts_are_cut_and_freed_of_control_characters() {
        assert_eq!(bounded("fine", 4), "fine");
        assert_eq!(bounded("too long", 4), "too…");
        assert_eq!(bounded("a\n\u{1b}b", 9), "a  b");
        assert_eq!(bounded("ééé", 2), "é…");
    }
}
