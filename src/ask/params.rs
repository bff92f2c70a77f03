//! The OS parameters that Ganeti passes (`OSP_*`), and those of a `config_url`.

use crate::ask::network::NicError;
use crate::ask::personality::{self, PersonalityError};
use crate::ask::plan::{ImageFormat, Password, Plan, Who};
use crate::ask::properties::{Properties, PropertyError};
use crate::craft::base64::{self, NotBase64};
use crate::craft::crypt;
use crate::craft::json;
use crate::craft::secret::Secret;
use crate::craft::sentence::sentence;
use crate::edit;

/// Every OS parameter, in the order of the documentation.
pub const NAMES: [&str; 13] = [
    "img_id",
    "img_format",
    "img_passwd",
    "img_passwd_hash",
    "auth_keys",
    "img_properties",
    "inst_properties",
    "img_personality",
    "img_edits",
    "config_url",
    "os_product_key",
    "os_answer_file",
    "cloud_userdata",
];

/// The OS parameters as they were given. `Some` of an empty string is a parameter that was set to
/// nothing, which is not the same as one that was not set: it hides what a configuration file or
/// a `config_url` says.
#[derive(Clone, Debug, Default)]
pub struct OsParameters {
    /// The image's name in the image back-end.
    pub img_id: Option<String>,
    /// `diskdump`, `extdump` or `ntfsdump`.
    pub img_format: Option<String>,
    /// Password to set.
    pub img_passwd: Option<Secret>,
    /// crypt(3) hash to set.
    pub img_passwd_hash: Option<Secret>,
    /// Lines for authorized_keys.
    pub auth_keys: Option<String>,
    /// JSON object.
    pub img_properties: Option<String>,
    /// JSON object that overrides it.
    pub inst_properties: Option<String>,
    /// JSON list of files.
    pub img_personality: Option<Secret>,
    /// JSON list of edits.
    pub img_edits: Option<Secret>,
    /// URL of more parameters.
    pub config_url: Option<String>,
    /// Windows product key.
    pub os_product_key: Option<Secret>,
    /// URL of a Windows answer file.
    pub os_answer_file: Option<String>,
    /// User data for cloud-init, in base64.
    pub cloud_userdata: Option<Secret>,
}

/// The problem with one parameter: its name, and the valid values. Never a secret value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{parameter}: {problem}")]
pub struct Problem {
    /// The parameter (`img_format`) or what it came from.
    pub parameter: String,
    /// The problem, and the values that are valid.
    pub problem: String,
}

impl Problem {
    fn new(parameter: &str, problem: impl Into<String>) -> Self {
        Self { parameter: parameter.to_owned(), problem: problem.into() }
    }

    pub(crate) fn property(error: PropertyError) -> Self {
        Self::new("image properties", error.to_string())
    }

    pub(crate) fn nic(error: NicError) -> Self {
        Self::new("network interfaces", error.to_string())
    }
}

impl From<PersonalityError> for Problem {
    fn from(error: PersonalityError) -> Self {
        Self::new("img_personality", sentence(&error))
    }
}

