//! Secrets in texts, masked by where they stand (the field of a hash, the body of a key, the value of a
//! password) and not by their text: a mask over a common word would say what the word is. They are masked by number: the same secret has the same number in the whole diff, so that a
//! change shows and the secret does not.

use std::collections::BTreeMap;

use regex_lite::{Captures, Regex};

use crate::craft::secret::Secret;

/// A text between quotes, or up to a blank or a sign that ends a value.
const VALUE: &str = r#""[^"]*"|'[^']*'|[^\s,;<]+"#;
/// Words that are settings and no secrets.
const SETTINGS: &[&str] = &[
    "yes",
    "no",
    "true",
    "false",
    "on",
    "off",
    "none",
    "null",
    "x",
    "*",
    "!",
    "!!",
    "!*",
    "files",
    "compat",
    "required",
    "requisite",
    "sufficient",
    "optional",
    "include",
    "[",
    "{",
    "|",
    ">",
];

/// Replaces secrets in texts.
pub(super) struct Masks {
    /// The number of each secret that was met.
    numbers: BTreeMap<String, usize>,
    /// Secrets that are known and stand nowhere by chance.
    known: Vec<String>,
    hash: Option<Regex>,
    pair: Option<Regex>,
    element: Option<Regex>,
}

impl Masks {
    /// With secrets that are known: the passwords of the request.
    pub(super) fn new(secrets: &[Secret]) -> Self {
        let texts = secrets.iter().filter_map(|secret| std::str::from_utf8(secret.expose()).ok());
        let mut known: Vec<String> =
            texts.filter(|text| is_telling(text)).map(str::to_owned).collect();
        // The longer first: it may hold the shorter.
        known.sort_by_key(|text| std::cmp::Reverse(text.len()));
        let pair = format!(
            r"(?i)([\w-]*(?:passw(?:or)?d|passphrase|psk|secret|token|product[-_]?key|private[-_]?key|api[-_]?key|wep[-_]?key)[\w-]*[\x22']?\s*[=:]\s*)({VALUE})"
        );
        Self {
            numbers: BTreeMap::new(),
            known,
            // The patterns are ours: they are right, and a test compiles them.
            hash: Regex::new(r"\$(?:1|2[abxy]?|5|6|7|y|gy|sha1|md5)[$,][./A-Za-z0-9$=,]{8,}").ok(),
            pair: Regex::new(&pair).ok(),
            element: Regex::new(r"(?is)(<(?:\w+:)?(?:Value|ProductKey|Key)\b[^>]*>)([^<]+)(</)")
                .ok(),
        }
    }

    fn mask(numbers: &mut BTreeMap<String, usize>, secret: &str) -> String {
        let next = numbers.len() + 1;
        let number = *numbers.entry(secret.to_owned()).or_insert(next);
        format!("[secret {number}]")
    }

    /// The text of a file without its secrets. `old` is its text before the run: a known secret that
    /// stood there already is no secret there.
    pub(super) fn text(&mut self, path: &[u8], text: &str, old: &str) -> String {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let accounts = matches!(
            name,
            b"shadow" | b"shadow-" | b"gshadow" | b"gshadow-" | b"passwd" | b"passwd-" | b"opasswd"
        );
        let mut out = String::with_capacity(text.len());
        let mut key = false;
        for line in text.split_inclusive('\n') {
            let (body, end) = match line.strip_suffix('\n') {
                Some(body) => (body, "\n"),
                None => (line, ""),
            };
            let begins = body.contains("-----BEGIN ") && body.contains("PRIVATE KEY");
            if body.contains("-----END ") {
                key = false;
            }
            if key {
                out.push_str(&Self::mask(&mut self.numbers, body));
            } else if accounts {
                out.push_str(&self.account(body));
            } else {
                out.push_str(body);
            }
            key |= begins;
            out.push_str(end);
        }
        // Old keys of a test or of another format have no such frame.
        if name.starts_with(b"ssh_host_")
            && name.ends_with(b"_key")
            && !text.contains("-----BEGIN ")
        {
            return Self::mask(&mut self.numbers, text) + "\n";
        }
        let numbers = &mut self.numbers;
        for secret in &self.known {
            if out.contains(secret) && !old.contains(secret) {
                out = out.replace(secret, &Self::mask(numbers, secret));
            }
        }
        if let Some(hash) = &self.hash {
            out = hash
                .replace_all(&out, |found: &Captures<'_>| Self::mask(numbers, &found[0]))
                .into();
        }
        if name != b"nsswitch.conf"
            && !path.starts_with(b"/etc/pam.d/")
            && let Some(pair) = &self.pair
        {
            let hide = |found: &Captures<'_>| {
                let value = &found[2];
                let bare = value.trim_matches(['"', '\'']);
                let plain = SETTINGS.contains(&bare.to_ascii_lowercase().as_str())
                    || bare.is_empty()
                    || bare.starts_with("[secret")
                    || bare.starts_with('/');
                let value = if plain { value.to_owned() } else { Self::mask(numbers, bare) };
                format!("{}{value}", &found[1])
            };
            out = pair.replace_all(&out, hide).into();
        }
        if text.contains("<unattend")
            && let Some(element) = &self.element
        {
            let hide = |found: &Captures<'_>| {
                format!("{}{}{}", &found[1], Self::mask(numbers, found[2].trim()), &found[3])
            };
            out = element.replace_all(&out, hide).into();
        }
        out
    }

    /// A line of passwd, shadow and their like: the second field is a password.
    fn account(&mut self, line: &str) -> String {
        let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        if let Some(field) = fields.get_mut(1) {
            let locks: String = field.chars().take_while(|c| "!*".contains(*c)).collect();
            let rest = &field[locks.len()..];
            if !rest.is_empty() && rest != "x" {
                *field = locks.clone() + &Self::mask(&mut self.numbers, rest);
            }
        }
        fields.join(":")
    }
}

