//! The variables of a parameter file.

use std::collections::BTreeMap;

use super::{ParseError, parser, writer};
use crate::craft::secret::Secret;

/// The prefix of all our variables.
pub const PREFIX: &str = "SNF_IMAGE_";

/// A file larger than this is not read: it would not fit on the largest parameter disk.
pub const MAX_SIZE: usize = crate::limits::RULES_BYTES;

/// The value of one variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string of bytes.
    Scalar(Secret),
    /// An indexed array.
    Array(BTreeMap<u32, Secret>),
}

/// The variables of a parameter file, by full name (`SNF_IMAGE_HOSTNAME`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub(super) values: BTreeMap<String, Value>,
}

/// A variable that cannot be written: no shell could hold it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} cannot be passed to the helper: {problem}")]
pub struct WriteError {
    name: String,
    problem: &'static str,
}

impl Rules {
    /// Reads a parameter file.
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        parser::parse(text)
    }

    /// The file's text.
    pub fn write(&self) -> Secret {
        writer::write(self)
    }

    /// Sets a variable. The name has no prefix (`HOSTNAME`, `NIC_0_MAC`).
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) -> Result<(), WriteError> {
        let value = Secret::new(value);
        let name = checked_name(name)?;
        check_value(&name, &value)?;
        self.values.insert(name, Value::Scalar(value));
        Ok(())
    }

    /// Sets an array, its indices from 0.
    pub fn set_array<T: Into<Vec<u8>>>(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = T>,
    ) -> Result<(), WriteError> {
        let name = checked_name(name)?;
        let array: BTreeMap<u32, Secret> = (0..).zip(values.into_iter().map(Secret::new)).collect();
        for value in array.values() {
            check_value(&name, value)?;
        }
        self.values.insert(name, Value::Array(array));
        Ok(())
    }

    /// Takes a variable out.
    pub fn remove(&mut self, name: &str) {
        self.values.remove(&format!("{PREFIX}{name}"));
    }

    /// The bytes of a variable, the name without prefix. Of an array it is element 0, as in bash.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        match self.values.get(&format!("{PREFIX}{name}"))? {
            Value::Scalar(value) => Some(value),
            Value::Array(array) => array.get(&0),
        }
    }

    /// A variable as text; one that is not UTF-8 is as if it were not there.
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?.expose()).ok()
    }

    /// The elements of an array by index; a scalar is an array of one.
    pub fn array(&self, name: &str) -> BTreeMap<u32, &Secret> {
        match self.values.get(&format!("{PREFIX}{name}")) {
            None => BTreeMap::new(),
            Some(Value::Scalar(value)) => BTreeMap::from([(0, value)]),
            Some(Value::Array(array)) => {
                array.iter().map(|(index, value)| (*index, value)).collect()
            }
        }
    }

    /// Every variable by full name, those that mean nothing to us too.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The device files that the instance's disks have in the helper (`DEV`), in order.
    pub fn devices(&self) -> Vec<String> {
        let text = |value: &&Secret| String::from_utf8_lossy(value.expose()).into_owned();
        self.array("DEV").values().map(text).collect()
    }

    /// The network interfaces: for each number what is said of it (`MAC`, `IP`, `NETWORK_SUBNET`).
    pub fn nics(&self) -> BTreeMap<u32, BTreeMap<String, String>> {
        let mut nics: BTreeMap<u32, BTreeMap<String, String>> = BTreeMap::new();
        for (name, value) in &self.values {
            let Some((number, field)) = name
                .strip_prefix(PREFIX)
                .and_then(|name| name.strip_prefix("NIC_"))
                .and_then(|name| name.split_once('_'))
            else {
                continue;
            };
            if let (Ok(number), Value::Scalar(value)) = (number.parse(), value) {
                let value = String::from_utf8_lossy(value.expose()).into_owned();
                nics.entry(number).or_default().insert(field.to_owned(), value);
            }
        }
        nics
    }
}

fn checked_name(name: &str) -> Result<String, WriteError> {
    let name = format!("{PREFIX}{name}");
    if is_identifier(&name) {
        Ok(name)
    } else {
        Err(WriteError { name, problem: "its name has a character that no variable can have" })
    }
}

fn check_value(name: &str, value: &Secret) -> Result<(), WriteError> {
    if value.expose().contains(&0) {
        return Err(WriteError {
            name: name.to_owned(),
            problem: "its value holds a NUL byte, which no variable can",
        });
    }
    Ok(())
}

pub(super) fn is_identifier(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