impl OsParameters {
    /// Takes every parameter that `lookup` knows, by lower-case name (`img_id`).
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<Secret>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut text = |name: &str| match String::from_utf8(lookup(name)?.expose().to_vec()) {
            Ok(text) => Some(text),
            Err(_) => {
                problems.push(Problem::new(name, "its value is not valid UTF-8 text"));
                None
            }
        };
        let parameters = Self {
            img_id: text("img_id"),
            img_format: text("img_format"),
            img_passwd: lookup("img_passwd"),
            img_passwd_hash: lookup("img_passwd_hash"),
            auth_keys: text("auth_keys"),
            img_properties: text("img_properties"),
            inst_properties: text("inst_properties"),
            img_personality: lookup("img_personality"),
            img_edits: lookup("img_edits"),
            config_url: text("config_url"),
            os_product_key: lookup("os_product_key"),
            os_answer_file: text("os_answer_file"),
            cloud_userdata: lookup("cloud_userdata"),
        };
        if problems.is_empty() { Ok(parameters) } else { Err(problems) }
    }

    /// The value of a parameter by its lower-case name; `None` when it is not given or there is
    /// no such parameter.
    pub fn get(&self, name: &str) -> Option<Secret> {
        let text = |value: &Option<String>| value.as_ref().map(|text| Secret::new(text.as_str()));
        match name {
            "img_id" => text(&self.img_id),
            "img_format" => text(&self.img_format),
            "img_passwd" => self.img_passwd.clone(),
            "img_passwd_hash" => self.img_passwd_hash.clone(),
            "auth_keys" => text(&self.auth_keys),
            "img_properties" => text(&self.img_properties),
            "inst_properties" => text(&self.inst_properties),
            "img_personality" => self.img_personality.clone(),
            "img_edits" => self.img_edits.clone(),
            "config_url" => text(&self.config_url),
            "os_product_key" => self.os_product_key.clone(),
            "os_answer_file" => text(&self.os_answer_file),
            "cloud_userdata" => self.cloud_userdata.clone(),
            _ => None,
        }
    }

    /// Takes parameters from a JSON object, as a `config_url` gives: strings as they are, and for
    /// the parameters that are JSON themselves also the objects or lists. `null` is not set.
    pub fn from_json(text: &str) -> Result<Self, Vec<Problem>> {
        use serde_json::Value;
        let one = |problem: String| vec![Problem::new("config_url", problem)];
        let value = json::parse(text).map_err(|error| match error.is_data() {
            true => one(format!("in the document, {error}")),
            false => one(format!("the document is not JSON: {error}")),
        })?;
        let Value::Object(object) = value else {
            return Err(one("the document is not a JSON object of OS parameters".to_owned()));
        };
        let mut problems: Vec<Problem> = Vec::new();
        for (name, value) in &object {
            let nested = ["img_properties", "inst_properties", "img_personality", "img_edits"];
            let problem = match value {
                _ if name == "config_url" => {
                    "cannot be given in what config_url leads to".to_owned()
                }
                _ if !NAMES.contains(&name.as_str()) => format!(
                    "there is no such OS parameter; valid in what config_url leads to are {}",
                    NAMES.join(", ")
                ),
                Value::Null | Value::String(_) => continue,
                Value::Object(_) | Value::Array(_) if nested.contains(&name.as_str()) => continue,
                _ => "must be a string in what config_url leads to".to_owned(),
            };
            let name: String = name.chars().take(60).filter(|c| !c.is_control()).collect();
            problems.push(Problem::new(&name, problem));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Self::from_lookup(|name| match object.get(name)? {
            Value::Null => None,
            Value::String(text) => Some(Secret::new(text.as_str())),
            nested => Some(Secret::new(nested.to_string())),
        })
    }

    /// Fills what is not set here from `other`.
    pub fn or(self, other: Self) -> Self {
        Self {
            img_id: self.img_id.or(other.img_id),
            img_format: self.img_format.or(other.img_format),
            img_passwd: self.img_passwd.or(other.img_passwd),
            img_passwd_hash: self.img_passwd_hash.or(other.img_passwd_hash),
            auth_keys: self.auth_keys.or(other.auth_keys),
            img_properties: self.img_properties.or(other.img_properties),
            inst_properties: self.inst_properties.or(other.inst_properties),
            img_personality: self.img_personality.or(other.img_personality),
            img_edits: self.img_edits.or(other.img_edits),
            config_url: self.config_url.or(other.config_url),
            os_product_key: self.os_product_key.or(other.os_product_key),
            os_answer_file: self.os_answer_file.or(other.os_answer_file),
            cloud_userdata: self.cloud_userdata.or(other.cloud_userdata),
        }
    }

    /// Everything that is wrong with the parameters that are given. A set that lacks some is fine:
    /// Ganeti's `verify` passes only those that are being changed.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(img_id) = &self.img_id
            && img_id.chars().any(char::is_control)
        {
            problems.push(Problem::new("img_id", "it holds control characters"));
        }
        if let Some(url) = filled(&self.config_url) {
            problems.extend(check_url("config_url", url));
        }
        if let Some(url) = filled(&self.os_answer_file) {
            problems.extend(check_url("os_answer_file", url));
        }
        if let Some(key) = filled_secret(&self.os_product_key)
            && let Err(problem) = check_product_key(key)
        {
            problems.push(Problem::new("os_product_key", problem));
        }
        self.collect_plan(&mut problems);
        problems
    }

    /// Parameters that are missing for an instance to be created, and everything that is wrong.
    pub fn problems_of_create(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, value) in [("img_id", &self.img_id), ("img_format", &self.img_format)] {
            if filled(value).is_none() {
                problems.push(Problem::new(
                    name,
                    "it is not set; pass it with -O (or in what config_url leads to)",
                ));
            }
        }
        problems.extend(self.problems());
        problems
    }

    /// The plan that the parameters ask for. The host name and the disk are not among them.
    pub fn plan(&self) -> Result<Plan, Vec<Problem>> {
        let mut problems = Vec::new();
        let plan = self.collect_plan(&mut problems);
        if problems.is_empty() { Ok(plan) } else { Err(problems) }
    }

    fn collect_plan(&self, problems: &mut Vec<Problem>) -> Plan {
        let mut plan = Plan::default();
        match filled(&self.img_format).map(ImageFormat::from_name) {
            None => {}
            Some(Some(format)) => plan.format = format,
            Some(None) => problems
                .push(Problem::new("img_format", "it is none of diskdump, extdump and ntfsdump")),
        }
        self.passwords(&mut plan, problems);
        plan.windows.product_key = filled_secret(&self.os_product_key).cloned();
        if let Some(keys) = filled(&self.auth_keys) {
            match check_keys(keys) {
                Ok(()) => plan.auth_keys.push((Who::Default, keys.to_owned())),
                Err(problem) => problems.push(Problem::new("auth_keys", problem.to_string())),
            }
        }
        for (name, json) in
            [("img_properties", &self.img_properties), ("inst_properties", &self.inst_properties)]
        {
            match Properties::parse(json.as_deref().unwrap_or_default(), name) {
                Ok(properties) => plan.properties.merge(properties),
                Err(error) => problems.push(Problem::new(name, error.to_string())),
            }
        }
        problems.extend(plan.properties.problems().into_iter().map(Problem::property));
        // A bare file system says what it is.
        let implied = match plan.format {
            ImageFormat::DiskDump => None,
            ImageFormat::ExtDump => Some("linux"),
            ImageFormat::NtfsDump => Some("windows"),
        };
        if let Some(family) = implied {
            if plan.properties.get("OSFAMILY").is_none_or(str::is_empty) {
                plan.properties.set("OSFAMILY", family);
            }
            plan.properties.set("ROOT_PARTITION", "1");
        }
        if let Some(data) = filled_secret(&self.cloud_userdata) {
            let decoded =
                std::str::from_utf8(data.expose()).map_err(|_| NotBase64).and_then(base64::decode);
            match decoded {
                Ok(data) => plan.cloud_userdata = Some(data),
                Err(problem) => {
                    problems.push(Problem::new("cloud_userdata", format!("it {problem}")));
                }
            }
        }
        if let Some(json) = filled_secret(&self.img_personality) {
            match std::str::from_utf8(json.expose()) {
                Err(_) => problems.push(Problem::new("img_personality", "it is not UTF-8 text")),
                Ok(json) => match personality::parse(json, "img_personality") {
                    Ok(files) => plan.personality = files,
                    Err(error) => problems.push(error.into()),
                },
            }
        }
        if let Some(json) = filled_secret(&self.img_edits) {
            match edit::of_json(json.expose(), "img_edits") {
                Ok(edits) => plan.edits = edits,
                Err(problem) => problems.push(Problem::new("img_edits", problem.to_string())),
            }
        }
        plan
    }

    fn passwords(&self, plan: &mut Plan, problems: &mut Vec<Problem>) {
        let clear = filled_secret(&self.img_passwd);
        let hash = filled_secret(&self.img_passwd_hash);
        if clear.is_some() && hash.is_some() {
            problems.push(Problem::new(
                "img_passwd_hash",
                "it cannot be given together with img_passwd; leave one of them out",
            ));
        }
        if let Some(clear) = clear {
            if clear.expose().contains(&0) {
                problems.push(Problem::new("img_passwd", "it holds a NUL byte"));
            }
            plan.passwords.push((Who::Default, Password::Clear(clear.clone())));
        }
        if let Some(hash) = hash {
            if std::str::from_utf8(hash.expose()).is_ok_and(crypt::looks_like_crypt) {
                plan.passwords.push((Who::Default, Password::Hash(hash.clone())));
            } else {
                problems.push(Problem::new(
                    "img_passwd_hash",
                    "it is not a crypt(3) hash such as $6$SALT$HASH; make one with mkpasswd(1), or give the password itself as img_passwd",
                ));
            }
        }
    }
}

