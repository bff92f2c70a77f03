//! Image properties: a JSON object with case-insensitive keys.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ask::task_id::{TaskId, UnknownTask};
use crate::craft::base64::{NotBase64, decode as decode_base64};
use crate::craft::crypt::Method;
use crate::craft::secret::Secret;
use crate::limits;

/// The merged properties of image and instance; keys are upper case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Properties {
    values: BTreeMap<String, String>,
}

/// Why the properties cannot be used. No message holds a property's value unless that is one of
/// a closed set (a number, a yes or no).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// Not a JSON object at all.
    #[error("{origin} is not a JSON object: {problem}; write {{\"NAME\": \"value\", ...}}")]
    Json {
        /// Its origin (`img_properties`).
        origin: String,
        /// The JSON parser's message, with the place.
        problem: String,
    },
    /// A value that is neither a string nor a number nor a boolean.
    #[error(
        "property {name} in {origin} is {found}; a property is a string, a number, true, false or null"
    )]
    Kind {
        /// The property.
        name: String,
        /// Its origin.
        origin: String,
        /// The value found.
        found: &'static str,
    },
    /// A value that the property does not take.
    #[error("property {name} is '{value}'; valid are {valid}")]
    Value {
        /// The property.
        name: String,
        /// The value found.
        value: String,
        /// The valid values.
        valid: &'static str,
    },
    /// One property with two values.
    #[error(
        "property {name} is given twice in {origin}, with different values (upper and lower case are \
         the same); leave one of them out"
    )]
    Twice {
        /// The property.
        name: String,
        /// Its origin.
        origin: String,
    },
    /// An exclusion of no task.
    #[error("property {name} excludes nothing")]
    NoTask {
        /// The property.
        name: String,
        /// The task that it names.
        #[source]
        source: UnknownTask,
    },
    /// An exclusion that is spelt like none there is.
    #[error("there is no property {name}; tasks are excluded by {EXCLUDE_TASK}NAME, {}", EXCLUSIONS.join(", "))]
    NoExclusion {
        /// The property.
        name: String,
    },
    /// A property that nothing reads.
    #[error("there is no property {name}; it has no effect")]
    Unknown {
        /// The property.
        name: String,
    },
}

/// The operating systems that OSFAMILY names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OsFamily {
    /// Any Linux.
    Linux,
    /// Windows Vista, Server 2008 and later.
    Windows,
    /// Windows XP and Server 2003.
    WindowsLegacy,
    /// FreeBSD.
    FreeBsd,
    /// NetBSD.
    NetBsd,
    /// OpenBSD.
    OpenBsd,
}

impl OsFamily {
    /// Every family.
    pub const ALL: [Self; 6] = [
        Self::Linux,
        Self::Windows,
        Self::WindowsLegacy,
        Self::FreeBsd,
        Self::NetBsd,
        Self::OpenBsd,
    ];

    /// Whether this is a Windows, of whatever age.
    pub fn is_windows(self) -> bool {
        matches!(self, Self::Windows | Self::WindowsLegacy)
    }

    /// The family's own name, for sentences.
    pub fn title(self) -> &'static str {
        match self {
            Self::Linux => "Linux",
            Self::Windows => "Windows",
            Self::WindowsLegacy => "Windows XP or Server 2003",
            Self::FreeBsd => "FreeBSD",
            Self::NetBsd => "NetBSD",
            Self::OpenBsd => "OpenBSD",
        }
    }

    /// The name that the property uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Windows => "windows",
            Self::WindowsLegacy => "windows-legacy",
            Self::FreeBsd => "freebsd",
            Self::NetBsd => "netbsd",
            Self::OpenBsd => "openbsd",
        }
    }
}

/// The place for swap space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// `<partition>:<MiB>`: a partition of this number and size, made where the disk ends.
    Partition {
        /// Its number.
        number: u32,
        /// Its size.
        mebibytes: u64,
    },
    /// `<disk letter>`: all of another disk of the instance (`b` is the second).
    Disk(char),
}

