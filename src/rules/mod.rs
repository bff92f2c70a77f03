//! The parameter file on the floppy: `export SNF_IMAGE_NAME=VALUE` lines in bash's own quoting.
//!
//! The host writes it and the helper reads it; each side also works with the original's other
//! half. It is data: nothing here ever runs a shell.

mod parser;
mod writer;

use std::collections::BTreeMap;

use crate::network::{self, Nic, NicError, Settings};
use crate::params::{OsParameters, Problem};
use crate::plan::Plan;
use crate::prepare::Prepared;
use crate::secret::Secret;

pub use parser::ParseError;
pub use writer::quote;

/// What every variable of ours begins with.
pub const PREFIX: &str = "SNF_IMAGE_";

/// A file larger than this is not read: it would not fit on the largest parameter disk.
pub const MAX_SIZE: usize = 16 << 20;

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
    values: BTreeMap<String, Value>,
}

/// A variable that cannot be written: no shell could hold it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} cannot be passed to the helper: {problem}")]
pub struct WriteError {
    name: String,
    problem: &'static str,
}

/// Why the rules do not make a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Not a parameter file.
    #[error("the parameter file cannot be read")]
    Parse(#[from] ParseError),
    /// A variable that the helper cannot do without.
    #[error("the parameter file has no {PREFIX}{0}; it was not written for this helper")]
    Missing(&'static str),
    /// Values that do not make sense.
    #[error("{}", list(.0))]
    Wrong(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
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

    /// Sets the variable of every OS parameter that has one and is given.
    ///
    /// # Errors
    ///
    /// A value holds a byte that no variable can.
    pub fn set_parameters(&mut self, parameters: &OsParameters) -> Result<(), WriteError> {
        for (name, variable) in VARIABLES {
            if let Some(value) = parameters.get(name) {
                self.set(variable, value.expose())?;
            }
        }
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

    /// What the rules ask for: every task that applies.
    pub fn plan(&self) -> Result<Plan, RulesError> {
        if self.get("TYPE").is_none() {
            return Err(RulesError::Missing("TYPE"));
        }
        let lookup = |parameter: &str| {
            VARIABLES
                .iter()
                .find(|(name, _)| *name == parameter)
                .and_then(|(_, variable)| self.get(variable))
                .cloned()
        };
        let parameters = OsParameters::from_lookup(lookup).map_err(RulesError::Wrong)?;
        let mut plan = parameters.plan().map_err(RulesError::Wrong)?;
        plan.hostname = self.text("HOSTNAME").filter(|name| !name.is_empty()).map(str::to_owned);
        plan.prepared = Prepared::read(self);
        plan.windows.default_time_zone = self.text("WINDOWS_TIMEZONE").map(str::to_owned);
        plan.cloud_init_debug = self.text("CLOUD_INIT_DEBUG").is_some_and(is_yes);
        // What the image's format implies (the host works it out) stands over the properties.
        for name in ["OSFAMILY", "ROOT_PARTITION"] {
            if let Some(value) = self.text(&format!("PROPERTY_{name}")).filter(|v| !v.is_empty()) {
                plan.properties.set(name, value);
            }
        }
        let mut problems: Vec<Problem> =
            plan.properties.problems().into_iter().map(Problem::property).collect();
        match self.plan_nics() {
            Ok(nics) => plan.nics = nics,
            Err(error) => problems.push(Problem::nic(error)),
        }
        if problems.is_empty() { Ok(plan) } else { Err(RulesError::Wrong(problems)) }
    }
}

impl Rules {
    /// The interfaces to configure: those below `NIC_COUNT`, where that is said.
    fn plan_nics(&self) -> Result<Vec<Nic>, NicError> {
        let text = |name: &str| self.text(name).unwrap_or_default().to_owned();
        let settings = Settings {
            dhcp_tags: text("DHCP_TAGS"),
            stateful_dhcpv6_tags: text("STATEFUL_DHCPV6_TAGS"),
            stateless_dhcpv6_tags: text("STATELESS_DHCPV6_TAGS"),
            default_nic_config: text("DEFAULT_NIC_CONFIG"),
        };
        let mut variables = self.nics();
        if let Some(count) = self.text("NIC_COUNT").and_then(|count| count.trim().parse().ok()) {
            variables.retain(|index, _| *index < count);
        }
        network::nics(&variables, &settings)
    }
}

/// Which variable carries which OS parameter.
const VARIABLES: [(&str, &str); 9] = [
    ("img_format", "TYPE"),
    ("img_passwd", "PASSWD"),
    ("img_passwd_hash", "PASSWD_HASH"),
    ("auth_keys", "AUTH_KEYS"),
    ("img_properties", "PROPERTIES"),
    ("inst_properties", "INST_PROPERTIES"),
    ("img_personality", "PERSONALITY"),
    ("os_product_key", "OS_PRODUCT_KEY"),
    ("cloud_userdata", "CLOUD_USERDATA"),
];

/// A yes in the words that properties take.
fn is_yes(text: &str) -> bool {
    ["yes", "true", "1", "on", "set"].iter().any(|yes| text.trim().eq_ignore_ascii_case(yes))
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

fn is_identifier(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests;
