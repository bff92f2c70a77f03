//! Slow computations that need nothing of the image, done by the host while it copies the image:
//! in the helper VM, where there may be no KVM, they would take as long as all the rest.
//!
//! The results travel in the rules as variables of our own. A helper that does not know
//! them (or a host that does not write them) only loses the time.

use crate::ask::plan::{HostKeys, Plan};
use crate::ask::task_id::TaskId;
use crate::craft::random::Entropy;
use crate::craft::secret::Secret;
use crate::craft::sshkey::{self, KeyPair, KeyType};
use crate::door::rules::{Rules, WriteError};

pub use crate::ask::prepared::Prepared;

/// The variable of a host key: an array of the private key, the public one and the fingerprint.
fn key_variable(key_type: KeyType) -> String {
    format!("PREPARED_{}_KEY", key_type.label())
}

/// Computes what the plan will need, for an instance of this name.
pub fn prepare(plan: &Plan, hostname: &str, entropy: &Entropy) -> Prepared {
    let entropy = entropy.derive("prepared");
    let mut prepared = Prepared::default();
    let linux = plan.properties.get("OSFAMILY").is_none_or(|f| f.is_empty() || f == "linux");
    // A property that is wrong is reported by those who use it.
    let runs = |task| linux && !plan.properties.excluded(task).unwrap_or(false);
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

impl Prepared {
    /// Writes it into the rules.
    pub fn write(&self, rules: &mut Rules) -> Result<(), WriteError> {
        for key in &self.keys {
            let values = [key.private.expose(), key.public.as_bytes(), key.fingerprint.as_bytes()];
            rules.set_array(&key_variable(key.key_type), values)?;
        }
        Ok(())
    }

    /// Reads it from the rules. Entries that do not look right are left out.
    pub fn read(rules: &Rules) -> Self {
        let keys = KeyType::ALL.into_iter().filter_map(|kind| read_key(rules, kind)).collect();
        Self { keys }
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
        let prepared = prepare(&Plan::default(), "vm1", &Entropy::seeded(1));
        let mut rules = Rules::default();
        prepared.write(&mut rules).unwrap();
        let rules = Rules::parse(rules.write().expose()).unwrap();
        let arrived = Prepared::read(&rules);
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
        let mut plan = Plan::default();
        plan.properties.set("OSFAMILY", "windows");
        assert!(prepare(&plan, "vm1", &Entropy::seeded(1)).keys.is_empty());
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
