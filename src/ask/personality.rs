//! The personality: a JSON list of files to write, in the form of the server personality of the
//! OpenStack Compute API v1.1.

use serde_json::{Map, Value};

use crate::ask::plan::PersonalityFile;
use crate::ask::windows_path;
use crate::craft::{base64, json};
use crate::limits::PERSONALITY_PATH_BYTES;

/// Why a personality cannot be used: by index and field, never with the contents.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PersonalityError {
    /// Not a JSON list at all.
    #[error(
        "{origin} is not a JSON list of files: {problem}; write [{{\"path\": \"/etc/motd\", \"contents\": \"BASE64\"}}]"
    )]
    Json {
        /// Its origin (`img_personality`).
        origin: String,
        /// The JSON parser's message, with the place.
        problem: String,
    },
    /// One field of one file is wrong.
    #[error("{origin}[{index}]: {field} {problem}")]
    Field {
        /// Its origin.
        origin: String,
        /// The file's index, from 0.
        index: usize,
        /// The field.
        field: &'static str,
        /// The problem, and the values that are valid.
        problem: String,
    },
}

/// Reads a personality. An empty text is an empty list. `origin` is for messages
/// (`img_personality`).
pub fn parse(text: &str, origin: &str) -> Result<Vec<PersonalityFile>, PersonalityError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let list = json::parse(text).map_err(|error| PersonalityError::Json {
        origin: origin.to_owned(),
        problem: error.to_string(),
    })?;
    let Value::Array(list) = list else {
        return Err(PersonalityError::Json {
            origin: origin.to_owned(),
            problem: format!("it is {}", kind(&list)),
        });
    };
    list.iter()
        .enumerate()
        .map(|(index, entry)| {
            file(entry, format!("{origin}[{index}]")).map_err(|(field, problem)| {
                PersonalityError::Field { origin: origin.to_owned(), index, field, problem }
            })
        })
        .collect()
}

type FieldError = (&'static str, String);

fn file(entry: &Value, origin: String) -> Result<PersonalityFile, FieldError> {
    let Value::Object(fields) = entry else {
        return Err(("the entry", format!("is {}; each file is an object", kind(entry))));
    };
    for name in fields.keys() {
        if !["path", "contents", "owner", "group", "mode"].contains(&name.as_str()) {
            let name: String = name.chars().take(40).filter(|c| !c.is_control()).collect();
            return Err((
                "the entry",
                format!(
                    "has a field '{name}' that means nothing; valid are path, contents, owner, group and mode"
                ),
            ));
        }
    }
    let path = match fields.get("path") {
        Some(Value::String(path)) => path.clone(),
        None | Some(Value::Null) => {
            return Err(("path", "is missing; every file needs an absolute path".to_owned()));
        }
        Some(other) => return Err(("path", format!("is {}; it must be a string", kind(other)))),
    };
    check_path(&path).map_err(|problem| ("path", problem))?;
    let contents = match fields.get("contents") {
        Some(Value::String(text)) => {
            base64::decode(text).map_err(|problem| ("contents", problem.to_string()))?
        }
        None | Some(Value::Null) => {
            return Err((
                "contents",
                "is missing; give the file's bytes in base64 (\"\" for none)".to_owned(),
            ));
        }
        Some(other) => {
            return Err(("contents", format!("is {}; it must be a base64 string", kind(other))));
        }
    };
    Ok(PersonalityFile {
        path,
        contents,
        owner: name(fields, "owner")?,
        group: name(fields, "group")?,
        mode: mode(fields)?,
        origin,
        keep_existing: false,
    })
}

/// Whether a guest path can be written to: absolute, a file's, without a NUL; or such a path in
/// Windows' spelling (`C:\\DIR\\FILE`). The error begins with a verb and says what is valid.
pub fn check_path(path: &str) -> Result<(), String> {
    let drive =
        matches!(path.as_bytes(), [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic());
    if drive || path.starts_with('\\') {
        // The guest decides whether it is one of its own.
        windows_path::from_windows(path).map(drop)
    } else if path.is_empty() {
        Err("is empty; it must be an absolute path in the guest".to_owned())
    } else if !path.starts_with('/') {
        Err("does not begin with '/'; it must be an absolute path in the guest".to_owned())
    } else if path.contains('\0') {
        Err("holds a NUL character, which no path can".to_owned())
    } else if path.len() > PERSONALITY_PATH_BYTES {
        Err(format!(
            "has {} bytes; {PERSONALITY_PATH_BYTES} is the most a path can have",
            path.len()
        ))
    } else if path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..") {
        Err("names a directory; it must name a file".to_owned())
    } else {
        Ok(())
    }
}

fn name(fields: &Map<String, Value>, field: &'static str) -> Result<Option<String>, FieldError> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) if number.as_u64().is_some_and(|id| id < u32::MAX.into()) => {
            Ok(Some(number.to_string()))
        }
        Some(Value::String(name)) => {
            check_name(name).map_err(|problem| (field, problem))?;
            Ok(Some(name.clone()))
        }
        Some(other) => Err((field, format!("is {}; it must be a name or a number", kind(other)))),
    }
}

