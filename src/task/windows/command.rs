//! Arguments in a command file of `cmd.exe`.
//!
//! Two programs take a line apart. `cmd.exe` first: it expands `%`, and outside of quotes gives
//! `& | < > ( ) ^ "` a meaning. Then the program itself, by the rules of the C runtime: quotes, and
//! backslashes before quotes. So an argument is quoted for the program, and then every character of
//! that which means something to `cmd.exe` gets a caret, the quotes too: to `cmd.exe` nothing ever
//! is within quotes, and no state depends on what stands in the text.

/// Characters that lose their meaning after a caret.
const SPECIAL: &[char] = &['"', '^', '&', '|', '<', '>', '(', ')'];

/// An argument that the program takes as exactly this text. `None` when no line can hold it: a
/// control character is in it.
pub(super) fn argument(text: &str) -> Option<String> {
    if text.chars().any(char::is_control) {
        return None;
    }
    let mut quoted = String::from("\"");
    let mut backslashes = 0;
    for c in text.chars() {
        if c == '"' {
            // Each backslash before a quote is written twice, and one more is for the quote.
            quoted.extend(std::iter::repeat_n('\\', backslashes + 1));
        }
        backslashes = if c == '\\' { backslashes + 1 } else { 0 };
        quoted.push(c);
    }
    quoted.extend(std::iter::repeat_n('\\', backslashes));
    quoted.push('"');
    let mut line = String::new();
    for c in quoted.chars() {
        match c {
            '%' => line.push('%'),
            c if SPECIAL.contains(&c) => line.push('^'),
            _ => {}
        }
        line.push(c);
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of a line of a command file that `cmd.exe` hands on, delayed expansion being off:
    /// percent
    /// signs first, then carets and quotes. A meaning that is left is an error.
    fn by_cmd(line: &str) -> Result<String, char> {
        let mut expanded = String::new();
        let mut rest = line.chars().peekable();
        while let Some(c) = rest.next() {
            if c == '%' && rest.next() != Some('%') {
                return Err('%');
            }
            expanded.push(c);
        }
        let (mut out, mut in_quotes) = (String::new(), false);
        let mut rest = expanded.chars();
        while let Some(c) = rest.next() {
            match c {
                '^' if !in_quotes => out.push(rest.next().ok_or('^')?),
                '&' | '|' | '<' | '>' | '(' | ')' if !in_quotes => return Err(c),
                _ => {
                    in_quotes ^= c == '"';
                    out.push(c);
                }
            }
        }
        Ok(out)
    }

    /// The arguments that a program of the C runtime sees.
    fn by_runtime(line: &str) -> Vec<String> {
        let (mut arguments, mut current) = (Vec::new(), None::<String>);
        let (mut in_quotes, mut backslashes) = (false, 0);
        for c in line.chars() {
            if c == '\\' {
                backslashes += 1;
                continue;
            }
            let quote = c == '"';
            let count = if quote { backslashes / 2 } else { backslashes };
            if backslashes > 0 {
                let text = current.get_or_insert_default();
                text.extend(std::iter::repeat_n('\\', count));
            }
            let literal = quote && backslashes % 2 == 1;
            backslashes = 0;
            if quote && !literal {
                in_quotes = !in_quotes;
                current.get_or_insert_default();
            } else if c == ' ' && !in_quotes {
                arguments.extend(current.take());
            } else {
                current.get_or_insert_default().push(c);
            }
        }
        if backslashes > 0 {
            current.get_or_insert_default().extend(std::iter::repeat_n('\\', backslashes));
        }
        arguments.extend(current);
        arguments
    }

    #[test]
    fn the_table() {
        for (text, line) in [
            ("plain", r#"^"plain^""#),
            ("", r#"^"^""#),
            ("two words", r#"^"two words^""#),
            ("100%", r#"^"100%%^""#),
            ("%PATH%", r#"^"%%PATH%%^""#),
            ("%~dp0", r#"^"%%~dp0^""#),
            ("a&b", r#"^"a^&b^""#),
            ("a&&del", r#"^"a^&^&del^""#),
            ("a|b", r#"^"a^|b^""#),
            ("a<b>c", r#"^"a^<b^>c^""#),
            ("a^b", r#"^"a^^b^""#),
            ("(a)", r#"^"^(a^)^""#),
            ("wow!", r#"^"wow!^""#),
            ("!x!", r#"^"!x!^""#),
            ("a\"b", r#"^"a\^"b^""#),
            ("\"", r#"^"\^"^""#),
            ("a\\", r#"^"a\\^""#),
            ("a\\\\\"b", r#"^"a\\\\\^"b^""#),
            ("a\\b", r#"^"a\b^""#),
            ("a=b;c,d", r#"^"a=b;c,d^""#),
            ("'`~@#$*()_+-[]{}:?/.", r#"^"'`~@#$*^(^)_+-[]{}:?/.^""#),
            ("päß€😀", r#"^"päß€😀^""#),
        ] {
            assert_eq!(argument(text).unwrap(), line, "{text}");
        }
        for text in ["a\nb", "a\rb", "\t", "\u{1a}", "\0", "\u{7f}", "\u{85}"] {
            assert_eq!(argument(text), None, "{text:?}");
        }
    }

    #[test]
    fn every_character_arrives() {
        let ascii: String = (' '..='~').collect();
        let reversed: String = ascii.chars().rev().collect();
        let mut texts = vec![ascii, reversed];
        // All pairs of the characters that mean something to anybody.
        let special = "\"\\%^&|<>()!= ;,~*a1";
        for a in special.chars() {
            for b in special.chars() {
                texts.push(format!("{a}{b}"));
                texts.push(format!("x{a}{a}{b}{a}y"));
            }
        }
        for text in texts {
            let line = format!("net user {} x", argument(&text).unwrap());
            let seen = by_runtime(&by_cmd(&line).unwrap());
            assert_eq!(seen, ["net", "user", &text, "x"], "{line}");
        }
    }
}
