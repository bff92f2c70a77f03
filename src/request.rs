//! A request of the command line on its way into the helper VM, and the report on its way back.
//! The rules of Ganeti's door cannot say all that the command line can (users by name, single
//! files that keep their owner, a dry run), so it has a document of its own on the parameter disk.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::failure::Family;
use crate::plan::{HostKeys, MachineId, Password, PersonalityFile, Plan, Who, WindowsRequest};
use crate::properties::Properties;
use crate::random::Clock;
use crate::report::{Mode, Report};
use crate::secret::Secret;
use crate::task_id::TaskId;

/// The document's name on the parameter disk.
pub const FILE: &str = "customize.json";
/// A longer report is left out.
pub const REPORT_MAX: usize = 1 << 20;
/// The version of both documents.
const VERSION: u32 = 1;

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It is not what we would have written.
    #[error("the request of snf-customize cannot be read: {0}")]
    Malformed(String),
    /// Another version of snf-image wrote it.
    #[error(
        "the request has version {0}, this helper knows {VERSION}; run snf-image-update-helper"
    )]
    Version(u32),
}

/// What `snf-customize apply` asks for.
pub struct Request {
    /// What is to be done.
    pub plan: Plan,
    /// Whether it is to be written.
    pub mode: Mode,
    /// `--seed`.
    pub seed: Option<u64>,
    /// The time.
    pub clock: Clock,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What was done; none when it failed.
    pub report: Option<Report>,
    /// Why it failed.
    pub failure: Option<Failed>,
    /// Warnings that were given before it failed.
    pub warnings: Vec<String>,
}

/// An error of the library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Its family.
    pub family: Family,
    /// The sentence.
    pub message: String,
}

