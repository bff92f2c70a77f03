//! From variables to a plan.

use super::{PREFIX, ParseError, Rules, WriteError};
use crate::ask::network::{self, Nic, NicError, Settings};
use crate::ask::params::{OsParameters, Problem};
use crate::ask::plan::{Password, Plan, Who};
use crate::craft::crypt::{self, Method};
use crate::craft::secret::Secret;
use crate::door::prepare::Prepared;

/// The variable with hashes of the password: by several methods, for several users.
const HASHES: &str = "PREPARED_PASSWD_HASHES";

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

    /// Puts hashes into the place of the clear password. One of them also stands where a helper
    /// looks that takes no more than one.
    ///
    /// # Errors
    ///
    /// None that is known: a variable can hold every hash.
    pub fn set_hashes(&mut self, hashes: &[Secret]) -> Result<(), WriteError> {
        self.remove("PASSWD");
        // Every C library of the last fifteen years takes SHA-512.
        if let Some(one) = Method::Sha512.pick(hashes, 0).or(hashes.first()) {
            self.set("PASSWD_HASH", one.expose())?;
        }
        self.set_array(HASHES, hashes.iter().map(Secret::expose))
    }

    /// Those hashes. Texts that do not look like one are left out.
    fn hashes(&self) -> Vec<Secret> {
        let looks_right =
            |hash: &&Secret| std::str::from_utf8(hash.expose()).is_ok_and(crypt::looks_like_crypt);
        self.array(HASHES).into_values().filter(looks_right).cloned().collect()
    }

    /// The plan that the rules ask for: every task that applies.
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
        let hashes = self.hashes();
        for (who, password) in plan.passwords.iter_mut().filter(|_| !hashes.is_empty()) {
            if let (Who::Default, Password::Hash(_)) = (who, &*password) {
                *password = Password::Hashes(hashes.clone());
            }
        }
        plan.windows.default_time_zone = self.text("WINDOWS_TIMEZONE").map(str::to_owned);
        plan.cloud_init_debug = self.text("CLOUD_INIT_DEBUG").is_some_and(is_yes);
        // The host derives these from the image's format; they override the properties.
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

    /// The interfaces to configure: those below `NIC_COUNT`, where that is said.
    fn plan_nics(&self) -> Result<Vec<Nic>, NicError> {
        let text = |name: &str| self.text(name).unwrap_or_default().to_owned();
        let settings = Settings {
            dhcp_tags: text("DHCP_TAGS"),
            stateful_dhcpv6_tags: text("STATEFUL_DHCPV6_TAGS"),
            stateless_dhcpv6_tags: text("STATELESS_DHCPV6_TAGS"),
            default_nic_config: text("DEFAULT_NIC_CONFIG"),
            dns: text("DNS_SERVERS"),
        };
        let mut variables = self.nics();
        if let Some(count) = self.text("NIC_COUNT").and_then(|count| count.trim().parse().ok()) {
            variables.retain(|index, _| *index < count);
        }
        network::nics(&variables, &settings)
    }
}

/// OS parameters and the variables that carry them.
pub(super) const VARIABLES: [(&str, &str); 10] = [
    ("img_format", "TYPE"),
    ("img_passwd", "PASSWD"),
    ("img_passwd_hash", "PASSWD_HASH"),
    ("auth_keys", "AUTH_KEYS"),
    ("img_properties", "PROPERTIES"),
    ("inst_properties", "INST_PROPERTIES"),
    ("img_personality", "PERSONALITY"),
    ("img_edits", "EDITS"),
    ("os_product_key", "OS_PRODUCT_KEY"),
    ("cloud_userdata", "CLOUD_USERDATA"),
];

/// A yes in the words that properties take.
fn is_yes(text: &str) -> bool {
    ["yes", "true", "1", "on", "set"].iter().any(|yes| text.trim().eq_ignore_ascii_case(yes))
}
