//! The personality: a JSON list of files to write, in the form of the server personality of the
//! OpenStack Compute API v1.1.

use serde_json::{Map, Value};

use crate::ask::plan::PersonalityFile;
use crate::ask::windows_path::{self, WindowsPathError};
use crate::craft::base64::{self, NotBase64};
use crate::craft::json;
use crate::limits::PERSONALITY_PATH_BYTES;

/// Why a personality cannot be used: by index and field, never with the contents.
#[derive(Debug, thiserror::Error)]
pub enum PersonalityError {
    /// Not JSON at all.
    #[error(
        "{origin} is not a JSON list of files [{{\"path\": \"/etc/motd\", \"contents\": \"BASE64\"}}]"
    )]
    Json {
        /// Its origin (`img_personality`).
        origin: String,
        /// The JSON parser's message, with the place.
        #[source]
        source: serde_json::Error,
    },
    /// JSON of another kind.
    #[error(
        "{origin} is not a JSON list of files: it is {found}; write [{{\"path\": \"/etc/motd\", \
         \"contents\": \"BASE64\"}}]"
    )]
    NoList {
        /// Its origin (`img_personality`).
        origin: String,
        /// Its kind.
        found: &'static str,
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
        problem: FieldProblem,
    },
}

/// The problem of a field. The sentence begins with a verb and names the valid values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldProblem {
    /// The entry is no object.
    #[error("is {0}; each file is an object")]
    NoObject(&'static str),
    /// A field that means nothing.
    #[error(
        "has a field '{0}' that means nothing; valid are path, contents, owner, group and mode"
    )]
    Unknown(String),
    /// A field that every file needs.
    #[error("is missing; {0}")]
    Missing(&'static str),
    /// Another kind of value.
    #[error("is {found}; it must be {wanted}")]
    Kind {
        /// The kind of the value.
        found: &'static str,
        /// The kind that is valid.
        wanted: &'static str,
    },
    /// The path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The contents.
    #[error(transparent)]
    Contents(#[from] NotBase64),
    /// The owner or group.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The mode.
    #[error("must be a decimal number from 0 to 4095 (288 is 0440, 420 is 0644)")]
    Mode,
}

/// Why a path of a guest cannot be written to. The sentence begins with a verb.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing.
    #[error("is empty; it must be an absolute path in the guest")]
    Empty,
    /// It depends on where one is.
    #[error("does not begin with '/'; it must be an absolute path in the guest")]
    Relative,
    /// No system takes it.
    #[error("holds a NUL character, which no path can")]
    Nul,
    /// So many bytes.
    #[error("has {0} bytes; {PERSONALITY_PATH_BYTES} is the most a path can have")]
    Long(usize),
    /// It ends as the path of a directory does.
    #[error("names a directory; it must name a file")]
    Directory,
    /// A path in the spelling of Windows.
    #[error(transparent)]
    Windows(#[from] WindowsPathError),
}

/// Why a text is the name of no user or group. The sentence begins with a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing.
    #[error("is empty; it must be a name or a number (leave it out for root)")]
    Empty,
    /// passwd(5) could not hold it.
    #[error("is not a name; it must be one that the guest's passwd or group file has, or a number")]
    NoName,
}

/// Reads a personality. An empty text is an empty list. `origin` is for messages
/// (`img_personality`).
pub fn parse(text: &str, origin: &str) -> Result<Vec<PersonalityFile>, PersonalityError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let list = json::parse(text)
        .map_err(|source| PersonalityError::Json { origin: origin.to_owned(), source })?;
    let Value::Array(list) = list else {
        return Err(PersonalityError::NoList { origin: origin.to_owned(), found: kind(&list) });
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

type FieldError = (&'static str, FieldProblem);

fn file(entry: &Value, origin: String) -> Result<PersonalityFile, FieldError> {
    let Value::Object(fields) = entry else {
        return Err(("the entry", FieldProblem::NoObject(kind(entry))));
    };
    for name in fields.keys() {
        if !["path", "contents", "owner", "group", "mode"].contains(&name.as_str()) {
            let name: String = name.chars().take(40).filter(|c| !c.is_control()).collect();
            return Err(("the entry", FieldProblem::Unknown(name)));
        }
    }
    let path = match fields.get("path") {
        Some(Value::String(path)) => path.clone(),
        None | Some(Value::Null) => {
            return Err(("path", FieldProblem::Missing("every file needs an absolute path")));
        }
        Some(other) => return Err(("path", wrong(other, "a string"))),
    };
    check_path(&path).map_err(|problem| ("path", problem.into()))?;
    let contents = match fields.get("contents") {
        Some(Value::String(text)) => {
            base64::decode(text).map_err(|problem| ("contents", problem.into()))?
        }
        None | Some(Value::Null) => {
            let hint = "give the file's bytes in base64 (\"\" for none)";
            return Err(("contents", FieldProblem::Missing(hint)));
        }
        Some(other) => {
            return Err(("contents", wrong(other, "a base64 string")));
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
/// Windows' spelling (`C:\\DIR\\FILE`).
///
/// # Errors
/// When it cannot.
pub fn check_path(path: &str) -> Result<(), PathError> {
    let drive =
        matches!(path.as_bytes(), [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic());
    if drive || path.starts_with('\\') {
        // The guest decides whether it is one of its own.
        Ok(windows_path::from_windows(path).map(drop)?)
    } else if path.is_empty() {
        Err(PathError::Empty)
    } else if !path.starts_with('/') {
        Err(PathError::Relative)
    } else if path.contains('\0') {
        Err(PathError::Nul)
    } else if path.len() > PERSONALITY_PATH_BYTES {
        Err(PathError::Long(path.len()))
    } else if path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..") {
        Err(PathError::Directory)
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
            check_name(name).map_err(|problem| (field, problem.into()))?;
            Ok(Some(name.clone()))
        }
        Some(other) => Err((field, wrong(other, "a name or a number"))),
    }
}

/// Whether a string can be the name (or number) of a user or group.
///
/// # Errors
/// When it cannot.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        Err(NameError::Empty)
    } else if name.len() > 256 || name.contains([':', '/', '\n', '\0']) {
        Err(NameError::NoName)
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
        _ => Err(("mode", FieldProblem::Mode)),
    }
}

fn wrong(value: &Value, wanted: &'static str) -> FieldProblem {
    FieldProblem::Kind { found: kind(value), wanted }
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
    use crate::craft::sentence::sentence;

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
            (
                "[".to_owned(),
                "p is not a JSON list of files [{\"path\": \"/etc/motd\", \"contents\": \"BASE64\"}]: EOF",
            ),
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
            let error = sentence(&parse(&json, "p").unwrap_err());
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