/// What the program that runs the helper VM tells `snf-customize`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The report of the VM, as it sent it.
    pub outcome: Option<String>,
    /// Why the VM did not get as far as that, or what it failed of.
    pub error: Option<String>,
    /// Whether a signal ended the run.
    pub interrupted: bool,
    /// Whether the disk was written.
    pub wrote: bool,
    /// What the host has to say.
    pub warnings: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    properties: BTreeMap<String, String>,
    hostname: Option<String>,
    passwords: Vec<DocumentPassword>,
    auth_keys: Vec<(Option<String>, String)>,
    files: Vec<DocumentFile>,
    machine_id: String,
    host_keys: String,
    windows: DocumentWindows,
    only_tasks: Option<BTreeSet<TaskId>>,
    dry_run: bool,
    seed: Option<u64>,
    time: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentPassword {
    user: Option<String>,
    hash: bool,
    value: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentFile {
    path: String,
    contents: Base64,
    owner: Option<String>,
    group: Option<String>,
    mode: Option<u16>,
    origin: String,
    keep_existing: bool,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DocumentWindows {
    product_key: Option<Base64>,
    time_zone: Option<String>,
    default_time_zone: Option<String>,
    answer_file: Option<Base64>,
    sysprep_inf: Option<Base64>,
}

impl DocumentWindows {
    fn of(request: &WindowsRequest) -> Self {
        Self {
            product_key: request.product_key.as_ref().map(Base64::of),
            time_zone: request.time_zone.clone(),
            default_time_zone: request.default_time_zone.clone(),
            answer_file: request.answer_file.as_ref().map(Base64::of),
            sysprep_inf: request.sysprep_inf.as_ref().map(Base64::of),
        }
    }

    fn request(self) -> Result<WindowsRequest, RequestError> {
        let secret = |text: Option<Base64>| text.map(|text| text.secret()).transpose();
        Ok(WindowsRequest {
            product_key: secret(self.product_key)?,
            time_zone: self.time_zone,
            default_time_zone: self.default_time_zone,
            answer_file: secret(self.answer_file)?,
            sysprep_inf: secret(self.sysprep_inf)?,
        })
    }
}

/// Secret bytes as base64; wiped when dropped.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Base64(String);

impl Drop for Base64 {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Base64 {
    fn of(secret: &Secret) -> Self {
        Self(STANDARD.encode(secret.expose()))
    }

    fn secret(&self) -> Result<Secret, RequestError> {
        let bytes = STANDARD.decode(&self.0);
        bytes.map(Secret::new).map_err(|error| RequestError::Malformed(error.to_string()))
    }
}

fn name(who: &Who) -> Option<String> {
    match who {
        Who::Default => None,
        Who::Named(name) => Some(name.clone()),
    }
}

fn who(name: Option<String>) -> Who {
    name.map_or(Who::Default, Who::Named)
}

impl Request {
    /// The document. It holds passwords.
    pub fn write(&self) -> Result<Secret, RequestError> {
        let plan = &self.plan;
        let document = Document {
            version: VERSION,
            properties: plan
                .properties
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            hostname: plan.hostname.clone(),
            passwords: plan
                .passwords
                .iter()
                .map(|(who, password)| {
                    let (hash, value) = match password {
                        Password::Clear(value) => (false, value),
                        Password::Hash(value) => (true, value),
                    };
                    DocumentPassword { user: name(who), hash, value: Base64::of(value) }
                })
                .collect(),
            auth_keys: plan.auth_keys.iter().map(|(who, keys)| (name(who), keys.clone())).collect(),
            files: plan
                .personality
                .iter()
                .map(|file| DocumentFile {
                    path: file.path.clone(),
                    contents: Base64::of(&file.contents),
                    owner: file.owner.clone(),
                    group: file.group.clone(),
                    mode: file.mode,
                    origin: file.origin.clone(),
                    keep_existing: file.keep_existing,
                })
                .collect(),
            machine_id: match &plan.machine_id {
                MachineId::New => "new".into(),
                MachineId::Empty => "empty".into(),
                MachineId::Keep => "keep".into(),
                MachineId::Given(id) => id.clone(),
            },
            host_keys: match plan.host_keys {
                HostKeys::New => "new",
                HostKeys::Remove => "remove",
                HostKeys::Keep => "keep",
            }
            .into(),
            windows: DocumentWindows::of(&plan.windows),
            only_tasks: plan.only_tasks.clone(),
            dry_run: self.mode == Mode::DryRun,
            seed: self.seed,
            time: self.clock.fixed_seconds(),
        };
        // Into a buffer that is wiped: what it outgrows on the way is short-lived memory of ours.
        let mut text = Zeroizing::new(Vec::new());
        serde_json::to_writer(&mut *text, &document)
            .map_err(|error| RequestError::Malformed(error.to_string()))?;
        Ok(Secret::new(std::mem::take(&mut *text)))
    }

    /// Reads a document.
    pub fn parse(text: &[u8]) -> Result<Self, RequestError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let malformed = |error: serde_json::Error| RequestError::Malformed(error.to_string());
        let Version { version } = serde_json::from_slice(text).map_err(malformed)?;
        if version != VERSION {
            return Err(RequestError::Version(version));
        }
        let document: Document = serde_json::from_slice(text).map_err(malformed)?;
        let mut properties = Properties::default();
        for (name, value) in document.properties {
            properties.set(&name, value);
        }
        let mut passwords = Vec::new();
        for password in document.passwords {
            let value = password.value.secret()?;
            let value = if password.hash { Password::Hash(value) } else { Password::Clear(value) };
            passwords.push((who(password.user), value));
        }
        let mut personality = Vec::new();
        for file in document.files {
            personality.push(PersonalityFile {
                contents: file.contents.secret()?,
                path: file.path,
                owner: file.owner,
                group: file.group,
                mode: file.mode,
                origin: file.origin,
                keep_existing: file.keep_existing,
            });
        }
        let plan = Plan {
            properties,
            hostname: document.hostname,
            passwords,
            auth_keys: document.auth_keys.into_iter().map(|(n, keys)| (who(n), keys)).collect(),
            personality,
            machine_id: match document.machine_id.as_str() {
                "new" => MachineId::New,
                "empty" => MachineId::Empty,
                "keep" => MachineId::Keep,
                id => MachineId::Given(id.to_owned()),
            },
            host_keys: match document.host_keys.as_str() {
                "new" => HostKeys::New,
                "remove" => HostKeys::Remove,
                "keep" => HostKeys::Keep,
                other => {
                    return Err(RequestError::Malformed(format!("host keys are {other:?}")));
                }
            },
            windows: document.windows.request()?,
            only_tasks: document.only_tasks,
            ..Plan::default()
        };
        Ok(Self {
            plan,
            mode: if document.dry_run { Mode::DryRun } else { Mode::Commit },
            seed: document.seed,
            clock: document.time.map_or_else(Clock::system, Clock::fixed),
        })
    }
}

impl Outcome {
    /// The document; empty when it would be too long.
    pub fn write(&self) -> Vec<u8> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        if text.len() > REPORT_MAX { Vec::new() } else { text }
    }

    /// Reads what a helper VM has sent. A hostile image may have taken the VM over: the text has
    /// no control characters afterwards, and nothing of it is to be believed more than the VM.
    pub fn parse(text: &[u8]) -> Result<Self, RequestError> {
        let malformed = |error: serde_json::Error| RequestError::Malformed(error.to_string());
        let mut value: serde_json::Value = serde_json::from_slice(text).map_err(malformed)?;
        clean(&mut value);
        serde_json::from_value(value).map_err(malformed)
    }
}

/// Takes control characters out of every text.
fn clean(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => text.retain(|c| !c.is_control()),
        serde_json::Value::Array(values) => values.iter_mut().for_each(clean),
        serde_json::Value::Object(map) => map.values_mut().for_each(clean),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_arrives_as_it_was() {
        let mut plan = Plan {
            hostname: Some("vm1.example.org".into()),
            passwords: vec![
                (Who::Named("root".into()), Password::Clear(Secret::new("p\u{e4}ss\u{0}"))),
                (Who::Default, Password::Hash(Secret::new("$6$x$y"))),
            ],
            auth_keys: vec![(Who::Named("admin".into()), "ssh-ed25519 AAAA x\n".into())],
            personality: vec![PersonalityFile {
                path: "/etc/x".into(),
                contents: Secret::new(vec![0, 255, 10]),
                owner: Some("root".into()),
                group: None,
                mode: Some(0o640),
                origin: "--write /etc/x".into(),
                keep_existing: true,
            }],
            machine_id: MachineId::Given("0123456789abcdef0123456789abcdef".into()),
            host_keys: HostKeys::Remove,
            only_tasks: Some(BTreeSet::from([TaskId::AssignHostname])),
            ..Plan::default()
        };
        plan.properties.set("ROOT_PARTITION", "2");
        plan.windows.product_key = Some(Secret::new("ABCDE"));
        plan.windows.time_zone = Some("GMT Standard Time".into());
        let request =
            Request { plan, mode: Mode::DryRun, seed: Some(u64::MAX), clock: Clock::fixed(7) };
        let text = request.write().unwrap();
        let arrived = Request::parse(text.expose()).unwrap();
        assert_eq!(format!("{:?}", arrived.plan), format!("{:?}", request.plan));
        assert_eq!((arrived.mode, arrived.seed), (Mode::DryRun, Some(u64::MAX)));
        assert_eq!(arrived.clock, Clock::fixed(7));
        let (Password::Clear(before), Password::Clear(after)) =
            (&request.plan.passwords[0].1, &arrived.plan.passwords[0].1)
        else {
            panic!()
        };
        assert_eq!(before, after);
        assert_eq!(
            request.plan.personality[0].contents.expose(),
            arrived.plan.personality[0].contents.expose()
        );
    }

    #[test]
    fn what_is_no_request_is_said() {
        for (text, part) in [
            (&b""[..], "cannot be read"),
            (b"{\"version\": 9}", "version 9"),
            (b"{\"version\": 1}", "missing field"),
            (b"\xff\x00", "cannot be read"),
        ] {
            let error = Request::parse(text).err().unwrap().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_lying_machine_cannot_command_the_terminal() {
        let outcome = Outcome {
            report: None,
            failure: Some(Failed { family: Family::Corrupt, message: "a\u{1b}[2Jb\nc".into() }),
            warnings: vec!["\u{7}x".into()],
        };
        let arrived = Outcome::parse(&outcome.write()).unwrap();
        assert_eq!(arrived.failure.unwrap().message, "a[2Jbc");
        assert_eq!(arrived.warnings, ["x"]);
        assert!(Outcome::parse(b"{\"report\": 7}").is_err());
    }
}
