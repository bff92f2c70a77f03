//! The last step before a person or a program sees a text: whatever came from outside, nothing in it
//! commands a terminal, forges a line or turns the reading order around ([`snf_fs::text::is_hidden`]).
//! The places that write to a terminal, a log, a serial line or a monitor use this and nothing else.

use snf_fs::text::{escape, is_hidden};

/// A text of several lines, as pages and tables are: line feeds and tabs stay, other hidden characters
/// are escaped.
pub fn page(text: &str) -> String {
    let keeps = |c: char| c == '\n' || c == '\t';
    text.split_inclusive(keeps)
        .flat_map(|part| {
            let end = part.chars().next_back().filter(|&c| keeps(c));
            let body = end.and_then(|c| part.strip_suffix(c)).unwrap_or(part);
            [escape(body), end.map(String::from).unwrap_or_default()]
        })
        .collect()
}

/// One line: tabs stay, other hidden characters are escaped.
pub fn line(text: &str) -> String {
    page(text).replace('\n', "\\n")
}

/// A JSON text in which hidden characters are written as `\u` escapes. The value stays the same, so that
/// programs read what there is and terminals show it safely.
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // JSON itself has no hidden characters but the line feeds between its parts.
        if is_hidden(c) && c != '\n' {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An 8-bit control sequence, text from right to left, a line separator, a byte order mark.
    const BAD: &str = "a\u{9b}31m\u{202e}b\u{2028}c\u{feff}\u{1b}[0m\r";

    #[test]
    fn pages_keep_their_lines_only() {
        let page = page(&format!("one\ttwo\n{BAD}\n\nend"));
        assert!(page.starts_with("one\ttwo\na\\u{9b}31m\\u{202e}b"));
        assert!(page.ends_with("\n\nend"), "{page:?}");
        assert_eq!(page.chars().filter(|&c| is_hidden(c)).collect::<String>(), "\t\n\n\n");
        assert_eq!(line("a\nb\tc\u{85}"), "a\\nb\tc\\u{85}");
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({ "name": BAD, "list": ["\u{1f600}", "x"] });
        for text in [value.to_string(), format!("{value:#}")] {
            let shown = json(&text);
            assert!(!shown.chars().any(|c| is_hidden(c) && c != '\n'), "{shown:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }
}
