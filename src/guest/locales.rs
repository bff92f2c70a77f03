//! The locales that a guest has: glibc's archive and directories.

use snf_fs::{Result, Tree};

const DIR: &str = "/usr/lib/locale";
/// Debian's list of all locales that its package `locales` can make.
const SUPPORTED: &str = "/usr/share/i18n/SUPPORTED";
/// The number at the beginning of glibc's locale archive.
const MAGIC: u32 = 0xde02_0109;
/// The most that the names of an archive may have: they come from the image.
const NAMES_MAX: u32 = 4 << 20;

/// Whether programs of the guest find this locale.
///
/// # Errors
/// Errors of the tree.
pub fn has(tree: &Tree, name: &str) -> Result<bool> {
    if matches!(name, "C" | "POSIX" | "C.UTF-8" | "C.utf8") {
        return Ok(true);
    }
    let name = normal(name);
    for entry in tree.read_dir_optional(DIR)? {
        if normal(&String::from_utf8_lossy(&entry.name)) == name
            && tree.is_dir([DIR.as_bytes(), b"/", &entry.name].concat())?
        {
            return Ok(true);
        }
    }
    in_archive(tree, &name)
}

/// Whether the archive has a locale of this normal name.
fn in_archive(tree: &Tree, name: &str) -> Result<bool> {
    let path = format!("{DIR}/locale-archive");
    if !tree.is_file(&path)? {
        return Ok(false);
    }
    let head = tree.read_range(&path, 0, 32)?;
    let number = |at: usize| {
        let bytes = head.get(at * 4..at * 4 + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    let (Some(MAGIC), Some(start), Some(length)) = (number(0), number(5), number(6)) else {
        return Ok(false);
    };
    let length = usize::try_from(length.min(NAMES_MAX)).unwrap_or(0);
    let names = tree.read_range(&path, u64::from(start), length)?;
    Ok(names
        .split(|byte| *byte == 0)
        .any(|known| std::str::from_utf8(known).is_ok_and(|known| normal(known) == name)))
}

/// A name with its encoding as glibc compares it: `de_DE.UTF-8` is `de_DE.utf8`.
fn normal(name: &str) -> String {
    let (rest, modifier) = match name.split_once('@') {
        Some((rest, modifier)) => (rest, format!("@{modifier}")),
        None => (name, String::new()),
    };
    match rest.split_once('.') {
        Some((language, encoding)) => {
            let encoding: String = encoding
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .map(|c| c.to_ascii_lowercase())
                .collect();
            format!("{language}.{encoding}{modifier}")
        }
        None => format!("{rest}{modifier}"),
    }
}

/// The list of locales that can be made in the guest, where it has one and this name is not in it.
///
/// # Errors
/// Errors of the tree.
pub fn unknown_to(tree: &Tree, name: &str) -> Result<Option<&'static str>> {
    let Some(list) = tree.read_optional(SUPPORTED, u64::from(NAMES_MAX))? else { return Ok(None) };
    let wanted = normal(name);
    let known = String::from_utf8_lossy(&list)
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .any(|known| normal(known) == wanted);
    Ok((!known).then_some(SUPPORTED))
}

/// Whether a name is `LANGUAGE[_COUNTRY][.ENCODING][@VARIANT]`.
pub fn looks_like_one(name: &str) -> bool {
    let language = name.split(['_', '.', '@']).next().unwrap_or_default();
    matches!(language.len(), 2 | 3) && language.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// `/etc/locale.gen` with a locale switched on, for `locale-gen`; `None` where it is on.
pub fn listed(text: &[u8], name: &str) -> Option<Vec<u8>> {
    let wanted = normal(name);
    let names = |line: &[u8]| {
        let line = String::from_utf8_lossy(line).into_owned();
        normal(line.split_whitespace().next().unwrap_or_default()) == wanted
    };
    let mut lines: Vec<Vec<u8>> =
        text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if lines.iter().any(|line| names(line)) {
        return None;
    }
    let commented = |line: &[u8]| line.trim_ascii_start().strip_prefix(b"#").map(<[u8]>::to_vec);
    let off = lines.iter_mut().find(|line| commented(line).is_some_and(|line| names(&line)));
    if let Some(line) = off {
        *line = commented(line)?.trim_ascii_start().to_vec();
        return Some(lines.concat());
    }
    let encoding = name.split('@').next().unwrap_or_default().split_once('.');
    let encoding = encoding.map_or("ISO-8859-1", |(_, encoding)| encoding);
    let line = format!("{name} {encoding}");
    Some(super::enroll::with_line(text, line.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use snf_fs::{Attributes, MemoryFs};

    const DIR: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };

    #[test]
    fn archives_and_directories() {
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        assert!(has(&tree, "C.UTF-8").unwrap());
        assert!(!has(&tree, "de_DE.UTF-8").unwrap());
        tree.mkdir_all("/usr/lib/locale/el_GR.utf8", DIR).unwrap();
        let names = b"de_DE.utf8\0de_DE@euro\0";
        let mut archive = Vec::new();
        for number in [MAGIC, 0, 56, 0, 0, 40, names.len() as u32, 0, 0, 0] {
            archive.extend_from_slice(&number.to_le_bytes());
        }
        archive.extend_from_slice(names);
        tree.write("/usr/lib/locale/locale-archive", &archive, DIR).unwrap();
        for (name, known) in [
            ("de_DE.UTF-8", true),
            ("de_DE.utf8", true),
            ("de_DE@euro", true),
            ("de_DE", false),
            ("el_GR.UTF-8", true),
            ("fr_FR.UTF-8", false),
        ] {
            assert_eq!(has(&tree, name).unwrap(), known, "{name}");
        }
        for bad in [&archive[..20], b"x"] {
            tree.write("/usr/lib/locale/locale-archive", bad, DIR).unwrap();
            assert!(!has(&tree, "de_DE.UTF-8").unwrap());
        }
    }

    #[test]
    fn lists_for_locale_gen() {
        let text = b"# list\n# de_DE.UTF-8 UTF-8\nen_US.UTF-8 UTF-8\n";
        assert_eq!(listed(text, "en_US.utf8"), None);
        let on = listed(text, "de_DE.UTF-8").unwrap();
        assert_eq!(on, b"# list\nde_DE.UTF-8 UTF-8\nen_US.UTF-8 UTF-8\n");
        assert!(listed(text, "fr_FR.UTF-8").unwrap().ends_with(b"\nfr_FR.UTF-8 UTF-8\n"));
    }
}
