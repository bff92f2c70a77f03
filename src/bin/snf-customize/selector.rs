//! The values of options: where passwords, keys and contents come from.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use snf_image::crypt;
use snf_image::personality;
use snf_image::plan::Password;
use snf_image::random::Entropy;
use snf_image::secret::Secret;
use zeroize::Zeroizing;

use crate::exit::Failure;
use crate::terminal;

/// A password file longer than this holds no password.
const PASSWORD_FILE_MAX: u64 = 4096;

/// The letters and digits of random passwords: none that is taken for another.
const ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// 20 of 56 characters: 116 bits.
const RANDOM_LENGTH: usize = 20;

/// The source of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    File(PathBuf),
    Stdin,
    Prompt,
    Random,
    Hash(String),
}

impl Selector {
    /// Parses the value of `option`. What does not parse is not repeated: it may be a password.
    pub(crate) fn parse(text: &str, option: &str) -> Result<Self, Failure> {
        match text {
            "stdin" => return Ok(Self::Stdin),
            "prompt" => return Ok(Self::Prompt),
            "random" => return Ok(Self::Random),
            _ => {}
        }
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("hash", hash)) if crypt::looks_like_crypt(hash) => {
                Ok(Self::Hash(hash.to_owned()))
            }
            Some(("hash", _)) => Err(Failure::usage(format!(
                "{option}: the text after hash: is not a crypt(3) hash such as $6$SALT$HASH (quote the $ from the shell); mkpasswd(1) makes one"
            ))),
            _ => Err(Failure::usage(format!(
                "{option}: a password is given as file:PATH, stdin, prompt, random or hash:CRYPT, never as itself"
            ))),
        }
    }

    /// The password, and for a random one its text, to be shown when all is done.
    pub(crate) fn resolve(
        &self,
        user: &str,
        inputs: &mut Inputs,
        entropy: &mut Entropy,
    ) -> Result<(Password, Option<Zeroizing<String>>), Failure> {
        let secret = match self {
            Self::Hash(hash) => return Ok((Password::Hash(Secret::new(hash.as_str())), None)),
            Self::Random => {
                let text = entropy.text(ALPHABET, RANDOM_LENGTH);
                return Ok((Password::Clear(Secret::new(text.as_bytes())), Some(text)));
            }
            Self::File(path) => inputs.password_file(path)?,
            Self::Stdin => inputs.stdin_line(user)?,
            Self::Prompt => terminal::ask_twice(&format!("New password for {user}"))?,
        };
        if secret.expose().is_empty() {
            return Err(Failure::input(format!(
                "the password for {user} is empty; to lock the account use hash:!"
            )));
        }
        if secret.expose().contains(&0) {
            return Err(Failure::input(format!(
                "the password for {user} holds a NUL byte, which no login program can send"
            )));
        }
        Ok((Password::Clear(secret), None))
    }
}

/// The inputs read so far, and the warnings about them.
#[derive(Default)]
pub(crate) struct Inputs {
    /// Warnings about the files.
    pub(crate) warnings: Vec<String>,
    stdin: Option<io::BufReader<io::Stdin>>,
}

impl Inputs {
    /// A passphrase that exists already: asked for once, and any text but an empty one is good.
    pub(crate) fn passphrase(&mut self, from: &Selector, whose: &str) -> Result<Secret, Failure> {
        match from {
            Selector::File(path) => self.password_file(path),
            Selector::Stdin if !rustix::termios::isatty(io::stdin()) => self.stdin_line(whose),
            _ => terminal::ask_once(&format!("Passphrase of {whose}")),
        }
    }

    fn password_file(&mut self, path: &Path) -> Result<Secret, Failure> {
        let (bytes, mode) = read_file(path, PASSWORD_FILE_MAX, "password")?;
        if mode.is_some_and(|mode| mode & 0o004 != 0) {
            self.warnings.push(format!(
                "every user of this machine can read the password file {}; chmod 600 it",
                path.display()
            ));
        }
        Ok(Secret::new(strip_newline(&bytes)))
    }

