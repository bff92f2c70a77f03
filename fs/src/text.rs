//! Text from outside, made safe to show.
//!
//! Names, labels and lines come from a guest, a tenant or a network. Shown as they are, they could
//! break a line of a log in two, give orders to a terminal, or show other words than they hold.

/// Whether a character is never shown as it is: control characters (C0, C1 and DEL), the line and
/// paragraph separators, the controls of text direction, and the byte order mark.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200e}' | '\u{200f}' | '\u{061c}' // marks of direction
                | '\u{2028}' | '\u{2029}' // line and paragraph separator
                | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' // embeddings and isolates
                | '\u{feff}' // byte order mark
        )
}

/// Adds a character as it may be shown: hidden ones as Rust writes them (`\n`, `\u{202e}`).
fn push(out: &mut String, c: char) {
    match is_hidden(c) {
        true if c.is_control() => out.extend(c.escape_default()),
        true => out.extend(c.escape_unicode()),
        false => out.push(c),
    }
}

/// Text as it may be shown: one line, hidden characters escaped ([`is_hidden`]).
///
/// ```
/// assert_eq!(snf_fs::text::escape("a\u{202e}b\nc"), "a\\u{202e}b\\nc");
/// ```
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push(&mut out, c));
    out
}

/// Bytes of a guest's path or name as text for a message: UTF-8 where it is that, `\xNN` where it
/// is not, hidden characters escaped ([`is_hidden`]).
pub fn display_name(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push(&mut out, c));
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_escaped() {
        assert_eq!(display_name("fußball".as_bytes()), "fußball");
        assert_eq!(display_name(b"a\nSUCCESS\xff"), "a\\nSUCCESS\\xff");
    }

    #[test]
    fn nothing_hidden_passes() {
        let hidden = ('\0'..=' ')
            .take(32)
            .chain('\u{7f}'..='\u{9f}')
            .chain('\u{202a}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}')
            .chain("\u{2028}\u{2029}\u{feff}\u{200e}\u{200f}\u{61c}".chars());
        for c in hidden {
            let shown = escape(&format!("<{c}>"));
            assert!(shown.chars().all(|c| c == '<' || c == '>' || c.is_ascii_graphic()), "{shown}");
            assert_eq!(display_name(c.to_string().as_bytes()), escape(&c.to_string()));
        }
        assert_eq!(escape("\u{9b}31m, \u{2028}"), "\\u{9b}31m, \\u{2028}");
        assert_eq!(escape("Füße 日本 \u{1f600}"), "Füße 日本 \u{1f600}");
    }
}