/// Whether a string can be the name (or number) of a user or group.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        Err("is empty; it must be a name or a number (leave it out for root)".to_owned())
    } else if name.len() > 256 || name.contains([':', '/', '\n', '\0']) {
        Err("is not a name; it must be one that the guest's passwd or group file has, or a number"
            .to_owned())
    } else {
        Ok(())
    }
}

fn mode(fields: &Map<String, Value>) -> Result<Option<u16>, FieldError> {
    let number = match fields.get("mode") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            // "0644" is what people write for chmod; a decimal number has no zero in front.
            let radix = if text.len() > 1 && text.starts_with('0') { 8 } else { 10 };
            digits.then(|| u64::from_str_radix(text, radix).ok()).flatten()
        }
        Some(_) => None,
    };
    match number.and_then(|number| u16::try_from(number).ok()) {
        Some(mode) if mode <= 0o7777 => Ok(Some(mode)),
        _ => Err((
            "mode",
            "must be a decimal number from 0 to 4095 (288 is 0440, 420 is 0644)".to_owned(),
        )),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_their_defaults() {
        let files = parse(
            r#"[{"path": "/etc/motd", "contents": "aGk=", "owner": "user", "group": 7, "mode": 420},
                {"path": "/a b", "contents": "", "mode": "384", "owner": null}]"#,
            "img_personality",
        )
        .unwrap();
        assert_eq!(files.len(), 2);
        assert_eq!(files[0].path, "/etc/motd");
        assert_eq!(files[0].contents.expose(), b"hi");
        assert_eq!(files[0].owner.as_deref(), Some("user"));
        assert_eq!(files[0].group.as_deref(), Some("7"));
        assert_eq!(files[0].mode, Some(0o644));
        assert_eq!(files[1].contents.expose(), b"");
        assert_eq!(files[1].owner, None);
        assert_eq!(files[1].mode, Some(0o600));
        let octal = parse(r#"[{"path": "/x", "contents": "", "mode": "0644"}]"#, "p").unwrap();
        assert_eq!(octal[0].mode, Some(0o644));
        assert_eq!(files[1].origin, "img_personality[1]");
        assert!(!files[1].keep_existing);
    }

    #[test]
    fn empty_is_no_error() {
        assert!(parse("", "p").unwrap().is_empty());
        assert!(parse("[]", "p").unwrap().is_empty());
    }

    #[test]
    fn errors_name_index_and_field() {
        let one = |fields: &str| format!(r#"[{{"path": "/a", "contents": ""}}, {{{fields}}}]"#);
        for (json, part) in [
            ("{}".to_owned(), "p is not a JSON list of files: it is an object"),
            ("[".to_owned(), "p is not a JSON list of files: EOF"),
            ("[5]".to_owned(), "p[0]: the entry is a number"),
            (one(r#""contents": """#), "p[1]: path is missing"),
            (one(r#""path": 5, "contents": """#), "p[1]: path is a number"),
            (one(r#""path": "etc/x", "contents": """#), "p[1]: path does not begin with '/'"),
            (one(r#""path": "/a\u0000", "contents": """#), "p[1]: path holds a NUL"),
            (one(r#""path": "/etc/", "contents": """#), "p[1]: path names a directory"),
            (one(r#""path": "/a""#), "p[1]: contents is missing"),
            (one(r#""path": "/a", "contents": "a""#), "p[1]: contents is not base64"),
            (one(r#""path": "/a", "contents": "aGk""#), "p[1]: contents is not base64"),
            (one(r#""path": "/a", "contents": "aG k=""#), "p[1]: contents is not base64"),
            (one(r#""path": "/a", "contents": "", "owner": """#), "p[1]: owner is empty"),
            (one(r#""path": "/a", "contents": "", "owner": "a:b""#), "p[1]: owner is not a name"),
            (one(r#""path": "/a", "contents": "", "group": []"#), "p[1]: group is a list"),
            (one(r#""path": "/a", "contents": "", "mode": 4096"#), "p[1]: mode must be"),
            (one(r#""path": "/a", "contents": "", "mode": "0x10""#), "p[1]: mode must be"),
            (one(r#""path": "/a", "contents": "", "mode": -1"#), "p[1]: mode must be"),
            (one(r#""path": "/a", "contents": "", "mode": 1.5"#), "p[1]: mode must be"),
            (
                one(r#""path": "/a", "contents": "", "perm": 1"#),
                "p[1]: the entry has a field 'perm'",
            ),
        ] {
            let error = parse(&json, "p").unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
