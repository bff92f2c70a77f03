//! Slow computations that need nothing of the image, done by the host while it copies the image:
//! in the helper VM, where there may be no KVM, they would take as long as all the rest.
//!
//! The results travel in the rules as variables of our own. A helper that does not know
//! them (or a host that does not write them) only loses the time.

use crate::ask::plan::{HostKeys, Password, Plan, Who};
use crate::ask::task_id::TaskId;
use crate::craft::crypt::{self, Method};
use crate::craft::random::Entropy;
use crate::craft::secret::Secret;
use crate::craft::sshkey::{self, KeyPair, KeyType};
use crate::door::rules::{Rules, WriteError};

pub use crate::ask::prepared::Prepared;

/// The variable of a host key: an array of the private key, the public one and the fingerprint.
fn key_variable(key_type: KeyType) -> String {
    format!("PREPARED_{}_KEY", key_type.label())
}

const HASHES: &str = "PREPARED_PASSWD_HASHES";

/// Computes what the plan will need, for an instance of this name.
pub fn prepare(plan: &Plan, hostname: &str, entropy: &Entropy) -> Prepared {
    let entropy = entropy.derive("prepared");
    let mut prepared = Prepared::default();
    let linux = plan.properties.get("OSFAMILY").is_none_or(|f| f.is_empty() || f == "linux");
    // A property that is wrong is reported by those who use it.
    let runs = |task| linux && !plan.properties.excluded(task).unwrap_or(false);
    if runs(TaskId::ChangePassword) {
        let clear = plan.passwords.iter().find_map(|(who, password)| match (who, password) {
            (Who::Default, Password::Clear(clear)) => Some(clear),
            _ => None,
        });
        if let Some(clear) = clear {
            prepared.password_hashes = hashes(plan, clear, &entropy);
        }
    }
    if plan.host_keys == HostKeys::New && runs(TaskId::DeleteSSHKeys) {
        let comment = format!("root@{hostname}");
        // A key that cannot be made is reported by the task.
        prepared.keys = KeyType::ALL
            .into_iter()
            .filter_map(|kind| {
                sshkey::generate(kind, &comment, &mut entropy.derive(kind.name())).ok()
            })
            .collect();
    }
    prepared
}

/// Hashes by the method that is asked for, or by those of today's Linux distributions.
fn hashes(plan: &Plan, clear: &Secret, entropy: &Entropy) -> Vec<Secret> {
    let named = plan.properties.get("PASSWD_HASHING_METHOD").unwrap_or_default();
    let wanted = |method: &Method| match named {
        "" => matches!(method, Method::Yescrypt | Method::Sha512),
        name => method.name().eq_ignore_ascii_case(name),
    };
    let methods = Method::ALL.into_iter().filter(wanted);
    // A password that cannot be hashed is reported by the task.
    methods.filter_map(|m| crypt::hash(m, clear, &mut entropy.derive(m.name())).ok()).collect()
}

impl Prepared {
    /// Writes it into the rules.
    pub fn write(&self, rules: &mut Rules) -> Result<(), WriteError> {
        for key in &self.keys {
            let values = [key.private.expose(), key.public.as_bytes(), key.fingerprint.as_bytes()];
            rules.set_array(&key_variable(key.key_type), values)?;
        }
        if !self.password_hashes.is_empty() {
            rules.set_array(HASHES, self.password_hashes.iter().map(Secret::expose))?;
        }
        Ok(())
    }

    /// Reads it from the rules. What does not look right is left out.
    pub fn read(rules: &Rules) -> Self {
        // Without a password there is nothing that they could be hashes of.
        let hashes = if rules.get("PASSWD").is_some_and(|password| !password.expose().is_empty()) {
            rules.array(HASHES).into_values().cloned().collect()
        } else {
            Vec::new()
        };
        let keys = KeyType::ALL.into_iter().filter_map(|kind| read_key(rules, kind)).collect();
        Self { keys, password_hashes: hashes }
    }
}

fn read_key(rules: &Rules, key_type: KeyType) -> Option<KeyPair> {
    let values = rules.array(&key_variable(key_type));
    let text = |index| std::str::from_utf8(values.get(&index)?.expose()).ok();
    let (private, public, fingerprint) = (text(0)?, text(1)?, text(2)?);
    let looks_right = private.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n")
        && public.strip_prefix(key_type.algorithm()).is_some_and(|rest| rest.starts_with(' '))
        && public.ends_with('\n')
        && fingerprint.starts_with("SHA256:");
    looks_right.then(|| KeyPair {
        key_type,
        private: Secret::new(private),
        public: public.to_owned(),
        fingerprint: fingerprint.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_prepared_arrives() {
        let plan = Plan {
            passwords: vec![(Who::Default, Password::Clear(Secret::new("secret")))],
            ..Plan::default()
        };
        let prepared = prepare(&plan, "vm1", &Entropy::seeded(1));
        let mut rules = Rules::default();
        prepared.write(&mut rules).unwrap();
        assert!(Prepared::read(&rules).password_hashes.is_empty(), "there is no password");
        rules.set("PASSWD", "secret").unwrap();
        let rules = Rules::parse(rules.write().expose()).unwrap();
        let arrived = Prepared::read(&rules);
        assert_eq!(arrived.password_hashes, prepared.password_hashes);
        assert!(arrived.hash(Method::Yescrypt).is_some() && arrived.hash(Method::Sha512).is_some());
        assert!(arrived.hash(Method::Md5).is_none());
        let keys: Vec<_> = arrived.keys("root@vm1").collect();
        assert_eq!(keys.len(), KeyType::ALL.len());
        for (key, made) in keys.iter().zip(&prepared.keys) {
            assert_eq!(key.key_type, made.key_type);
            assert_eq!(key.fingerprint, made.fingerprint);
        }
        assert_eq!(arrived.keys("root@vm").count(), 0, "another host's comment");
    }

    #[test]
    fn nothing_is_prepared_that_will_not_be_used() {
        let mut plan = Plan::default();
        plan.properties.set("EXCLUDE_TASK_DeleteSSHKeys", "yes");
        assert!(prepare(&plan, "vm1", &Entropy::seeded(1)).keys.is_empty());
        let mut plan = Plan {
            passwords: vec![(Who::Default, Password::Clear(Secret::new("secret")))],
            ..Plan::default()
        };
        plan.properties.set("OSFAMILY", "windows");
        let prepared = prepare(&plan, "vm1", &Entropy::seeded(1));
        assert!(prepared.keys.is_empty() && prepared.password_hashes.is_empty());
    }

    #[test]
    fn junk_in_the_rules_is_left_out() {
        let mut rules = Rules::default();
        let variable = key_variable(KeyType::Rsa);
        for private in ["x", "-----BEGIN OPENSSH PRIVATE KEY-----\n"] {
            // A key of one kind in the place of another.
            rules.set_array(&variable, [private, "ssh-ed25519 x\n", "SHA256:x"]).unwrap();
            assert!(Prepared::read(&rules).keys.is_empty());
        }
        rules.set(&variable, "one").unwrap();
        assert!(Prepared::read(&rules).keys.is_empty());
    }
}