    fn stdin_line(&mut self, user: &str) -> Result<Secret, Failure> {
        // Typed passwords are not to be seen.
        if rustix::termios::isatty(io::stdin()) {
            return terminal::ask_twice(&format!("New password for {user}"));
        }
        let reader = self.stdin.get_or_insert_with(|| io::BufReader::new(io::stdin()));
        let mut line = Zeroizing::new(Vec::with_capacity(PASSWORD_FILE_MAX as usize + 1));
        reader
            .take(PASSWORD_FILE_MAX + 1)
            .read_until(b'\n', &mut line)
            .map_err(|error| Failure::input(format!("cannot read standard input: {error}")))?;
        if line.is_empty() {
            return Err(Failure::input(format!(
                "standard input ends before the line with the password for {user}"
            )));
        }
        if line.len() as u64 > PASSWORD_FILE_MAX {
            return Err(Failure::input(format!(
                "the line of standard input with the password for {user} has more than {PASSWORD_FILE_MAX} bytes"
            )));
        }
        Ok(Secret::new(strip_newline(&line)))
    }
}

fn strip_newline(bytes: &[u8]) -> &[u8] {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Reads a file of at most `most` bytes: its bytes, and for a regular file its mode.
pub(crate) fn read_file(
    path: &Path,
    most: u64,
    what: &str,
) -> Result<(Zeroizing<Vec<u8>>, Option<u32>), Failure> {
    let fail = |problem: String| {
        Failure::input(format!("cannot use {what} file {}: {problem}", path.display()))
    };
    let io = |error: io::Error| fail(io_problem(&error));
    let mut file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if metadata.is_dir() {
        return Err(fail("it is a directory".to_owned()));
    }
    if metadata.len() > most {
        return Err(fail(format!(
            "it has {} bytes; {most} is the most that is taken",
            metadata.len()
        )));
    }
    // Room for all of it, so that growing leaves no copies of secrets behind.
    let room = if metadata.is_file() { metadata.len() + 1 } else { PASSWORD_FILE_MAX + 1 };
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or(0)));
    file.by_ref().take(most + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > most {
        return Err(fail(format!("it has more than {most} bytes")));
    }
    Ok((bytes, metadata.is_file().then(|| metadata.mode())))
}

/// An error of the operating system without its number.
pub(crate) fn io_problem(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_ascii_lowercase(),
        None => text,
    }
}

/// `USER:file:PATH`.
pub(crate) fn user_and_file(text: &str, option: &str) -> Result<(String, PathBuf), Failure> {
    match text.split_once(':') {
        Some((user, rest)) if !user.is_empty() => match rest.strip_prefix("file:") {
            Some(path) if !path.is_empty() => Ok((user.to_owned(), path.into())),
            _ => Err(Failure::usage(format!(
                "{option}: after '{user}:' the key is given as file:PATH"
            ))),
        },
        _ => Err(Failure::usage(format!("{option}: the value is not of the form USER:file:PATH"))),
    }
}

/// `NAME:SELECTOR`.
pub(crate) fn user_and_selector(text: &str, option: &str) -> Result<(String, Selector), Failure> {
    match text.split_once(':') {
        Some((user, selector)) if !user.is_empty() => {
            let option = format!("{option} {user}");
            Ok((user.to_owned(), Selector::parse(selector, &option)?))
        }
        _ => Err(Failure::usage(format!(
            "{option}: the value is not of the form NAME:SELECTOR (such as {}:prompt)",
            if text.contains(':') { "user" } else { "NAME" }
        ))),
    }
}

/// A `--write`: where to, where from, and what is said of owner, group and mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WriteSpec {
    pub(crate) guest_path: String,
    pub(crate) source: PathBuf,
    pub(crate) owner: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) mode: Option<u16>,
}