/// The property that leaves out one task begins with this.
const EXCLUDE_TASK: &str = "EXCLUDE_TASK_";

/// The properties that leave out several tasks.
const EXCLUSIONS: [&str; 3] =
    ["EXCLUDE_ALL_TASKS", "EXCLUDE_MOUNTED_TASKS", "EXCLUDE_FILESYSTEMRESIZE_TASKS"];

/// The properties that are a yes or a no.
const BOOLEANS: [&str; 11] = [
    "DO_SYNC",
    "IGNORE_UNATTEND",
    "OFFLINE_NTFSRESIZE",
    "OFFLINE_NTFSRESIZE_NOCHECK",
    "OFFLINE_PASSWORD",
    "CLOUD_INIT",
    "NM_NETWORKING",
    "ALLOW_MOUNTED_TASK_OVERWRITING",
    "EXCLUDE_ALL_TASKS",
    "EXCLUDE_MOUNTED_TASKS",
    "EXCLUDE_FILESYSTEMRESIZE_TASKS",
];

/// The properties with other values.
const NAMES: [&str; 6] =
    ["OSFAMILY", "ROOT_PARTITION", "PASSWD_HASHING_METHOD", "USERS", "SWAP", "CUSTOM_TASK"];

/// A name as a message can have it.
fn shown(name: &str) -> String {
    name.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect()
}

const BOOLEAN: &str = "yes, true, 1, on, set (or no, false, 0, off, unset, or nothing)";

impl Properties {
    /// Reads a JSON object. An empty text is an empty object, and `null` values are left out.
    /// `origin` is for messages.
    ///
    /// # Errors
    /// When it is not an object of strings, numbers and booleans, or gives one property (upper and
    /// lower case are the same) two values.
    pub fn parse(json: &str, origin: &str) -> Result<Self, PropertyError> {
        let mut properties = Self::default();
        if json.trim().is_empty() {
            return Ok(properties);
        }
        let pairs: Pairs = serde_json::from_str(json).map_err(|error| PropertyError::Json {
            origin: origin.to_owned(),
            // The parser's own words for a wrong kind of value would show the value.
            problem: if error.is_data() {
                "it is another kind of value".to_owned()
            } else {
                error.to_string()
            },
        })?;
        let mut given: BTreeMap<String, Option<String>> = BTreeMap::new();
        for (name, value) in pairs.0 {
            let name = name.to_ascii_uppercase();
            let wrong = |found| PropertyError::Kind {
                name: name.clone(),
                origin: origin.to_owned(),
                found,
            };
            let value = match value {
                Value::Null => None,
                Value::String(text) => Some(text),
                Value::Bool(true) => Some("yes".to_owned()),
                Value::Bool(false) => Some("no".to_owned()),
                Value::Number(number) => Some(number.to_string()),
                Value::Array(_) => return Err(wrong("a list")),
                Value::Object(_) => return Err(wrong("an object")),
            };
            if given.get(&name).is_some_and(|before| *before != value) {
                return Err(PropertyError::Twice { name, origin: origin.to_owned() });
            }
            given.insert(name, value);
        }
        let given = given.into_iter();
        properties.values = given.filter_map(|(name, value)| Some((name, value?))).collect();
        Ok(properties)
    }