/// Whether a secret is one that no text has by chance, so that a mask over it tells nobody what it is: a long
/// one, with letters and digits.
fn is_telling(secret: &str) -> bool {
    secret.len() >= 12
        && secret.contains(|c: char| c.is_ascii_digit())
        && secret.contains(char::is_alphabetic)
        && !secret.contains("secret")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mask over a common word would say what the password is.
    #[test]
    fn a_common_word_is_no_secret_elsewhere() {
        let words = ["root", "secret", "password", "1", "bin", "correct horse"];
        let secrets = words.map(Secret::new);
        let mut masks = Masks::new(&secrets);
        for word in words {
            let line = format!("{word}:$6$ab$cdefghijkl:20786:1:\n");
            assert_eq!(
                masks.text(b"/etc/shadow", &line, ""),
                format!("{word}:[secret 1]:20786:1:\n")
            );
            let line = format!("{word} /bin/{word} 1\n");
            assert_eq!(masks.text(b"/etc/x", &line, &line), line);
            assert_eq!(masks.text(b"/etc/x", &line, ""), line);
        }
        let mut masks = Masks::new(&[Secret::new("kX7mTq2WvR9pLs4NhYbZ")]);
        let line = "the key is kX7mTq2WvR9pLs4NhYbZ\n";
        assert_eq!(masks.text(b"/etc/x", line, ""), "the key is [secret 1]\n");
        assert_eq!(masks.text(b"/etc/x", line, line), line);
    }

    #[test]
    fn secrets_and_settings() {
        let mut masks = Masks::new(&[]);
        assert!(masks.hash.is_some() && masks.pair.is_some() && masks.element.is_some());
        for (path, text, shown) in [
            (
                "/etc/shadow",
                "a:$6$x$y:1\nb:!$6$x$y:1\nc:*:\n",
                "a:[secret 1]:1\nb:![secret 1]:1\nc:*:\n",
            ),
            ("/etc/passwd", "root:x:0:0::/:/bin/sh\n", "root:x:0:0::/:/bin/sh\n"),
            ("/etc/wpa.conf", "\tpsk=\"hunter2\"\n", "\tpsk=[secret 2]\n"),
            (
                "/x.yaml",
                "password: hunter2\nlock_passwd: true\n",
                "password: [secret 2]\nlock_passwd: true\n",
            ),
            ("/x.json", "{\"api_key\": \"hunter2\"}", "{\"api_key\": [secret 2]}"),
            (
                "/etc/ssh/sshd_config",
                "PasswordAuthentication yes\n",
                "PasswordAuthentication yes\n",
            ),
            ("/etc/nsswitch.conf", "passwd: files systemd\n", "passwd: files systemd\n"),
            ("/x", "hash $y$j9T$abcdefgh in a text", "hash [secret 3] in a text"),
            (
                "/k",
                "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
                "-----BEGIN OPENSSH PRIVATE KEY-----\n[secret 4]\n-----END OPENSSH PRIVATE KEY-----\n",
            ),
            ("/u.xml", "<unattend><Value>hunter2</Value>", "<unattend><Value>[secret 2]</Value>"),
        ] {
            assert_eq!(masks.text(path.as_bytes(), text, ""), shown, "{path}");
        }
    }
}
