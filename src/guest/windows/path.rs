//! Paths of a Windows guest: names without regard to case, backslashes, drive letters.

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

/// The target of a path whose last names may be missing: those that exist as they are spelt in the
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

/// The entry `name` of the directory `dir` (empty for the root).
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
}
