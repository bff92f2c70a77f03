//! Paths as a person spells them for Windows.

use snf_fs::error::display_name;

/// Why Windows cannot open a path. The sentence begins with a verb.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowsPathError {
    /// `C:file`.
    #[error("has a drive letter without a backslash after it; write C:\\DIR\\FILE")]
    NoBackslash,
    /// `D:\file`.
    #[error("is on another drive than C:, and only the system's volume can be reached")]
    OtherDrive,
    /// `file`.
    #[error("is not absolute; write C:\\DIR\\FILE or /DIR/FILE")]
    Relative,
    /// `C:\dir\`.
    #[error("names a directory; it must name a file")]
    Directory,
    /// `.` or `..` in it.
    #[error("has the name \"{0}\" in it, which leads elsewhere")]
    Dots(String),
    /// One of `<>:"|?*`, or a control character.
    #[error(
        "has the character \"{}\" in the name \"{name}\", which Windows cannot",
        .character.escape_debug()
    )]
    Character {
        /// The character.
        character: char,
        /// The name with it, safe to print.
        name: String,
    },
    /// Windows drops the end of such a name.
    #[error("has the name \"{0}\" that ends with a dot or a blank, which Windows cannot open")]
    End(String),
    /// `NUL`, `COM1`.
    #[error("has the name \"{0}\", which is a device of Windows")]
    Device(String),
    /// More than 255 units of UTF-16.
    #[error("has the name \"{0}\" of more than 255 characters")]
    Long(String),
}

/// A path as a person writes it for Windows (`C:\dir\file`, `\dir\file`, `/dir/file`) with slashes,
/// from the root of the system's volume.
///
/// # Errors
/// When Windows cannot open it, or it leads elsewhere.
pub fn from_windows(path: &str) -> Result<String, WindowsPathError> {
    let rest = match path.as_bytes() {
        [b'C' | b'c', b':', b'\\' | b'/', ..] => &path[2..],
        [letter, b':', ..] if letter.is_ascii_alphabetic() => {
            return Err(match letter {
                b'C' | b'c' => WindowsPathError::NoBackslash,
                _ => WindowsPathError::OtherDrive,
            });
        }
        [b'\\' | b'/', ..] => path,
        _ => return Err(WindowsPathError::Relative),
    };
    let names: Vec<&str> = rest.split(['\\', '/']).filter(|name| !name.is_empty()).collect();
    if rest.ends_with(['\\', '/']) || names.is_empty() {
        return Err(WindowsPathError::Directory);
    }
    for name in &names {
        check_name(name)?;
    }
    Ok(format!("/{}", names.join("/")))
}

/// Names of devices, which no file can have, with or without an extension.
const DEVICES: [&str; 4] = ["CON", "PRN", "AUX", "NUL"];

/// Whether Windows can open a file or directory of that name.
///
/// # Errors
/// When it cannot.
pub fn check_name(name: &str) -> Result<(), WindowsPathError> {
    let shown = || display_name(name.as_bytes());
    if name == "." || name == ".." {
        return Err(WindowsPathError::Dots(shown()));
    }
    let bad = |c: &char| c.is_control() || "<>:\"|?*".contains(*c);
    if let Some(character) = name.chars().find(bad) {
        return Err(WindowsPathError::Character { character, name: shown() });
    }
    if name.ends_with(['.', ' ']) {
        return Err(WindowsPathError::End(shown()));
    }
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = (stem.starts_with("COM") || stem.starts_with("LPT"))
        && stem.len() == 4
        && stem.ends_with(|c: char| ('1'..='9').contains(&c));
    if DEVICES.contains(&stem.as_str()) || numbered {
        return Err(WindowsPathError::Device(shown()));
    }
    if name.encode_utf16().count() > 255 {
        return Err(WindowsPathError::Long(shown()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let error = from_windows(path).unwrap_err().to_string();
            assert!(error.contains(part), "{path}: {error}");
        }
        assert!(from_windows("/console/com10").is_ok());
        assert!(from_windows(&format!("/{}", "x".repeat(256))).is_err());
    }
}