fn filled(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.trim().is_empty())
}

fn filled_secret(value: &Option<Secret>) -> Option<&Secret> {
    value.as_ref().filter(|value| !value.expose().is_empty())
}

/// Whether a Windows product key has the form of one.
pub fn check_product_key(key: &Secret) -> Result<(), &'static str> {
    let mut groups = key.expose().split(|&byte| byte == b'-');
    let good = |group: &[u8]| group.len() == 5 && group.iter().all(u8::is_ascii_alphanumeric);
    if groups.clone().count() == 5 && groups.all(good) {
        Ok(())
    } else {
        Err("it is not of the form XXXXX-XXXXX-XXXXX-XXXXX-XXXXX (letters and digits)")
    }
}

fn check_url(name: &str, url: &str) -> Option<Problem> {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("http" | "https" | "ftp" | "file") if !url.contains(char::is_whitespace) => None,
        _ => Some(Problem::new(name, "it is not a URL of http, https, ftp or file")),
    }
}

/// A line that an authorized_keys file cannot have, by its number from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyLineError {
    /// It would break the file.
    #[error("line {0} holds a control character")]
    Control(usize),
    /// It must stay secret.
    #[error("line {0} belongs to a private key; give the public one (the file ending in .pub)")]
    Private(usize),
    /// It is something else.
    #[error("line {0} is not a public key (TYPE BASE64 COMMENT, as in an id_ed25519.pub file)")]
    NoKey(usize),
}

