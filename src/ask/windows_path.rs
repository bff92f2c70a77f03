//! Paths as a person spells them for Windows.

use snf_fs::error::display_name;

/// A path as a person writes it for Windows (`C:\dir\file`, `\dir\file`, `/dir/file`) with slashes,
/// from the root of the system's volume. The error begins with a verb.
pub fn from_windows(path: &str) -> Result<String, String> {
    let rest = match path.as_bytes() {
        [b'C' | b'c', b':', b'\\' | b'/', ..] => &path[2..],
        [letter, b':', ..] if letter.is_ascii_alphabetic() => {
            return Err(if matches!(letter, b'C' | b'c') {
                "has a drive letter without a backslash after it; write C:\\DIR\\FILE".to_owned()
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
pub fn check_name(name: &str) -> Result<(), String> {
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
