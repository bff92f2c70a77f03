//! No module calls upstairs: the folders of the library and of the host stand on each other as
//! docs/architecture.md has them. This reads every path of the sources that begins with `crate::`.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// A folder, and the folders that its files may name.
    type Layer = (&'static str, &'static [&'static str]);

    /// The library, from the ground.
    const LIBRARY: &[Layer] = &[
        ("craft", &[]),
        ("ask", &["craft"]),
        ("guest", &["craft", "ask"]),
        ("task", &["craft", "ask", "guest"]),
        ("edit", &["craft", "ask", "guest", "task"]),
        ("run", &["craft", "ask", "guest", "task", "edit"]),
        ("door", &["craft", "ask", "guest", "task", "edit", "run"]),
    ];
    /// The host, from the ground.
    const HOST: &[Layer] = &[
        ("node", &[]),
        ("disk", &["node"]),
        ("backend", &["node", "disk"]),
        ("helper", &["node", "disk"]),
        ("image", &["node", "disk", "backend"]),
        ("scripts", &["node", "disk", "backend", "helper", "image"]),
    ];
    /// A plan holds its edits as values, and the OS parameters read a list of them.
    const EXCEPTIONS: &[(&str, &str)] = &[("ask/plan.rs", "edit"), ("ask/params.rs", "edit")];

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

    /// Whether a file is only compiled for tests.
    fn is_test(path: &str) -> bool {
        let stem = path.trim_end_matches(".rs");
        ["tests", "testing", "hostile", "fixture"].iter().any(|name| stem.ends_with(name))
            || path.contains("/tests/")
    }

    /// The code of a file, without comments and the tests at its end.
    fn code(text: &str) -> String {
        let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The first names after `crate::`.
    fn named(code: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for after in code.split("crate::").skip(1) {
            // `use crate::{ask::plan, guest}` would hide names; rustfmt leaves it as it is.
            let group = after.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let parts = group.map_or(after, |(inside, _)| inside);
            for part in parts.split(',').take(if group.is_some() { usize::MAX } else { 1 }) {
                let end = part.trim_start().find(|c: char| !c.is_alphanumeric() && c != '_');
                let part = part.trim_start();
                found.insert(&part[..end.unwrap_or(part.len())]);
            }
        }
        found
    }

    /// The arrows that lead upstairs, and how many lead down.
    fn upstairs(root: &Path, layers: &[Layer]) -> (Vec<String>, usize) {
        let (mut wrong, mut right) = (Vec::new(), 0);
        for (folder, below) in layers {
            let mut files = Vec::new();
            rust_files(&root.join(folder), &mut files);
            assert!(!files.is_empty(), "{folder} is no folder of {}", root.display());
            for file in files {
                let path = file.strip_prefix(root).unwrap_or(&file).display().to_string();
                if is_test(&path) {
                    continue;
                }
                let text = fs::read_to_string(&file).unwrap_or_default();
                for name in named(&code(&text)) {
                    let is_folder = layers.iter().any(|(folder, _)| *folder == name);
                    if !is_folder || name == *folder {
                        continue;
                    }
                    let excused = EXCEPTIONS.contains(&(path.as_str(), name));
                    if below.contains(&name) || excused {
                        right += 1;
                    } else {
                        wrong.push(format!("{path} names {name}"));
                    }
                }
            }
        }
        (wrong, right)
    }

    #[test]
    fn no_module_calls_upstairs() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (source, layers) in [("src", LIBRARY), ("host/src", HOST)] {
            let (wrong, right) = upstairs(&checkout.join(source), layers);
            assert!(wrong.is_empty(), "{source}: {wrong:#?}");
            assert!(right > 50, "{source}: only {right} arrows were found");
        }
    }

    #[test]
    fn names_are_found() {
        let code =
            "use crate::{ask::plan, guest};\nlet x = crate::door::x(crate::run);\npub(crate) fn";
        assert_eq!(named(code), BTreeSet::from(["ask", "guest", "door", "run"]));
    }
}
