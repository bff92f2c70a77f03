//! Reading a document. The format is what its text begins like: an object of JSON, or TOML.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use snf_image::edit::{Action, Edit};
use zeroize::Zeroizing;

use super::is_stdin;
use super::keys::{self, EDITS, Key, Kind, PROPERTIES};
use crate::args::Cli;
use crate::exit::Failure;
use crate::request::check_value;
use crate::selector::{io_problem, read_file};

/// A longer document is none.
const DOCUMENT_MAX: u64 = 16 << 20;
/// More edits than this are none that a person thought of.
const EDITS_MAX: usize = 100_000;

/// The content of one document.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) options: Vec<Given>,
    pub(super) edits: Vec<Edit>,
}

/// An option that a document says.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) key: Key,
    /// As words of the command line.
    pub(super) words: Vec<OsString>,
}

/// Reads one document.
///
/// # Errors
/// When it cannot be read, or a key or value makes no sense: with line and column.
pub(super) fn document(path: &Path) -> Result<Found, Failure> {
    let shown =
        if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() };
    let bytes = match is_stdin(path) {
        true => {
            let mut bytes = Zeroizing::new(Vec::new());
            io::stdin().lock().take(DOCUMENT_MAX + 1).read_to_end(&mut bytes).map_err(|error| {
                Failure::input(format!("cannot read standard input: {}", io_problem(&error)))
            })?;
            if bytes.len() as u64 > DOCUMENT_MAX {
                return Err(Failure::input(format!(
                    "the plan on standard input has more than {DOCUMENT_MAX} bytes"
                )));
            }
            bytes
        }
        false => read_file(path, DOCUMENT_MAX, "plan")?.0,
    };
    let fail = |problem: String| Failure::input(format!("cannot use the plan {shown}: {problem}"));
    let text = std::str::from_utf8(&bytes).map_err(|_| fail("it is not text".to_owned()))?;
    parse(text, &shown).map_err(fail)
}

/// Reads the text of a document; the error begins with line and column.
pub(super) fn parse(text: &str, shown: &str) -> Result<Found, String> {
    let keys = keys::all();
    let document = Document { keys: &keys, shown };
    if text.trim_start().starts_with('{') {
        let mut json = serde_json::Deserializer::from_str(text);
        return document.deserialize(&mut json).and_then(|f| json.end().map(|()| f)).map_err(|e| {
            let message = e.to_string();
            let message = message.rsplit_once(" at line ").map_or(&*message, |(said, _)| said);
            format!("line {}, column {}: {message}", e.line(), e.column())
        });
    }
    let parsed = toml::de::Deserializer::parse(text).and_then(|toml| document.deserialize(toml));
    parsed.map_err(|error| {
        let message = error.message().trim_end().replace('\n', "; ");
        match error.span() {
            Some(span) => {
                let before = text.get(..span.start).unwrap_or(text);
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
                format!("line {line}, column {column}: {message}")
            }
            None => message,
        }
    })
}

struct Document<'a> {
    keys: &'a [Key],
    shown: &'a str,
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = Found;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of options")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key_seed(Name { keys: self.keys, seen: &mut seen })? {
            match key {
                None => found.edits = map.next_value_seed(Edits { shown: self.shown })?,
                Some(key) => {
                    let words = map.next_value_seed(Value { key })?;
                    found.options.push(Given { key: key.clone(), words });
                }
            }
        }
        Ok(found)
    }
}

/// The name of a key: `None` for the list of edits.
struct Name<'a, 's> {
    keys: &'a [Key],
    seen: &'s mut BTreeSet<String>,
}

impl<'de, 'a> DeserializeSeed<'de> for Name<'a, '_> {
    type Value = Option<&'a Key>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'a> Visitor<'_> for Name<'a, '_> {
    type Value = Option<&'a Key>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an option")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        if !self.seen.insert(name.to_owned()) {
            return Err(E::custom(format!("{name} is there twice")));
        }
        if name == EDITS {
            return Ok(None);
        }
        if let Some(key) = self.keys.iter().find(|key| key.name == name) {
            return Ok(Some(key));
        }
        let name = name.escape_debug();
        if snf_image::edit::verbs().any(|verb| *verb.name == *name.to_string()) {
            return Err(E::custom(format!("{name} is an edit, and stands in the list {EDITS}")));
        }
        if let Some(near) = near(&name.to_string(), self.keys) {
            return Err(E::custom(format!("there is no key {name}; did you mean {near}?")));
        }
        let known: Vec<&str> = self.keys.iter().map(|key| &*key.name).collect();
        Err(E::custom(format!(
            "there is no key {name}; the keys are {EDITS}, {}",
            known.join(", ")
        )))
    }
}

