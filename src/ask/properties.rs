//! Image properties: a JSON object with case-insensitive keys.

mod error;
mod exclusions;
mod names;
mod os_family;
mod pairs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::error::PropertyError;
use self::names::{BOOLEANS, EXCLUDE_TASK};
pub use self::os_family::OsFamily;
use self::pairs::Pairs;
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