impl WriteSpec {
    /// Parses `GUESTPATH:file:PATH[:owner=…,group=…,mode=…]`.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let fail = |problem: String| Failure::usage(format!("--write: {problem}"));
        let Some((guest_path, rest)) = text.split_once(":file:") else {
            return Err(fail(format!(
                "'{text}' is not of the form GUESTPATH:file:PATH[:owner=...,group=...,mode=...]"
            )));
        };
        if let Err(problem) = personality::check_path(guest_path) {
            return Err(fail(format!("the guest path '{guest_path}' {problem}")));
        }
        let mut spec = Self {
            guest_path: guest_path.to_owned(),
            source: rest.into(),
            owner: None,
            group: None,
            mode: None,
        };
        // A path may hold colons: only what begins like an attribute ends it.
        if let Some((path, attributes)) = rest.rsplit_once(':')
            && ["owner=", "group=", "mode="].iter().any(|name| attributes.starts_with(name))
        {
            spec.source = path.into();
            for attribute in attributes.split(',') {
                spec.attribute(attribute).map_err(|p| fail(format!("{guest_path}: {p}")))?;
            }
        }
        if spec.source.as_os_str().is_empty() {
            return Err(fail(format!("{guest_path}: the path after file: is empty")));
        }
        Ok(spec)
    }

    fn attribute(&mut self, attribute: &str) -> Result<(), String> {
        let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        match name {
            "owner" | "group" => {
                personality::check_name(value).map_err(|problem| format!("{name} {problem}"))?;
                let place = if name == "owner" { &mut self.owner } else { &mut self.group };
                *place = Some(value.to_owned());
            }
            "mode" => match u16::from_str_radix(value, 8) {
                Ok(mode) if mode <= 0o7777 => self.mode = Some(mode),
                _ => {
                    return Err(format!(
                        "mode '{value}' is not an octal number up to 7777 (such as 0644)"
                    ));
                }
            },
            _ => {
                return Err(format!("'{name}' is no attribute; valid are owner, group and mode"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        let parse = |text| Selector::parse(text, "--root-password");
        assert_eq!(parse("file:/a b:c").unwrap(), Selector::File("/a b:c".into()));
        assert_eq!(parse("stdin").unwrap(), Selector::Stdin);
        assert_eq!(parse("hash:!").unwrap(), Selector::Hash("!".into()));
        for bad in ["hunter2", "file:", "hash:hunter2", "password:hunter2", "", "Stdin"] {
            let message = parse(bad).unwrap_err().message;
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn users_with_selectors() {
        let parse = |text| user_and_selector(text, "--user-password");
        assert_eq!(parse("me:stdin").unwrap(), ("me".to_owned(), Selector::Stdin));
        assert!(parse("stdin").is_err());
        assert!(parse(":stdin").is_err());
        assert!(!parse("me:hunter2").unwrap_err().message.contains("hunter2"));
    }

    #[test]
    fn writes() {
        let spec = WriteSpec::parse("/a b:file:/x:y:owner=me,mode=4755,group=7").unwrap();
        assert_eq!(spec.guest_path, "/a b");
        assert_eq!(spec.source, PathBuf::from("/x:y"));
        assert_eq!(spec.owner.as_deref(), Some("me"));
        assert_eq!(spec.group.as_deref(), Some("7"));
        assert_eq!(spec.mode, Some(0o4755));
        let plain = WriteSpec::parse("/a:file:b:c").unwrap();
        assert_eq!(plain.source, PathBuf::from("b:c"));
        assert_eq!(plain.mode, None);
        for bad in [
            "/a",
            "a:file:b",
            "/a:file:",
            "/a/:file:b",
            "/a:file:b:mode=9",
            "/a:file:b:mode=17777",
            "/a:file:b:owner=",
            "/a:file:b:owner=x,colour=red",
        ] {
            let message = WriteSpec::parse(bad).unwrap_err().message;
            assert!(message.starts_with("--write: "), "{bad}: {message}");
        }
    }

    #[test]
    fn newlines_at_the_end() {
        assert_eq!(strip_newline(b"a\n"), b"a");
        assert_eq!(strip_newline(b"a\r\n"), b"a");
        assert_eq!(strip_newline(b"a\n\n"), b"a\n");
        assert_eq!(strip_newline(b" a "), b" a ");
    }
}