    /// The value of a property.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(&name.to_ascii_uppercase()).map(String::as_str)
    }

    /// Sets a property.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.values.insert(name.to_ascii_uppercase(), value.into());
    }

    /// Lays `over` (the instance's) over these (the image's), key by key.
    pub fn merge(&mut self, over: Self) {
        self.values.extend(over.values);
    }

    /// Every property, by upper-case name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there is no property at all.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// A yes or no; missing and empty are no.
    pub fn boolean(&self, name: &str) -> Result<bool, PropertyError> {
        let Some(value) = self.get(name) else { return Ok(false) };
        match value.trim().to_ascii_lowercase().as_str() {
            "yes" | "true" | "1" | "on" | "set" => Ok(true),
            "no" | "false" | "0" | "off" | "unset" | "" => Ok(false),
            _ => Err(self.wrong(name, BOOLEAN)),
        }
    }

    /// A property that is not empty.
    fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).map(str::trim).filter(|value| !value.is_empty())
    }

    fn wrong(&self, name: &str, valid: &'static str) -> PropertyError {
        let value = self.get(name).unwrap_or_default();
        PropertyError::Value {
            name: name.to_ascii_uppercase(),
            value: value.chars().take(40).map(|c| if c.is_control() { '?' } else { c }).collect(),
            valid,
        }
    }

    /// `OSFAMILY`.
    pub fn os_family(&self) -> Result<Option<OsFamily>, PropertyError> {
        let Some(value) = self.filled("OSFAMILY") else { return Ok(None) };
        match OsFamily::ALL.into_iter().find(|family| family.name().eq_ignore_ascii_case(value)) {
            Some(family) => Ok(Some(family)),
            None => Err(self.wrong(
                "OSFAMILY",
                "linux, windows, windows-legacy, freebsd, netbsd and openbsd, or leave it out to have it detected",
            )),
        }
    }

    /// `ROOT_PARTITION`.
    ///
    /// # Errors
    /// When the value names no volume of any kind.
    pub fn root_partition(&self) -> Result<Option<RootVolume<'_>>, PropertyError> {
        let Some(value) = self.filled("ROOT_PARTITION") else { return Ok(None) };
        let uuid = value.strip_prefix("luks-").unwrap_or(value);
        match value.parse() {
            Ok(number) if number > 0 => Ok(Some(RootVolume::Partition(number))),
            Err(_) if value.contains('/') || uuid::Uuid::parse_str(uuid).is_ok() => {
                Ok(Some(RootVolume::Named(value)))
            }
            _ => Err(self.wrong(
                "ROOT_PARTITION",
                "the number of a partition (1, 2, ...), a logical volume (VG/LV) or the UUID of a \
                 LUKS container, or leave it out to have it detected",
            )),
        }
    }

    /// `PASSWD_HASHING_METHOD`.
    pub fn hashing_method(&self) -> Result<Option<Method>, PropertyError> {
        let Some(value) = self.filled("PASSWD_HASHING_METHOD") else { return Ok(None) };
        match Method::from_name(value) {
            Some(method) => Ok(Some(method)),
            None => Err(self.wrong(
                "PASSWD_HASHING_METHOD",
                "yescrypt, sha512, sha256, blowfish, sha1 and md5, or leave it out to let the image decide",
            )),
        }
    }

    /// `USERS`: whose passwords and keys are set, or nothing when it is not given.
    pub fn users(&self) -> Result<Option<Vec<&str>>, PropertyError> {
        let Some(value) = self.filled("USERS") else { return Ok(None) };
        let users: Vec<&str> = value.split_whitespace().collect();
        let valid = |user: &&str| {
            user.len() <= 256
                && !user.starts_with(['-', '+', '~'])
                && !user.contains([':', '/', ','])
                && !user.chars().any(char::is_control)
        };
        if users.len() <= limits::USERS && users.iter().all(valid) {
            Ok(Some(users))
        } else {
            Err(self.wrong("USERS", "names of users with blanks between them, 64 at most"))
        }
    }

    /// `SWAP`.
    pub fn swap(&self) -> Result<Option<Swap>, PropertyError> {
        let Some(value) = self.filled("SWAP") else { return Ok(None) };
        let wrong = || {
            self.wrong(
                "SWAP",
                "PARTITION:MEBIBYTES (2:512) for a partition, or the letter of another disk (b)",
            )
        };
        if let Some((number, size)) = value.split_once(':') {
            return match (number.trim().parse(), size.trim().parse()) {
                (Ok(number), Ok(mebibytes)) if number > 0 && mebibytes > 0 => {
                    Ok(Some(Swap::Partition { number, mebibytes }))
                }
                _ => Err(wrong()),
            };
        }
        let mut letters = value.chars();
        match (letters.next(), letters.next()) {
            (Some(letter @ 'a'..='z'), None) => Ok(Some(Swap::Disk(letter))),
            _ => Err(wrong()),
        }
    }

    /// `CUSTOM_TASK`: a program to run at the first boot.
    ///
    /// # Errors
    /// When it is not base64.
    pub fn custom_task(&self) -> Result<Option<Secret>, PropertyError> {
        let Some(text) = self.filled("CUSTOM_TASK") else { return Ok(None) };
        decode_base64(text).map(Some).map_err(|NotBase64| PropertyError::Value {
            name: "CUSTOM_TASK".to_owned(),
            value: "...".to_owned(),
            valid: "a program in base64",
        })
    }

    /// Whether a task is excluded: all are, or this one is, or those of its family are.
    ///
    /// # Errors
    /// When one of these properties is neither a yes nor a no.
    pub fn excluded(&self, task: TaskId) -> Result<bool, PropertyError> {
        Ok(self.boolean("EXCLUDE_ALL_TASKS")?
            || (self.boolean("EXCLUDE_MOUNTED_TASKS")? && task.needs_mount())
            || (self.boolean("EXCLUDE_FILESYSTEMRESIZE_TASKS")? && task.resizes())
            || self.boolean(&format!("{EXCLUDE_TASK}{task}"))?)
    }

    /// Leaves a task out.
    pub fn exclude(&mut self, task: TaskId) {
        self.set(&format!("{EXCLUDE_TASK}{task}"), "yes");
    }

    /// Exclusions that exclude nothing because of their spelling: a task that somebody wanted left
    /// out would run.
    pub fn misspelt_exclusions(&self) -> impl Iterator<Item = PropertyError> {
        self.values.keys().filter_map(|name| {
            if !name.starts_with("EXCLUDE") || EXCLUSIONS.contains(&name.as_str()) {
                return None;
            }
            let name = shown(name);
            match name.strip_prefix(EXCLUDE_TASK).map(str::parse::<TaskId>) {
                Some(Ok(_)) => None,
                Some(Err(source)) => Some(PropertyError::NoTask { name, source }),
                None => Some(PropertyError::NoExclusion { name }),
            }
        })
    }

    /// Other properties that nothing reads. Those of an image may be there for somebody else.
    pub fn unknown(&self) -> impl Iterator<Item = PropertyError> {
        let known = |name: &str| {
            name.starts_with("EXCLUDE") || NAMES.contains(&name) || BOOLEANS.contains(&name)
        };
        let unknown = self.values.keys().filter(move |name| !known(name));
        unknown.map(|name| PropertyError::Unknown { name: shown(name) })
    }

    /// The properties that only this task reads.
    pub fn of_task(&self, task: TaskId) -> impl Iterator<Item = &str> {
        let names: &[&str] = match task {
            TaskId::AddSwap => &["SWAP"],
            TaskId::RunCustomTask => &["CUSTOM_TASK", "ALLOW_MOUNTED_TASK_OVERWRITING"],
            TaskId::InitializeDatasource => &["CLOUD_INIT"],
            TaskId::FilesystemResizeAfterUmount => {
                &["OFFLINE_NTFSRESIZE", "OFFLINE_NTFSRESIZE_NOCHECK"]
            }
            TaskId::ConfigureNetwork => &["NM_NETWORKING"],
            TaskId::ChangePassword => &["PASSWD_HASHING_METHOD"],
            _ => &[],
        };
        names.iter().copied().filter(|name| self.filled(name).is_some())
    }

    /// Everything that is wrong with the values of known properties.
    pub fn problems(&self) -> Vec<PropertyError> {
        let mut problems: Vec<PropertyError> = [
            self.os_family().err(),
            self.root_partition().err(),
            self.hashing_method().err(),
            self.users().err(),
            self.swap().err(),
            self.custom_task().err(),
        ]
        .into_iter()
        .flatten()
        .collect();
        problems.extend(BOOLEANS.iter().filter_map(|name| self.boolean(name).err()));
        problems.extend(
            self.values
                .keys()
                .filter(|name| name.starts_with(EXCLUDE_TASK))
                .filter_map(|name| self.boolean(name).err()),
        );
        problems
    }
}

