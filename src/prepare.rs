//! Slow computations that need nothing of the image, done by the host while it copies the image:
//! in the helper VM, where there may be no KVM, they would take as long as all the rest.
//!
//! What is prepared travels in the rules as variables of our own. A helper that does not know
//! them (or a host that does not write them) only loses the time.

use crate::crypt::{self, Method};
use crate::plan::{HostKeys, Password, Plan, Who};
use crate::random::Entropy;
use crate::rules::{Rules, WriteError};
use crate::secret::Secret;
use crate::sshkey::{self, KeyPair, KeyType};

const RSA_KEY: &str = "PREPARED_RSA_KEY";
const HASHES: &str = "PREPARED_PASSWD_HASHES";

/// What was computed beforehand. Each thing is used once at most: for the first key of its kind,
/// for the first user.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// A fresh RSA host key.
    pub rsa_key: Option<KeyPair>,
    /// crypt(3) hashes of the plan's clear-text password, by different methods.
    pub password_hashes: Vec<Secret>,
}

/// Computes what the plan will need, for an instance of this name.
pub fn prepare(plan: &Plan, hostname: &str, entropy: &Entropy) -> Prepared {
    let entropy = entropy.derive("prepared");
    let mut prepared = Prepared::default();
    let linux = plan.properties.get("OSFAMILY").is_none_or(|f| f.is_empty() || f == "linux");
    // A property that is wrong is reported by those who use it.
    let runs = |task| linux && !plan.properties.excluded(task, true).unwrap_or(false);
    if runs("ChangePassword") {
        let clear = plan.passwords.iter().find_map(|(who, password)| match (who, password) {
            (Who::Default, Password::Clear(clear)) => Some(clear),
            _ => None,
        });
        if let Some(clear) = clear {
            prepared.password_hashes = hashes(plan, clear, &entropy);
        }
    }
    if plan.host_keys == HostKeys::New && runs("DeleteSSHKeys") {
        let comment = format!("root@{hostname}");
        let mut stream = entropy.derive("rsa");
        prepared.rsa_key = Some(sshkey::generate(KeyType::Rsa, &comment, &mut stream));
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
        if let Some(key) = &self.rsa_key {
            let values = [key.private.expose(), key.public.as_bytes(), key.fingerprint.as_bytes()];
            rules.set_array(RSA_KEY, values)?;
        }
        if !self.password_hashes.is_empty() {
            rules.set_array(HASHES, self.password_hashes.iter().map(Secret::expose))?;
        }
        Ok(())
    }

    /// Reads it from the rules. What does not look right is left out.
    pub fn read(rules: &Rules) -> Self {
        let key = rules.array(RSA_KEY);
        let text = |index| {
            let value: Option<&&Secret> = key.get(&index);
            value.and_then(|value| std::str::from_utf8(value.expose()).ok())
        };
        let rsa_key = match (text(0), text(1), text(2)) {
            (Some(private), Some(public), Some(fingerprint))
                if private.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n")
                    && public.starts_with("ssh-rsa ")
                    && public.ends_with('\n')
                    && fingerprint.starts_with("SHA256:") =>
            {
                Some(KeyPair {
                    key_type: KeyType::Rsa,
                    private: Secret::new(private),
                    public: public.to_owned(),
                    fingerprint: fingerprint.to_owned(),
                })
            }
            _ => None,
        };
        // Without a password there is nothing that they could be hashes of.
        let hashes = if rules.get("PASSWD").is_some_and(|password| !password.expose().is_empty()) {
            rules.array(HASHES).into_values().cloned().collect()
        } else {
            Vec::new()
        };
        Self { rsa_key, password_hashes: hashes }
    }

    /// The hash that was made by a method.
    pub fn hash(&self, method: Method) -> Option<&Secret> {
        let prefix = method.prefix().as_bytes();
        self.password_hashes.iter().find(|hash| hash.expose().starts_with(prefix))
    }

    /// The RSA key, if it was made with this comment.
    pub fn rsa_key(&self, comment: &str) -> Option<&KeyPair> {
        let ending = format!(" {comment}\n");
        self.rsa_key.as_ref().filter(|key| key.public.ends_with(&ending))
    }
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
        let key = arrived.rsa_key("root@vm1").unwrap();
        assert_eq!(key.fingerprint, prepared.rsa_key.unwrap().fingerprint);
        assert!(arrived.rsa_key("root@vm").is_none(), "another host's comment");
    }

    #[test]
    fn nothing_is_prepared_that_will_not_be_used() {
        let mut plan = Plan::default();
        plan.properties.set("EXCLUDE_TASK_DeleteSSHKeys", "yes");
        assert!(prepare(&plan, "vm1", &Entropy::seeded(1)).rsa_key.is_none());
        let mut plan = Plan {
            passwords: vec![(Who::Default, Password::Clear(Secret::new("secret")))],
            ..Plan::default()
        };
        plan.properties.set("OSFAMILY", "windows");
        let prepared = prepare(&plan, "vm1", &Entropy::seeded(1));
        assert!(prepared.rsa_key.is_none() && prepared.password_hashes.is_empty());
    }

    #[test]
    fn junk_in_the_rules_is_left_out() {
        let mut rules = Rules::default();
        rules.set_array(RSA_KEY, ["x", "ssh-rsa x\n", "SHA256:x"]).unwrap();
        assert!(Prepared::read(&rules).rsa_key.is_none());
        rules.set(RSA_KEY, "one").unwrap();
        assert!(Prepared::read(&rules).rsa_key.is_none());
    }
}
