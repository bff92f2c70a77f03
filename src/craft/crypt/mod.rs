//! crypt(3): password hashes as `/etc/shadow` holds them.
//!
//! The strings are those of libxcrypt, byte for byte: the tests compare with the machine's own
//! crypt(3) in both directions.

mod base64;
mod blowfish;
mod md5;
mod sha1;
mod sha2;
mod yescrypt;

use zeroize::Zeroizing;

use crate::craft::random::Entropy;
use crate::craft::secret::Secret;

/// How a password is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// `$y$`: the default of Debian 11, Ubuntu 22.04, Fedora 35 and later.
    Yescrypt,
    /// `$6$`: what every Linux and FreeBSD takes.
    Sha512,
    /// `$5$`.
    Sha256,
    /// `$2b$`: OpenBSD's own.
    Blowfish,
    /// `$sha1$`: NetBSD's own.
    Sha1,
    /// `$1$`: for systems that know nothing better.
    Md5,
}

impl Method {
    /// Every method, the strongest first.
    pub const ALL: [Self; 6] =
        [Self::Yescrypt, Self::Sha512, Self::Sha256, Self::Blowfish, Self::Sha1, Self::Md5];

    /// The name that the property `PASSWD_HASHING_METHOD` uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Yescrypt => "yescrypt",
            Self::Sha512 => "sha512",
            Self::Sha256 => "sha256",
            Self::Blowfish => "blowfish",
            Self::Sha1 => "sha1",
            Self::Md5 => "md5",
        }
    }

    /// The method of a name: that of the property in any case, and the spellings of login.defs
    /// and PAM (`SHA512`, `BCRYPT`).
    pub fn from_name(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("bcrypt") {
            return Some(Self::Blowfish);
        }
        Self::ALL.into_iter().find(|method| method.name().eq_ignore_ascii_case(name))
    }

    /// The prefix of hashes of this method.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Yescrypt => "$y$",
            Self::Sha512 => "$6$",
            Self::Sha256 => "$5$",
            Self::Blowfish => "$2b$",
            Self::Sha1 => "$sha1$",
            Self::Md5 => "$1$",
        }
    }
}

impl Method {
    /// The hash by this method for the user of this place, of hashes for several users by several
    /// methods.
    pub fn pick(self, hashes: &[Secret], place: usize) -> Option<&Secret> {
        let prefix = self.prefix().as_bytes();
        hashes.iter().filter(|hash| hash.expose().starts_with(prefix)).nth(place)
    }
}