/// Whether a text consists of lines that an authorized_keys file can have. Options may stand
/// before a key, so only a line that could break the file is refused.
///
/// # Errors
/// The first line that is refused.
pub fn check_keys(keys: &str) -> Result<(), KeyLineError> {
    for (number, line) in (1..).zip(keys.lines()) {
        let line = line.trim();
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(KeyLineError::Control(number));
        }
        if line.contains("PRIVATE KEY-----") {
            return Err(KeyLineError::Private(number));
        }
        if !line.is_empty() && !line.starts_with('#') && line.split_whitespace().count() < 2 {
            return Err(KeyLineError::NoKey(number));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> OsParameters {
        OsParameters::from_lookup(|name| {
            pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| Secret::new(*value))
        })
        .unwrap()
    }

    fn problems(pairs: &[(&str, &str)]) -> String {
        parameters(pairs).problems().iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn nothing_at_all_is_fine_for_verify_and_not_for_create() {
        assert_eq!(problems(&[]), "");
        let missing = OsParameters::default().problems_of_create();
        assert_eq!(missing.len(), 2);
        assert_eq!(missing[0].parameter, "img_id");
        assert_eq!(missing[1].parameter, "img_format");
    }

    #[test]
    fn a_good_set_makes_a_plan() {
        let plan = parameters(&[
            ("img_id", "debian"),
            ("img_format", "extdump"),
            ("img_passwd", "secret"),
            ("auth_keys", "ssh-ed25519 AAAA me\n"),
            ("img_properties", r#"{"USERS": "root", "CLOUD_INIT": "no"}"#),
            ("inst_properties", r#"{"users": "user"}"#),
            ("img_personality", r#"[{"path": "/etc/motd", "contents": ""}]"#),
            ("img_edits", r#"[{"mkdir": {"path": "/srv/a"}}, {"lock-user": {"user": "ann"}}]"#),
        ])
        .plan()
        .unwrap();
        assert_eq!(plan.format, ImageFormat::ExtDump);
        assert_eq!(plan.properties.get("USERS"), Some("user"));
        assert_eq!(plan.properties.get("OSFAMILY"), Some("linux"));
        assert_eq!(plan.properties.get("ROOT_PARTITION"), Some("1"));
        assert_eq!(plan.passwords.len(), 1);
        assert_eq!(plan.auth_keys.len(), 1);
        assert_eq!(plan.personality[0].origin, "img_personality[0]");
        let origins: Vec<&str> = plan.edits.iter().map(|edit| edit.origin.as_str()).collect();
        assert_eq!(origins, ["img_edits[0]: mkdir /srv/a", "img_edits[1]: lock-user ann"]);
        assert!(plan.tasks.is_all());
    }

    #[test]
    fn every_problem_has_its_name() {
        for (name, value) in [
            ("img_format", "qcow2"),
            ("img_passwd_hash", "secret"),
            ("img_passwd_hash", "$6$a:b$0123456789012345"),
            ("auth_keys", "garbage"),
            ("auth_keys", "-----BEGIN OPENSSH PRIVATE KEY-----"),
            ("img_properties", "[]"),
            ("inst_properties", "{"),
            ("img_personality", "{}"),
            ("config_url", "example.test/x"),
            ("os_answer_file", "gopher://x"),
            ("os_product_key", "AAAAA-BBBBB"),
            ("cloud_userdata", "no base64!"),
        ] {
            let text = problems(&[(name, value)]);
            assert!(text.starts_with(&format!("{name}: ")), "{name}: {text}");
            assert_eq!(text.lines().count(), 1, "{text}");
            if name.starts_with("img_passwd") {
                assert!(!text.contains(value), "{text}");
            }
        }
        let both = problems(&[("img_passwd", "x"), ("img_passwd_hash", "!")]);
        assert!(both.contains("cannot be given together with img_passwd"), "{both}");
    }

    #[test]
    fn set_to_nothing_hides_what_another_source_says() {
        let ours = parameters(&[("img_passwd", "")]);
        let config = OsParameters::from_json(
            r#"{"img_passwd": "x", "img_id": "y", "img_properties": {"USERS": "z"},
                "auth_keys": null}"#,
        )
        .unwrap();
        let all = ours.or(config);
        assert_eq!(all.img_id.as_deref(), Some("y"));
        assert_eq!(all.auth_keys, None);
        let plan = all.plan().unwrap();
        assert!(plan.passwords.is_empty());
        assert_eq!(plan.properties.get("USERS"), Some("z"));
    }

    #[test]
    fn a_bad_configuration_is_told_by_name() {
        for (json, part) in [
            ("[]", "config_url: the document is not a JSON object"),
            ("nope", "config_url: the document is not JSON"),
            (
                r#"{"img_passwd": "a", "img_passwd": "b"}"#,
                "config_url: in the document, \"img_passwd\" has two different values",
            ),
            (
                r#"{"img_properties": {"USERS": "ann", "USERS": "root"}}"#,
                "config_url: in the document, \"USERS\" has two different values",
            ),
            (r#"{"img_pass": "x"}"#, "img_pass: there is no such OS parameter"),
            (r#"{"img_id": 5}"#, "img_id: must be a string"),
            (r#"{"config_url": "http://x"}"#, "config_url: cannot be given"),
        ] {
            let error = OsParameters::from_json(json).unwrap_err()[0].to_string();
            assert!(error.starts_with(part), "{json}: {error}");
        }
    }
}