/// The key that a misspelt one is most like, as the command line finds the option.
fn near(name: &str, keys: &[Key]) -> Option<String> {
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        return None;
    }
    let words = ["snf-customize".to_owned(), "apply".into(), "disk".into(), format!("--{name}=x")];
    let error = Cli::command().try_get_matches_from(words).err()?;
    let Some(ContextValue::String(option)) = error.get(ContextKind::SuggestedArg) else {
        return None;
    };
    let option = option.trim_start_matches('-');
    // One that is much longer or shorter is another word.
    let near = |key: &&Key| key.name == option && key.name.len().abs_diff(name.len()) <= 2;
    keys.iter().find(near).map(|key| key.name.clone())
}

/// The value of an option, as words of the command line.
struct Value<'a> {
    key: &'a Key,
}

impl Value<'_> {
    /// The option's own words about this value.
    fn word<E: Error>(&self, value: &str) -> Result<OsString, E> {
        let word = OsString::from(format!("--{}={value}", self.key.name));
        let words = ["snf-customize", "apply", "disk"].map(OsString::from);
        match Cli::command().try_get_matches_from(words.into_iter().chain([word.clone()])) {
            Ok(_) => match check_value(&self.key.name, value) {
                Ok(()) => Ok(word),
                // It names the option as a person types it.
                Err(failure) => {
                    Err(E::custom(failure.message.strip_prefix("--").unwrap_or(&failure.message)))
                }
            },
            Err(error) => {
                let text = error.to_string();
                let line = text.lines().next().unwrap_or_default();
                Err(E::custom(line.strip_prefix("error: ").unwrap_or(line)))
            }
        }
    }

    fn number<E: Error>(self, value: impl fmt::Display) -> Result<Vec<OsString>, E> {
        let name = &self.key.name;
        if self.key.kind == Kind::One && name != PROPERTIES && !self.key.takes_number() {
            return Err(E::custom(format!("{name} is a text: write {name} = \"{value}\"")));
        }
        self.one(&value.to_string())
    }

    fn one<E: Error>(self, value: &str) -> Result<Vec<OsString>, E> {
        match self.key.kind {
            _ if self.key.name == PROPERTIES => {
                Err(E::custom(format!("{PROPERTIES} is a table of properties")))
            }
            Kind::One => Ok(vec![self.word(value)?]),
            Kind::Flag => Err(E::custom(format!("{} is true or false", self.key.name))),
            Kind::Many => Err(E::custom(format!("{} is a list of texts", self.key.name))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Vec<OsString>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Vec<OsString>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.key.kind {
            _ if self.key.name == PROPERTIES => "a table of properties",
            Kind::Flag => "true or false",
            Kind::One if self.key.takes_number() => "a text or a number",
            Kind::One => "a text",
            Kind::Many => "a list of texts",
        };
        write!(f, "{} to be {kind}", self.key.name)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        self.one(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        self.number(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        self.number(value)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        match self.key.kind {
            Kind::Flag if value => Ok(vec![format!("--{}", self.key.name).into()]),
            Kind::Flag => Ok(Vec::new()),
            _ => Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        if self.key.kind != Kind::Many {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        }
        let texts = Vec::<String>::deserialize(SeqAccessDeserializer::new(seq))?;
        texts.iter().map(|text| self.word(text)).collect()
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        if self.key.name != PROPERTIES {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self));
        }
        let mut map = map;
        let mut pairs = Vec::new();
        // All of them: the reader of properties refuses one that is there twice.
        while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
            pairs.push(format!("{}:{value}", serde_json::Value::from(name)));
        }
        Ok(vec![self.word(&format!("{{{}}}", pairs.join(",")))?])
    }
}

/// The list of edits.
struct Edits<'a> {
    shown: &'a str,
}

impl<'de> DeserializeSeed<'de> for Edits<'_> {
    type Value = Vec<Edit>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Edit>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Edits<'_> {
    type Value = Vec<Edit>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of edits")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Edit>, A::Error> {
        let mut edits = Vec::new();
        loop {
            let place = format!("{}: {EDITS}[{}]", self.shown, edits.len());
            let Some(edit) = seq.next_element_seed(One { place })? else { return Ok(edits) };
            if edits.len() == EDITS_MAX {
                return Err(A::Error::custom(format!("there are more than {EDITS_MAX} edits")));
            }
            edits.push(edit);
        }
    }
}

/// One edit.
struct One {
    place: String,
}

impl<'de> DeserializeSeed<'de> for One {
    type Value = Edit;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Edit, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for One {
    type Value = Edit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an edit, such as mkdir = {path = \"/srv\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Edit, A::Error> {
        let action = Action::deserialize(MapAccessDeserializer::new(&mut map))?;
        if let Some(second) = map.next_key::<String>()? {
            return Err(A::Error::custom(format!(
                "an edit has one key, and this one has {} and {}: begin another edit of the list {EDITS} \
                 ([[{EDITS}]])",
                action.name(),
                second.escape_debug()
            )));
        }
        Edit::of_document(&self.place, action).map_err(A::Error::custom)
    }
}
