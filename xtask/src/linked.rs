//! Every file of tests is linked into a test binary: Cargo looks for none by itself (`autotests =
//! false`), so a forgotten one would be skipped in silence. And every page and every test that the
//! documentation names is there.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    /// Names of the files in `tests` that no binary has: neither `tests/all.rs` as a module nor the
    /// manifest as a binary of its own.
    fn forgotten(package: &Path) -> Vec<String> {
        let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap_or_default();
        if !manifest.contains("autotests = false") {
            return Vec::new();
        }
        let all = fs::read_to_string(package.join("tests/all.rs")).unwrap_or_default();
        let modules: BTreeSet<&str> =
            all.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).collect();
        let entries = fs::read_dir(package.join("tests")).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names
            .filter(|name| {
                name.strip_suffix(".rs").is_some_and(|stem| {
                    !modules.contains(stem) && !manifest.contains(&format!("\"tests/{name}\""))
                })
            })
            .collect()
    }

    #[test]
    fn every_file_of_tests_is_in_a_binary() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut packages = vec![checkout.clone()];
        packages.extend(
            fs::read_dir(&checkout)
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.join("Cargo.toml").is_file()),
        );
        let listed = packages.iter().filter(|package| {
            fs::read_to_string(package.join("Cargo.toml"))
                .is_ok_and(|manifest| manifest.contains("autotests = false"))
        });
        assert!(listed.count() >= 4, "packages that link their tests into few binaries");
        for package in packages {
            let left = forgotten(&package);
            assert!(left.is_empty(), "{}: {left:?} in no test binary", package.display());
        }
    }

    /// Quoted texts of a page: what stands between two backquotes.
    fn quoted(page: &str) -> impl Iterator<Item = &str> {
        page.split('`').skip(1).step_by(2)
    }

    #[test]
    fn the_security_page_names_tests_that_exist() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let page = fs::read_to_string(checkout.join("docs/security.md")).unwrap_or_default();
        let named: Vec<(&str, &str)> =
            quoted(&page).filter_map(|text| text.split_once(".rs::")).collect();
        assert!(named.len() > 20, "{named:?}");
        for (file, test) in named {
            let text = fs::read_to_string(checkout.join(format!("{file}.rs"))).unwrap_or_default();
            assert!(text.contains(&format!("fn {test}()")), "{file}.rs has no test {test}");
        }
    }

    /// All Rust files of the workspace that are built into programs, with their names from the checkout on.
    fn sources(checkout: &Path) -> Vec<(String, String)> {
        let mut out = Vec::new();
        let entries = fs::read_dir(checkout).into_iter().flatten().flatten();
        let mut todo: Vec<_> = entries.map(|entry| entry.path().join("src")).collect();
        todo.push(checkout.join("src"));
        while let Some(dir) = todo.pop() {
            for path in fs::read_dir(dir).into_iter().flatten().filter_map(|e| Some(e.ok()?.path()))
            {
                if path.is_dir() {
                    todo.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let name = path.strip_prefix(checkout).unwrap_or(&path).display().to_string();
                    out.push((name, fs::read_to_string(&path).unwrap_or_default()));
                }
            }
        }
        assert!(out.len() > 400, "{} files", out.len());
        out
    }

    #[test]
    fn the_security_page_counts_unsafe_code() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let page = fs::read_to_string(checkout.join("docs/security.md")).unwrap_or_default();
        let listed: BTreeSet<(String, usize)> = page
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
                let file = cells.next()?.strip_suffix('`')?.to_owned();
                Some((file, cells.next()?.parse().ok()?))
            })
            .collect();
        let found: BTreeSet<(String, usize)> = sources(&checkout)
            .into_iter()
            .filter(|(name, _)| name != "xtask/src/linked.rs")
            .map(|(name, text)| {
                let count = ["unsafe {", "unsafe impl ", "unsafe fn "]
                    .iter()
                    .map(|word| text.matches(word).count())
                    .sum();
                (name, count)
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(listed, found, "docs/security.md (left) and the code (right)");
    }

    /// A name of a bound: `NAMES_MAX`, `MAX_NAMES`, `LINE_LIMIT`, `MOST_READS`.
    fn is_bound(name: &str) -> bool {
        name.split('_').any(|word| matches!(word, "MAX" | "LIMIT" | "MOST" | "LONGEST"))
    }

    /// Bounds that a format, an image or a tenant meets have their reason beside them.
    #[test]
    fn every_bound_has_a_reason() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut bare = Vec::new();
        for (name, text) in sources(&checkout) {
            let mut before = "";
            for line in text.lines() {
                let words =
                    line.trim().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
                let words = words.trim_start_matches("pub(super) ");
                let constant = words.strip_prefix("const ").and_then(|rest| rest.split_once(':'));
                // One line may be for several.
                let told = before.starts_with("//") || before.starts_with("const ");
                if constant.is_some_and(|(constant, _)| is_bound(constant)) && !told {
                    bare.push(format!("{name}: {}", line.trim()));
                }
                before = line.trim().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
                before = before.trim_start_matches("pub(super) ");
            }
        }
        assert!(bare.is_empty(), "bounds without a reason: {bare:#?}");
    }

    #[test]
    fn every_page_is_in_the_reading_order() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let order = fs::read_to_string(docs.join("README.md")).unwrap_or_default();
        for entry in fs::read_dir(&docs).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(
                name == "README.md"
                    || !name.ends_with(".md")
                    || order.contains(&format!("]({name})")),
                "docs/README.md does not name {name}"
            );
        }
    }
}
