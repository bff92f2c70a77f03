//! Paths of a Windows guest: names without regard to case, backslashes, drive letters.

use snf_fs::error::display_name;
use snf_fs::{Error, Result, Tree};

/// The path of something that exists, its names found without regard to case, as Windows would.
/// `path` has slashes. An engine that compares so itself finds it at once; elsewhere a name that
/// is spelt as asked for comes before one that is spelt otherwise.
pub fn find(tree: &Tree, path: &str) -> Result<Option<Vec<u8>>> {
    let mut found = Vec::new();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        match child(tree, &found, name)? {
            Some(next) => found = next,
            None => return Ok(None),
        }
    }
    Ok(Some(if found.is_empty() { b"/".to_vec() } else { found }))
}

/// Where a path leads whose last names may be missing: those that exist as they are spelt in the
/// guest, the others as they were asked for.
pub fn place(tree: &Tree, path: &str) -> Result<Vec<u8>> {
    let mut found = Vec::new();
    let mut missing = false;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        match if missing { None } else { child(tree, &found, name)? } {
            Some(next) => found = next,
            None => {
                missing = true;
                found.push(b'/');
                found.extend_from_slice(name.as_bytes());
            }
        }
    }
    Ok(if found.is_empty() { b"/".to_vec() } else { found })
}

/// What `name` names in the directory `dir` (empty for the root).
fn child(tree: &Tree, dir: &[u8], name: &str) -> Result<Option<Vec<u8>>> {
    let join = |name: &[u8]| [dir, b"/", name].concat();
    let asked = join(name.as_bytes());
    match tree.exists(&asked) {
        Ok(true) => return Ok(Some(asked)),
        Ok(false) => {}
        Err(Error::NotADirectory(_)) => return Ok(None),
        Err(error) => return Err(error),
    }
    let here: &[u8] = if dir.is_empty() { b"/" } else { dir };
    let entries = match tree.read_dir(here) {
        Ok(entries) => entries,
        Err(Error::NotFound(_) | Error::NotADirectory(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let wanted = folded(name);
    let same = |entry: &Vec<u8>| std::str::from_utf8(entry).is_ok_and(|e| folded(e) == wanted);
    Ok(entries.into_iter().map(|entry| entry.name).find(same).map(|name| join(&name)))
}

/// A name as it is compared: upper case, one character for one.
pub fn folded(name: &str) -> String {
    name.chars()
        .map(|c| {
            let mut upper = c.to_uppercase();
            match (upper.next(), upper.next()) {
                (Some(upper), None) => upper,
                _ => c,
            }
        })
        .collect()
}

/// A path as a person writes it for Windows (`C:\dir\file`, `\dir\file`, `/dir/file`) with slashes,
/// from the root of the system's volume. The error begins with a verb.
pub fn from_windows(path: &str) -> std::result::Result<String, String> {
    let rest = match path.as_bytes() {
        [b'C' | b'c', b':', b'\\' | b'/', ..] => &path[2..],
        [letter, b':', ..] if letter.is_ascii_alphabetic() => {
            return Err(if matches!(letter, b'C' | b'c') {
                "has a drive letter without a backslash behind it; write C:\\DIR\\FILE".to_owned()
            } else {
                "is on another drive than C:, and only the system's volume can be reached"
                    .to_owned()
            });
        }
        [b'\\' | b'/', ..] => path,
        _ => return Err("is not absolute; write C:\\DIR\\FILE or /DIR/FILE".to_owned()),
    };
    let names: Vec<&str> = rest.split(['\\', '/']).filter(|name| !name.is_empty()).collect();
    if rest.ends_with(['\\', '/']) || names.is_empty() {
        return Err("names a directory; it must name a file".to_owned());
    }
    for name in &names {
        check_name(name)?;
    }
    Ok(format!("/{}", names.join("/")))
}

/// Names of devices, which no file can have, with or without an extension.
const DEVICES: [&str; 4] = ["CON", "PRN", "AUX", "NUL"];

/// Whether Windows can open a file or directory of that name. The error begins with a verb.
pub fn check_name(name: &str) -> std::result::Result<(), String> {
    let shown = display_name(name.as_bytes());
    if name == "." || name == ".." {
        return Err(format!("has the name \"{shown}\" in it, which leads elsewhere"));
    }
    if let Some(c) = name.chars().find(|c| c.is_control() || "<>:\"|?*".contains(*c)) {
        let c = c.escape_debug();
        return Err(format!(
            "has the character \"{c}\" in the name \"{shown}\", which Windows cannot"
        ));
    }
    if name.ends_with(['.', ' ']) {
        return Err(format!(
            "has the name \"{shown}\" that ends with a dot or a blank, which Windows cannot open"
        ));
    }
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = (stem.starts_with("COM") || stem.starts_with("LPT"))
        && stem.len() == 4
        && stem.ends_with(|c: char| ('1'..='9').contains(&c));
    if DEVICES.contains(&stem.as_str()) || numbered {
        return Err(format!("has the name \"{shown}\", which is a device of Windows"));
    }
    if name.encode_utf16().count() > 255 {
        return Err(format!("has the name \"{shown}\" of more than 255 characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::testing::Guest;

    #[test]
    fn names_without_case() {
        let mut guest = Guest::empty();
        guest.write("/WINDOWS/system32/Größe.txt", "x");
        guest.write("/windows/other", "");
        let found = |guest: &mut Guest, path: &str| {
            find(guest.tree(), path).unwrap().map(|path| String::from_utf8(path).unwrap())
        };
        let expected = Some("/WINDOWS/system32/Größe.txt".to_owned());
        assert_eq!(found(&mut guest, "/WINDOWS/System32/GRÖßE.TXT"), expected);
        // The spelling that was asked for comes first.
        assert_eq!(found(&mut guest, "windows/System32"), None);
        assert_eq!(found(&mut guest, "/WINDOWS/system32/größe.txt/x"), None);
        assert_eq!(found(&mut guest, "/"), Some("/".into()));
        let placed = place(guest.tree(), "/WINDOWS/SYSTEM32/New/File").unwrap();
        assert_eq!(placed, b"/WINDOWS/system32/New/File");
    }

    #[test]
    fn paths_as_people_write_them() {
        for (path, expected) in [
            ("C:\\Users\\x.txt", "/Users/x.txt"),
            ("c:/Users//x.txt", "/Users/x.txt"),
            ("\\a\\b", "/a/b"),
            ("/a/b c/ä", "/a/b c/ä"),
        ] {
            assert_eq!(from_windows(path).unwrap(), expected);
        }
        for (path, part) in [
            ("D:\\x", "another drive"),
            ("C:x", "without a backslash"),
            ("x", "not absolute"),
            ("", "not absolute"),
            ("C:\\", "a directory"),
            ("C:\\x\\", "a directory"),
            ("/a/../b", "leads elsewhere"),
            ("/a:stream", "the character \":\""),
            ("/a?", "the character \"?\""),
            ("/a\u{7}", "the character"),
            ("/a./b", "ends with a dot"),
            ("/dir /b", "ends with a dot or a blank"),
            ("/con", "a device"),
            ("/Lpt1.txt", "a device"),
            ("/nul.tar.gz", "a device"),
        ] {
            let error = from_windows(path).unwrap_err();
            assert!(error.contains(part), "{path}: {error}");
        }
        assert!(from_windows("/console/com10").is_ok());
        assert!(from_windows(&format!("/{}", "x".repeat(256))).is_err());
    }
}