/// Why a password cannot be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptError {
    /// No login program can send one.
    #[error("the password is empty; give one, or a hash of `!` to lock the account")]
    Empty,
    /// crypt(3) takes a C string.
    #[error("the password holds a NUL byte, which no login program can send; choose another")]
    Nul,
    /// libxcrypt refuses it.
    #[error(
        "the password has {0} bytes and {1} takes {2} at most; choose a shorter one or another PASSWD_HASHING_METHOD"
    )]
    TooLong(usize, &'static str, usize),
    /// The hash function itself gave up.
    #[error("{0} cannot be computed with these parameters")]
    Internal(&'static str),
}

/// The longest password that libxcrypt takes (its buffer less the NUL).
const LONGEST: usize = 511;

/// Whether a method takes a password.
///
/// # Errors
///
/// It is empty, holds a NUL byte, or is longer than the method reads.
pub fn check(method: Method, password: &Secret) -> Result<(), CryptError> {
    let password = password.expose();
    if password.is_empty() {
        return Err(CryptError::Empty);
    }
    if password.contains(&0) {
        return Err(CryptError::Nul);
    }
    let longest = if method == Method::Blowfish { blowfish::LONGEST } else { LONGEST };
    if password.len() > longest {
        return Err(CryptError::TooLong(password.len(), method.name(), longest));
    }
    Ok(())
}

/// Hashes `password` with a fresh random salt, at the cost that the systems using the method have
/// by default.
///
/// # Errors
///
/// Those of [`check`].
pub fn hash(
    method: Method,
    password: &Secret,
    entropy: &mut Entropy,
) -> Result<Secret, CryptError> {
    check(method, password)?;
    let password = password.expose();
    let text: Zeroizing<String> = match method {
        Method::Yescrypt => yescrypt::hash(password, &entropy.bytes())?,
        Method::Sha512 => sha2::sha512(password, salt(entropy, 16).as_bytes()),
        Method::Sha256 => sha2::sha256(password, salt(entropy, 16).as_bytes()),
        Method::Blowfish => blowfish::hash(password, entropy.bytes(), blowfish::COST),
        Method::Sha1 => sha1::hash(password, &salt(entropy, 8), sha1::ITERATIONS)?,
        Method::Md5 => md5::hash(password, &salt(entropy, 8)),
    };
    Ok(Secret::new(text.as_bytes()))
}

/// Whether `existing` is what [`hash`] makes of this password with the salt of `existing`. A hash
/// of another method or cost is not: it would be made anew. (The image chooses `existing`; so no
/// cost but ours is ever paid.)
pub fn is_hash_of(method: Method, password: &Secret, existing: &[u8]) -> bool {
    let password = password.expose();
    let Ok(existing) = std::str::from_utf8(existing) else { return false };
    let Some(rest) = existing.strip_prefix(method.prefix()) else { return false };
    if password.is_empty() || password.contains(&0) || password.len() > LONGEST {
        return false;
    }
    let in_alphabet = |text: &str| text.bytes().all(|byte| base64::CRYPT.contains(&byte));
    let mut fields = rest.split('$');
    let salt = match method {
        Method::Yescrypt if fields.next() == Some(yescrypt::PARAMS) => fields.next(),
        Method::Sha512 | Method::Sha256 => fields.next(),
        _ => None,
    };
    let Some(salt) = salt.filter(|salt| !salt.is_empty() && in_alphabet(salt)) else {
        return false;
    };
    let again = match method {
        Method::Sha512 if salt.len() <= 16 => sha2::sha512(password, salt.as_bytes()),
        Method::Sha256 if salt.len() <= 16 => sha2::sha256(password, salt.as_bytes()),
        Method::Yescrypt => {
            let Some(salt) = base64::bytes(salt) else { return false };
            match yescrypt::hash(password, &salt) {
                Ok(again) => again,
                Err(_) => return false,
            }
        }
        _ => return false,
    };
    *again == existing
}

fn salt(entropy: &mut Entropy, length: usize) -> Zeroizing<String> {
    entropy.text(base64::CRYPT, length)
}

/// Whether a string can stand in the hash field of a shadow file and mean something to crypt(3):
/// `$id$…`, a traditional DES or BSDi hash, or one of the marks of a locked account (`*`, `!`, or
/// a hash after `!`). A clear-text password given by mistake is told apart in nearly all cases.
pub fn looks_like_crypt(hash: &str) -> bool {
    let printable = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    if hash.is_empty() || hash.len() > 384 || !hash.bytes().all(printable) {
        return false;
    }
    if let Some(rest) = hash.strip_prefix('!') {
        return rest.is_empty()
            || rest == "!"
            || rest == "*"
            || rest == "unprovisioned"
            || looks_like_crypt(rest);
    }
    let in_alphabet = |text: &str| text.bytes().all(|byte| base64::CRYPT.contains(&byte));
    match hash.strip_prefix('$') {
        Some(rest) => {
            let mut fields = rest.split('$');
            let id = fields.next().unwrap_or_default();
            !id.is_empty()
                && id.len() <= 12
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && fields.clone().count() >= 2
                && fields.next_back().is_some_and(|digest| digest.len() >= 13)
        }
        None if hash == "*" => true,
        None if hash.starts_with('_') => hash.len() == 20 && in_alphabet(&hash[1..]),
        None => hash.len() == 13 && in_alphabet(hash),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for method in Method::ALL {
            assert_eq!(Method::from_name(method.name()), Some(method));
            assert_eq!(Method::from_name(&method.name().to_uppercase()), Some(method));
        }
        assert_eq!(Method::from_name("des"), None);
    }

    #[test]
    fn every_method_makes_what_it_recognises() {
        let mut entropy = Entropy::seeded(3);
        for method in Method::ALL {
            let hash = hash(method, &Secret::new("correct horse"), &mut entropy).unwrap();
            let text = std::str::from_utf8(hash.expose()).unwrap();
            assert!(looks_like_crypt(text), "{text}");
            assert!(looks_like_crypt(&format!("!{text}")), "{text}");
        }
    }

    #[test]
    fn a_hash_is_known_again() {
        let mut entropy = Entropy::seeded(4);
        let password = Secret::new("correct horse");
        for method in [Method::Yescrypt, Method::Sha512, Method::Sha256] {
            let hash = hash(method, &password, &mut entropy).unwrap();
            assert!(is_hash_of(method, &password, hash.expose()));
            assert!(!is_hash_of(method, &Secret::new("wrong"), hash.expose()));
            let other = if method == Method::Sha512 { Method::Sha256 } else { Method::Sha512 };
            assert!(!is_hash_of(other, &password, hash.expose()));
            let locked = [b"!", hash.expose()].concat();
            assert!(!is_hash_of(method, &password, &locked));
        }
        for odd in ["", "$6$", "$6$rounds=999999999$salt$x", "$y$jFT$abc$x", "$y$j9T$!$x", "*"] {
            for method in Method::ALL {
                assert!(!is_hash_of(method, &password, odd.as_bytes()), "{odd}");
            }
        }
    }

    #[test]
    fn refuses_what_crypt_cannot_take() {
        let mut entropy = Entropy::seeded(3);
        let mut try_it = |method, text: &[u8]| hash(method, &Secret::new(text), &mut entropy).err();
        assert_eq!(try_it(Method::Sha512, b""), Some(CryptError::Empty));
        assert_eq!(try_it(Method::Sha512, b"a\0b"), Some(CryptError::Nul));
        assert_eq!(
            try_it(Method::Sha512, &[b'a'; 512]),
            Some(CryptError::TooLong(512, "sha512", 511))
        );
        assert_eq!(
            try_it(Method::Blowfish, &[b'a'; 73]),
            Some(CryptError::TooLong(73, "blowfish", 72))
        );
    }

    #[test]
    fn given_hashes() {
        for good in [
            "*",
            "!",
            "!!",
            "!*",
            "$1$abc$0123456789012345678901",
            "$6$rounds=10000$salt$0123456789012345678901",
            "$2b$10$0123456789012345678901012345678901234567890123456789012",
            "ab01234567890",
            "_J9..rasmBYk8r9AiWNc",
        ] {
            assert!(looks_like_crypt(good), "{good}");
        }
        for bad in [
            "",
            "secret",
            "a:b",
            "$6$sa:lt$0123456789012345678901",
            "$6$salt$01234567890123456789\n",
            "$6$salt",
            "$$salt$0123456789012345678901",
            "with a blank $6$",
            "\u{e9}$6$salt$0123456789012345678901",
        ] {
            assert!(!looks_like_crypt(bad), "{bad}");
        }
    }
}
