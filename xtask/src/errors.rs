//! No error repeats its cause: whoever shows one shows the chain, and would say the cause twice.
//! This reads the error types of all crates, as the compiler would, and finds those whose text has
//! the source in it.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    /// The text up to the bracket that closes the one before it, and what follows that.
    fn bracketed(text: &str) -> Option<(&str, &str)> {
        let (mut depth, mut quoted, mut escaped) = (1, false, false);
        for (at, c) in text.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                '(' | '[' | '{' if !quoted => depth += 1,
                ')' | ']' | '}' if !quoted => {
                    depth -= 1;
                    if depth == 0 {
                        return Some((&text[..at], &text[at + c.len_utf8()..]));
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// The parts between the commas of the outermost level.
    fn parts(text: &str) -> Vec<&str> {
        let (mut depth, mut from, mut parts) = (0i32, 0, Vec::new());
        for (at, c) in text.char_indices() {
            match c {
                '(' | '[' | '{' | '<' => depth += 1,
                ')' | ']' | '}' | '>' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(&text[from..at]);
                    from = at + 1;
                }
                _ => {}
            }
        }
        parts.push(&text[from..]);
        parts
    }

    /// A text without its comments.
    fn without_comments(text: &str) -> String {
        let kept = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        kept.collect::<Vec<_>>().join("\n")
    }

    /// The names of the fields of an item that are its source: `source`, or a number.
    fn sources(fields: &str, named: bool) -> Vec<String> {
        let is_marked = |field: &str| field.contains("#[source]") || field.contains("#[from]");
        let fields = parts(fields);
        let fields = fields.iter().enumerate().filter_map(|(number, field)| {
            if !named {
                return is_marked(field).then(|| number.to_string());
            }
            let (before, _) = field.split_once(':')?;
            let name = before.split_whitespace().next_back()?.to_owned();
            (name == "source" || is_marked(field)).then_some(name)
        });
        fields.collect()
    }

    /// The error types of a file whose text has the source in it, by their first words, and how many
    /// error texts there are.
    fn repeating(code: &str) -> (Vec<String>, usize) {
        let code = without_comments(code);
        let (mut rest, mut found, mut count) = (code.as_str(), Vec::new(), 0);
        while let Some((_, after)) = rest.split_once("#[error(") {
            let Some((text, after)) = bracketed(after) else { break };
            rest = after;
            count += 1;
            // Further attributes, the name, and then the fields, if there are any.
            let Some(open) = after.find(['{', '(', ',', ';']) else { continue };
            let mut head = &after[open..];
            let mut before = &after[..open];
            while before.contains("#[") {
                // The bracket was in an attribute, such as `derive(...)`.
                let Some((_, later)) = bracketed(&head[1..]) else { break };
                let Some(next) = later.find(['{', '(', ',', ';']) else { break };
                (before, head) = (&later[..next], &later[next..]);
            }
            let named = match head.chars().next() {
                Some('{') => true,
                Some('(') => false,
                _ => continue,
            };
            let Some((fields, _)) = bracketed(&head[1..]) else { continue };
            for source in sources(fields, named) {
                let shown = [":", "}"].iter().any(|end| text.contains(&format!("{{{source}{end}")));
                if shown {
                    found.push(text.chars().take(60).collect());
                }
            }
        }
        (found, count)
    }

    fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                rust_files(&path, files);
            } else if path.extension().is_some_and(|end| end == "rs") {
                files.push(path);
            }
        }
    }

    #[test]
    fn no_error_repeats_its_cause() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut all = 0;
        let packages = fs::read_dir(&checkout).into_iter().flatten().flatten();
        let packages = packages.map(|entry| entry.path()).chain([checkout.clone()]);
        for package in packages.filter(|path| path.join("Cargo.toml").is_file()) {
            let mut files = Vec::new();
            rust_files(&package.join("src"), &mut files);
            for file in files {
                let (found, count) = repeating(&fs::read_to_string(&file).unwrap_or_default());
                assert!(found.is_empty(), "{}: {found:?} repeat their source", file.display());
                all += count;
            }
        }
        assert!(all > 200, "only {all} error texts were found");
    }

    #[test]
    fn repetitions_are_found() {
        let code = r#"
            #[error("cannot read {path}: {source}")]
            Read { /// Comment, with {source}.
                path: PathBuf, source: io::Error },
            #[error("cannot write {}{}", path.display(), hint(source))]
            Write { path: PathBuf, source: io::Error },
            #[error("cannot {0}: {1}")]
            Io(&'static str, #[source] io::Error),
            #[error(transparent)]
            All(#[from] X),
            #[error("of {1}")]
            Tuple(#[from] HashMap<A, B>, u8),
            #[error("end")]
            End,
            #[error("a struct: {source:?}")]
            #[derive(Debug, Clone)]
            pub struct Failed { pub source: io::Error }
        "#;
        let (found, count) = repeating(code);
        assert_eq!(count, 7);
        let expected = ["cannot read", "cannot {0}", "a struct"];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    }
}
