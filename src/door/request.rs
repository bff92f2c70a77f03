//! A request of the command line on its way into the helper VM, and the report on its way back.
//! The rules of Ganeti's door cannot say all that the command line can (users by name, single
//! files that keep their owner, a dry run), so it has a document of its own on the parameter disk.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ask::plan::Plan;
use crate::craft::random::Clock;
use crate::craft::secret::Secret;
use crate::run::failure::Family;
use crate::run::report::{Mode, Report};

/// The document's name on the parameter disk.
pub const FILE: &str = "customize.json";
/// A longer report is left out.
pub const REPORT_MAX: usize = 1 << 20;
/// The version of both documents.
const VERSION: u32 = 3;

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It is not what we would have written.
    #[error("the request of snf-customize cannot be read")]
    Malformed(#[from] serde_json::Error),
    /// Another version of snf-image wrote it.
    #[error(
        "the request has version {0}, this helper knows {VERSION}; run snf-image-update-helper"
    )]
    Version(u32),
}

/// The request of `snf-customize apply`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The plan of the run.
    pub plan: Plan,
    /// Whether it is to be written.
    pub mode: Mode,
    /// `--seed`.
    pub seed: Option<u64>,
    /// The time.
    pub clock: Clock,
}

/// The answer of the helper VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The report; none when the run failed.
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

/// The message from the program that runs the helper VM to `snf-customize`.
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
    /// Warnings of the host.
    pub warnings: Vec<String>,
}

/// A request with the version of its form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<T> {
    version: u32,
    request: T,
}

impl Request {
    /// The document. It holds passwords.
    ///
    /// # Errors
    /// None that is known: every part of a request can be written as JSON.
    pub fn write(&self) -> Result<Secret, RequestError> {
        // Into a buffer that is wiped: what it outgrows on the way is short-lived memory of ours.
        let mut text = Zeroizing::new(Vec::new());
        serde_json::to_writer(&mut *text, &Document { version: VERSION, request: self })?;
        Ok(Secret::new(std::mem::take(&mut *text)))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When it has another version, or is not what [`Request::write`] makes.
    pub fn parse(text: &[u8]) -> Result<Self, RequestError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(text)?;
        if version != VERSION {
            return Err(RequestError::Version(version));
        }
        let Document { request, .. } = serde_json::from_slice(text)?;
        Ok(request)
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
        let mut value: serde_json::Value = serde_json::from_slice(text)?;
        clean(&mut value);
        Ok(serde_json::from_value(value)?)
    }
}

/// Takes hidden characters out of every text.
fn clean(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => text.retain(|c| !snf_fs::text::is_hidden(c)),
        serde_json::Value::Array(values) => values.iter_mut().for_each(clean),
        serde_json::Value::Object(map) => map.values_mut().for_each(clean),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::ask::cloud_seed::CloudSeed;
    use crate::ask::luks_key::LuksKey;
    use crate::ask::network::{Ipv4, Ipv6, Mac, Nic};
    use crate::ask::plan::{
        Grow, Growth, HostKeys, ImageFormat, MachineId, Password, PersonalityFile, Tasks, Who,
        WindowsRequest,
    };
    use crate::ask::properties::Properties;
    use crate::ask::task_id::TaskId;
    use crate::craft::sshkey::{KeyPair, KeyType};
    use crate::door::prepare::Prepared;

    #[test]
    fn a_request_arrives_as_it_was() {
        let mut properties = Properties::default();
        properties.set("ROOT_PARTITION", "2");
        // Every field, so that one that is added and not sent does not compile.
        let plan = Plan {
            format: ImageFormat::ExtDump,
            properties,
            luks_keys: vec![LuksKey { target: "3".into(), secret: Secret::new("k") }],
            hostname: Some("vm1.example.org".into()),
            passwords: vec![
                (Who::Named("root".into()), Password::Clear(Secret::new("p\u{e4}ss\u{0}"))),
                (Who::Default, Password::Hash(Secret::new("$6$x$y"))),
                (Who::Default, Password::Hashes(vec![Secret::new("$y$x"), Secret::new("$6$x")])),
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
            sysprep: vec!["logfiles".into()],
            edits: vec![crate::edit::Edit::of_option(
                "write",
                serde_json::from_str(r#"{"write": {"path": "/x", "base64": "/wA="}}"#).unwrap(),
            )],
            machine_id: MachineId::Given("0123456789abcdef0123456789abcdef".into()),
            host_keys: HostKeys::Remove,
            nics: vec![Nic {
                index: 1,
                mac: Mac([2, 0, 0, 0, 0, 9]),
                ipv4: Ipv4::Static {
                    address: Ipv4Addr::new(192, 0, 2, 7),
                    prefix: 24,
                    gateway: Some(Ipv4Addr::new(192, 0, 2, 1)),
                },
                ipv6: Ipv6::SlaacDhcp,
                dns: vec!["2001:db8::53".parse().unwrap()],
                mtu: Some(1400),
            }],
            windows: WindowsRequest {
                product_key: Some(Secret::new("ABCDE")),
                time_zone: Some("GMT Standard Time".into()),
                default_time_zone: Some("UTC".into()),
                answer_file: Some(Secret::new("<unattend/>")),
                sysprep_inf: Some(Secret::new("[x]")),
            },
            growth: Growth { what: Grow::Partition(2), no_move: true },
            cloud_userdata: Some(Secret::new("#cloud-config\n")),
            cloud_seed: CloudSeed {
                meta_data: Some(Secret::new("instance-id: x\n")),
                ..CloudSeed::default()
            },
            cloud_user: Some("bob".into()),
            cloud_init_debug: true,
            prepared: Prepared {
                keys: vec![KeyPair {
                    key_type: KeyType::Rsa,
                    private: Secret::new("private"),
                    public: "ssh-rsa x\n".into(),
                    fingerprint: "SHA256:x".into(),
                }],
            },
            tasks: Tasks::Only([(TaskId::AssignHostname, vec!["--hostname".into()])].into()),
        };
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
        let (Password::Hashes(before), Password::Hashes(after)) =
            (&request.plan.passwords[2].1, &arrived.plan.passwords[2].1)
        else {
            panic!()
        };
        assert_eq!(before, after);
        let contents = |plan: &Plan| plan.personality[0].contents.clone();
        assert_eq!(contents(&request.plan), contents(&arrived.plan));
        assert_eq!(request.plan.cloud_userdata, arrived.plan.cloud_userdata);
        assert_eq!(request.plan.cloud_seed, arrived.plan.cloud_seed);
        assert_eq!(request.plan.tasks, arrived.plan.tasks);
    }

    #[test]
    fn what_is_no_request_is_said() {
        for (text, part) in [
            (&b""[..], "cannot be read"),
            (b"{\"version\": 9}", "version 9"),
            (b"{\"version\": 3}", "missing field"),
            (b"\xff\x00", "cannot be read"),
        ] {
            let error = crate::craft::sentence::sentence(&Request::parse(text).unwrap_err());
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