/// The volume that is the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootVolume<'a> {
    /// A partition of the image's disk, by its number.
    Partition(u32),
    /// A logical volume by one of its names, or a LUKS container by its UUID.
    Named(&'a str),
}

/// A JSON object's members in the order of the document.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Properties {
        Properties::parse(json, "img_properties").unwrap()
    }

    #[test]
    fn values_of_every_kind() {
        let properties = parse(
            r#"{"OsFamily": "linux", "NUM": 5, "big": 1.5, "F": true, "G": false, "N": null}"#,
        );
        assert_eq!(properties.get("osfamily"), Some("linux"));
        assert_eq!(properties.get("num"), Some("5"));
        assert_eq!(properties.get("BIG"), Some("1.5"));
        assert_eq!(properties.get("F"), Some("yes"));
        assert_eq!(properties.boolean("g"), Ok(false));
        assert_eq!(properties.get("n"), None);
        assert!(parse(" ").is_empty());
    }

    #[test]
    fn one_property_has_one_value() {
        for json in [
            r#"{"users": "a", "USERS": "b"}"#,
            r#"{"users": "a", "users": "b"}"#,
            r#"{"users": "a", "USERS": null}"#,
        ] {
            let error = Properties::parse(json, "img_properties").unwrap_err().to_string();
            assert!(
                error.starts_with("property USERS is given twice in img_properties"),
                "{error}"
            );
        }
        assert_eq!(parse(r#"{"users": "a", "USERS": "a"}"#).get("USERS"), Some("a"));
    }

    #[test]
    fn names_of_nothing_are_told() {
        let properties = parse(
            r#"{"EXCLUDE_TASK_AssignHostnam": "yes", "EXCLUDE_TASK_AddSwap": 1, "EXCLUDE_ALL": 1,
                "OSFAMILY": "linux", "COLOUR": "red", "SWAP": "b"}"#,
        );
        let told: Vec<String> = properties
            .misspelt_exclusions()
            .chain(properties.unknown())
            .map(|error| crate::craft::sentence::sentence(&error))
            .collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("there is no property EXCLUDE_ALL; tasks are excluded by"));
        assert!(told[1].starts_with(
            "property EXCLUDE_TASK_ASSIGNHOSTNAM excludes nothing: there is no task \"ASSIGNHOSTNAM\""
        ));
        assert_eq!(told[2], "there is no property COLOUR; it has no effect");
        assert_eq!(properties.of_task(TaskId::AddSwap).collect::<Vec<_>>(), ["SWAP"]);
    }

    #[test]
    fn what_is_not_an_object_of_scalars_is_refused() {
        for (json, part) in [
            ("[1]", "img_properties is not a JSON object"),
            ("{", "img_properties is not a JSON object"),
            ("\"x\"", "img_properties is not a JSON object"),
            ("{} x", "img_properties is not a JSON object"),
            (r#"{"a": []}"#, "property A in img_properties is a list"),
            (r#"{"a": {}}"#, "property A in img_properties is an object"),
        ] {
            let error = Properties::parse(json, "img_properties").unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Properties::parse(&deep, "img_properties").is_err());
    }

    #[test]
    fn the_instance_overrides_the_image() {
        let mut properties = parse(r#"{"USERS": "root", "OSFAMILY": "linux"}"#);
        properties.merge(parse(r#"{"users": "user"}"#));
        assert_eq!(properties.get("USERS"), Some("user"));
        assert_eq!(properties.get("OSFAMILY"), Some("linux"));
    }

    #[test]
    fn booleans() {
        for (text, value) in [
            ("yes", true),
            ("TRUE", true),
            ("1", true),
            ("On", true),
            ("set", true),
            ("no", false),
            ("False", false),
            ("0", false),
            ("off", false),
            ("unset", false),
            ("", false),
        ] {
            let mut properties = Properties::default();
            properties.set("do_sync", text);
            assert_eq!(properties.boolean("DO_SYNC"), Ok(value), "{text}");
        }
        let mut properties = Properties::default();
        assert_eq!(properties.boolean("DO_SYNC"), Ok(false));
        properties.set("DO_SYNC", "maybe");
        let error = properties.boolean("do_sync").unwrap_err().to_string();
        assert!(error.contains("property DO_SYNC is 'maybe'"), "{error}");
    }

    #[test]
    fn typed_values() {
        let properties = parse(
            r#"{"OSFAMILY": "Windows-Legacy", "ROOT_PARTITION": 2, "PASSWD_HASHING_METHOD": "SHA512",
                "USERS": " root  user ", "SWAP": "2:512"}"#,
        );
        assert_eq!(properties.os_family(), Ok(Some(OsFamily::WindowsLegacy)));
        assert_eq!(properties.root_partition(), Ok(Some(RootVolume::Partition(2))));
        assert_eq!(properties.hashing_method(), Ok(Some(Method::Sha512)));
        assert_eq!(properties.users(), Ok(Some(vec!["root", "user"])));
        assert_eq!(properties.swap(), Ok(Some(Swap::Partition { number: 2, mebibytes: 512 })));
        assert_eq!(parse(r#"{"SWAP": "c"}"#).swap(), Ok(Some(Swap::Disk('c'))));
        assert!(properties.problems().is_empty());
        assert!(parse("{}").problems().is_empty());
    }

    #[test]
    fn every_problem_is_named() {
        let properties = parse(
            r#"{"OSFAMILY": "beos", "ROOT_PARTITION": "0", "PASSWD_HASHING_METHOD": "rot13",
                "USERS": "a:b", "SWAP": "512", "CLOUD_INIT": "2", "EXCLUDE_TASK_AddSwap": "x"}"#,
        );
        let text: String =
            properties.problems().iter().map(|problem| format!("{problem}\n")).collect();
        for name in [
            "OSFAMILY",
            "ROOT_PARTITION",
            "PASSWD_HASHING_METHOD",
            "USERS",
            "SWAP",
            "CLOUD_INIT",
            "EXCLUDE_TASK_ADDSWAP",
        ] {
            assert!(text.contains(&format!("property {name} is ")), "{name}: {text}");
        }
    }

    #[test]
    fn exclusions() {
        use TaskId::{AddSwap, ChangePassword, FilesystemResizeAfterUmount, FixPartitionTable};
        let excluded = |json: &str, task| parse(json).excluded(task).unwrap();
        assert!(excluded(r#"{"EXCLUDE_ALL_TASKS": "yes"}"#, FixPartitionTable));
        assert!(excluded(r#"{"EXCLUDE_MOUNTED_TASKS": 1}"#, AddSwap));
        assert!(!excluded(r#"{"EXCLUDE_MOUNTED_TASKS": 1}"#, FixPartitionTable));
        let resize = r#"{"EXCLUDE_FILESYSTEMRESIZE_TASKS": true}"#;
        assert!(excluded(resize, FilesystemResizeAfterUmount));
        assert!(!excluded(resize, AddSwap));
        let one = r#"{"exclude_task_addswap": "yes", "EXCLUDE_TASK_ChangePassword": "no"}"#;
        assert!(excluded(one, AddSwap));
        assert!(!excluded(one, ChangePassword));
        assert!(parse(r#"{"EXCLUDE_ALL_TASKS": "perhaps"}"#).excluded(AddSwap).is_err());
    }
}
