//! Shell patterns of one name (`*`, `?`, `[a-z]`), and the files that a pattern of several
//! components names in a guest.

use snf_fs::{Error, Result, Tree};

use crate::limits::GLOB_FILES;

/// Whether `name` matches `pattern`. A leading dot must be matched by a dot, as in glob(7).
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    matches_any(pattern, name)
}

/// Whether `name` matches `pattern`, a leading dot being a byte like others, as in find(1).
pub fn matches_any(pattern: &[u8], name: &[u8]) -> bool {
    // On a mismatch the last star takes one byte more: no recursion, at most quadratic.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
            continue;
        }
        if let Some(next) = match_one(pattern, p, name[n]) {
            p = next;
            n += 1;
            continue;
        }
        match &mut star {
            Some((at, taken)) => {
                *taken += 1;
                p = *at + 1;
                n = *taken;
            }
            None => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Matches one byte with the pattern's element at `p`; gives the index after the element.
fn match_one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == byte).then_some(p + 2),
        b'[' => {
            let negated = matches!(pattern.get(p + 1), Some(b'!' | b'^'));
            let start = p + 1 + usize::from(negated);
            let Some(length) = pattern
                .get(start + 1..)
                .unwrap_or_default()
                .iter()
                .position(|b| *b == b']')
                .map(|at| at + 1)
            else {
                return (byte == b'[').then_some(p + 1);
            };
            let set = &pattern[start..start + length];
            let mut found = false;
            let mut i = 0;
            while i < set.len() {
                if i + 2 < set.len() && set[i + 1] == b'-' {
                    found |= (set[i]..=set[i + 2]).contains(&byte);
                    i += 3;
                } else {
                    found |= set[i] == byte;
                    i += 1;
                }
            }
            (found != negated).then_some(start + length + 1)
        }
        literal => (literal == byte).then_some(p + 1),
    }
}

fn has_pattern(name: &[u8]) -> bool {
    name.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// Whether a path has names that are patterns.
pub fn is_pattern(path: &[u8]) -> bool {
    has_pattern(path)
}

/// The paths in `tree` that the absolute `pattern` names, sorted. A symbolic link that leads
/// nowhere is none of them.
pub fn expand(tree: &Tree, pattern: &[u8]) -> Result<Vec<Vec<u8>>> {
    existing(candidates(tree, pattern)?, |path| tree.exists(path))
}

/// The same, symbolic links at the end of a path being taken for themselves.
pub fn expand_links(tree: &Tree, pattern: &[u8]) -> Result<Vec<Vec<u8>>> {
    existing(candidates(tree, pattern)?, |path| match tree.lstat(path) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    })
}

/// Paths that the pattern may name.
fn candidates(tree: &Tree, pattern: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut found: Vec<Vec<u8>> = vec![Vec::new()];
    for component in pattern.split(|byte| *byte == b'/').filter(|c| !c.is_empty()) {
        let mut next = Vec::new();
        for dir in found {
            if !has_pattern(component) {
                next.push([dir.as_slice(), b"/", component].concat());
                continue;
            }
            let path = if dir.is_empty() { b"/".to_vec() } else { dir.clone() };
            if !tree.is_dir(&path)? {
                continue;
            }
            for entry in tree.read_dir(&path)? {
                if matches(component, &entry.name) {
                    next.push([dir.as_slice(), b"/", &entry.name].concat());
                }
            }
            if next.len() > GLOB_FILES {
                return Err(Error::Invalid(format!(
                    "{}: the pattern names more than {GLOB_FILES} files",
                    snf_fs::error::display_name(pattern)
                )));
            }
        }
        found = next;
    }
    Ok(found)
}

/// Those that exist.
fn existing(paths: Vec<Vec<u8>>, exists: impl Fn(&[u8]) -> Result<bool>) -> Result<Vec<Vec<u8>>> {
    let mut existing = Vec::new();
    for path in paths {
        match exists(&path) {
            Ok(true) => existing.push(path),
            Ok(false) | Err(Error::NotADirectory(_)) => {}
            Err(error) => return Err(error),
        }
    }
    existing.sort();
    Ok(existing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use snf_fs::{Attributes, MemoryFs};

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".conf", false),
            ("*.conf", "a.conf~", false),
            ("ssh_host_*_key", "ssh_host_rsa_key", true),
            ("ssh_host_*_key", "ssh_host_rsa_key.pub", false),
            ("a*b*c", "axxbyybzzc", true),
            ("[a-c]?[!x]", "b1y", true),
            ("[a-c]?[!x]", "b1x", false),
            ("[", "[", true),
            ("\\*", "*", true),
            ("", "", true),
            ("**", "", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        // Backtracking is bounded: this would take for ever if it were not.
        let pattern = "a*".repeat(50) + "b";
        assert!(!matches(pattern.as_bytes(), &[b'a'; 200]));
    }

    #[test]
    fn files() {
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        let attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };
        for dir in ["/etc/x.d", "/etc/y.d"] {
            tree.mkdir_all(dir, attributes).unwrap();
        }
        for file in ["/etc/x.d/2.conf", "/etc/x.d/1.conf", "/etc/y.d/3.conf", "/etc/z.d"] {
            tree.write(file, b"", attributes).unwrap();
        }
        let found = expand(&tree, b"/etc/*.d/*.conf").unwrap();
        let expected = ["/etc/x.d/1.conf", "/etc/x.d/2.conf", "/etc/y.d/3.conf"];
        assert_eq!(found, expected.map(|path| path.as_bytes().to_vec()));
        assert!(expand(&tree, b"/etc/passwd").unwrap().is_empty());
        assert!(expand(&tree, b"/none/*/x").unwrap().is_empty());
    }
}
