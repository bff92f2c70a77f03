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

    #[test]
    fn every_page_is_in_the_reading_order() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let order = fs::read_to_string(docs.join("README.md")).unwrap_or_default();
        for entry in fs::read_dir(&docs).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(
                name == "README.md" || order.contains(&format!("]({name})")),
                "docs/README.md does not name {name}"
            );
        }
    }
}
