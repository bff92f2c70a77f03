//! Clear passwords stay outside the helper VM where the guest does not need them. A Windows does:
//! its answer file holds the password itself. Every other guest gets hashes, made before the VM
//! starts. The method that the image wants is not known yet, so there is one hash by each method
//! that it may ask for.

use crate::ask::plan::{Password, Plan, Who};
use crate::ask::properties::{OsFamily, Properties, PropertyError};
use crate::craft::crypt::{self, CryptError, Method};
use crate::craft::random::Entropy;
use crate::craft::secret::Secret;

/// Why a password cannot be hashed for the guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// A property that says what is hashed, and how.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// No method takes the password.
    #[error("the password of {user} cannot be set")]
    Crypt {
        /// The user.
        user: String,
        /// The reason.
        source: CryptError,
    },
}

/// Whether the guest needs the passwords themselves: the properties say that it is a Windows.
///
/// # Errors
///
/// `OSFAMILY` is none of the known ones.
pub fn needs_clear_text(properties: &Properties) -> Result<bool, PropertyError> {
    Ok(properties.os_family()?.is_some_and(OsFamily::is_windows))
}

/// The methods that a guest may ask for: the one that a property names, else those that the
/// systems of its family use.
fn methods(properties: &Properties) -> Result<Vec<Method>, PropertyError> {
    if let Some(method) = properties.hashing_method()? {
        return Ok(vec![method]);
    }
    Ok(match properties.os_family()? {
        Some(OsFamily::FreeBsd) => vec![Method::Sha512, Method::Blowfish],
        Some(OsFamily::NetBsd) => vec![Method::Sha512, Method::Sha1, Method::Blowfish],
        Some(OsFamily::OpenBsd) => vec![Method::Blowfish],
        _ => vec![Method::Yescrypt, Method::Sha512, Method::Sha256, Method::Blowfish],
    })
}

/// The methods that take the password; a few read fewer bytes than others.
fn usable(methods: &[Method], clear: &Secret) -> Result<Vec<Method>, CryptError> {
    let mut refused = None;
    let mut usable = methods.to_vec();
    usable.retain(|method| match crypt::check(*method, clear) {
        Ok(()) => true,
        Err(error) => {
            refused.get_or_insert(error);
            false
        }
    });
    match refused {
        Some(error) if usable.is_empty() => Err(error),
        _ => Ok(usable),
    }
}

fn each_clear(plan: &Plan) -> impl Iterator<Item = (&Who, &Secret)> {
    plan.passwords.iter().filter_map(|(who, password)| match password {
        Password::Clear(clear) => Some((who, clear)),
        Password::Hash(_) | Password::Hashes(_) => None,
    })
}

/// Finds what [`hash`] would fail of, without the time that hashing takes.
///
/// # Errors
///
/// A property or a password that cannot be used.
pub fn check(plan: &Plan) -> Result<(), PasswordError> {
    if needs_clear_text(&plan.properties)? {
        return Ok(());
    }
    let methods = methods(&plan.properties)?;
    for (who, clear) in each_clear(plan) {
        let users = who.users(&plan.properties)?;
        let fail = |source| PasswordError::Crypt { user: users.join(", "), source };
        usable(&methods, clear).map_err(fail)?;
    }
    Ok(())
}

/// Puts hashes into the place of clear passwords, unless the guest needs these. The salts are those
/// that a run without the VM would have with the same `entropy`.
///
/// # Errors
///
/// A property or a password that cannot be used.
pub fn hash(plan: &mut Plan, entropy: &Entropy) -> Result<(), PasswordError> {
    if needs_clear_text(&plan.properties)? {
        return Ok(());
    }
    let methods = methods(&plan.properties)?;
    for (who, password) in &mut plan.passwords {
        let Password::Clear(clear) = password else { continue };
        let mut hashes = Vec::new();
        for user in who.users(&plan.properties)? {
            let fail = |source| PasswordError::Crypt { user: user.to_owned(), source };
            for method in usable(&methods, clear).map_err(fail)? {
                let mut salt = entropy.derive(&format!("salt {user}"));
                hashes.push(crypt::hash(method, clear, &mut salt).map_err(fail)?);
            }
        }
        *password = Password::Hashes(hashes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::rules::Rules;

    fn plan(password: &str, properties: &[(&str, &str)]) -> Plan {
        let mut plan = Plan {
            passwords: vec![(Who::Default, Password::Clear(Secret::new(password)))],
            ..Plan::default()
        };
        for (name, value) in properties {
            plan.properties.set(name, *value);
        }
        plan
    }

    fn hashes(plan: &Plan) -> &[Secret] {
        let [(_, Password::Hashes(hashes))] = &plan.passwords[..] else { panic!("{plan:?}") };
        hashes
    }

    #[test]
    fn the_rules_have_hashes_and_no_clear_text() {
        let mut plan = plan("hunter2", &[("USERS", "root ann")]);
        check(&plan).unwrap();
        let mut rules = Rules::default();
        rules.set("TYPE", "diskdump").unwrap();
        rules.set("PROPERTIES", r#"{"USERS":"root ann"}"#).unwrap();
        rules.set("PASSWD", "hunter2").unwrap();
        hash(&mut plan, &Entropy::seeded(1)).unwrap();
        rules.set_hashes(hashes(&plan)).unwrap();
        let text = rules.write();
        assert!(!text.expose().windows(7).any(|window| window == b"hunter2"));
        let arrived = Rules::parse(text.expose()).unwrap().plan().unwrap();
        assert_eq!(hashes(&arrived), hashes(&plan));
        for method in [Method::Yescrypt, Method::Sha512, Method::Sha256, Method::Blowfish] {
            let of = |user| method.pick(hashes(&arrived), user).unwrap();
            assert_ne!(of(0), of(1), "each user has a salt of its own");
            assert!(method.pick(hashes(&arrived), 2).is_none());
        }
        assert!(rules.text("PASSWD_HASH").unwrap().starts_with("$6$"));
    }

    #[test]
    fn only_a_windows_gets_clear_text() {
        for family in OsFamily::ALL {
            let mut plan = plan("hunter2", &[("OSFAMILY", family.name())]);
            hash(&mut plan, &Entropy::seeded(1)).unwrap();
            let clear = matches!(plan.passwords[0].1, Password::Clear(_));
            assert_eq!(clear, family.is_windows(), "{}", family.name());
        }
        let mut plan = plan("hunter2", &[("PASSWD_HASHING_METHOD", "md5")]);
        hash(&mut plan, &Entropy::seeded(1)).unwrap();
        assert!(Method::Md5.pick(hashes(&plan), 0).is_some() && hashes(&plan).len() == 1);
    }

    #[test]
    fn long_passwords() {
        // bcrypt would read 72 bytes of it; the others are there.
        let mut long = plan(&"x".repeat(100), &[]);
        check(&long).unwrap();
        hash(&mut long, &Entropy::seeded(1)).unwrap();
        assert!(Method::Blowfish.pick(hashes(&long), 0).is_none());
        assert!(Method::Sha512.pick(hashes(&long), 0).is_some());
        let mut longer = plan(&"x".repeat(600), &[]);
        let error = check(&longer).unwrap_err();
        assert!(matches!(error, PasswordError::Crypt { .. }), "{error}");
        assert_eq!(hash(&mut longer, &Entropy::seeded(1)), Err(error));
    }
}
