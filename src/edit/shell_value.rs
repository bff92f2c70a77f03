//! Lines `KEY="value"` of files that a shell or an init reads.

use snf_fs::Attributes;

use super::place::PARENTS;
use super::text;
use crate::guest::Guest;
use crate::task::TaskError;

/// Sets a key of a file, which is made where it is missing: the first line that sets it changes, others
/// that do go away. The value must need no quotes but double ones.
///
/// # Errors
/// Errors of the tree.
pub(super) fn set(guest: &mut Guest, path: &str, key: &str, value: &str) -> Result<(), TaskError> {
    let old = guest.config(path)?.unwrap_or_default();
    let new = with_value(&old, key, value);
    if let Some((dir, _)) = path.rsplit_once('/').filter(|(dir, _)| !dir.is_empty()) {
        guest.tree.mkdir_all(dir, PARENTS)?;
    }
    guest.tree.write(path, &new, Attributes { mode: 0o644, uid: 0, gid: 0 })?;
    Ok(())
}

/// The text with the key set.
fn with_value(old: &[u8], key: &str, value: &str) -> Vec<u8> {
    let line = if value.chars().all(|c| c.is_ascii_alphanumeric() || "._-@".contains(c)) {
        format!("{key}={value}")
    } else {
        format!("{key}=\"{value}\"")
    };
    let sets = |line: &[u8]| {
        let line = line.trim_ascii_start();
        let line = line.strip_prefix(b"export ").unwrap_or(line).trim_ascii_start();
        line.strip_prefix(key.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
    };
    let (mut out, mut done) = (Vec::new(), false);
    for old in text::lines(old) {
        if !sets(old) {
            out.extend_from_slice(old);
            continue;
        }
        if !std::mem::replace(&mut done, true) {
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\n");
        }
    }
    if done { out } else { text::with_line(old, line.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_set_once() {
        for (old, expected) in [
            ("", "K=v\n"),
            ("# c\nK=old\nX=1\n  K=\"twice\"\n", "# c\nK=v\nX=1\n"),
            ("KEY=1", "KEY=1\nK=v\n"),
            ("#K=1\n", "#K=1\nK=v\n"),
        ] {
            assert_eq!(with_value(old.as_bytes(), "K", "v"), expected.as_bytes(), "{old}");
        }
        assert_eq!(with_value(b"", "K", "a b"), b"K=\"a b\"\n");
    }
}
