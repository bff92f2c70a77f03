//! The values of options: where passwords, keys and contents come from.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use snf_image::crypt;
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
    /// Parses the value of `option`. A text that does not parse is not repeated: it may be a password.
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
    /// Whether a plan was standard input.
    stdin_taken: bool,
}

impl Inputs {
    /// Nothing read so far, but perhaps standard input, which was a plan.
    pub(crate) fn new(stdin_taken: bool) -> Self {
        Self { stdin_taken, ..Self::default() }
    }

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
        let line = strip_newline(&bytes);
        if line.contains(&b'\n') {
            return Err(Failure::input(format!(
                "cannot use password file {}: it has more than one line",
                path.display()
            )));
        }
        Ok(Secret::new(line))
    }

    /// Says that standard input has lines that nothing asked for, as far as they came along with the last
    /// one that was read: one that stays open is not waited for.
    pub(crate) fn end(&mut self) {
        let rest = self.stdin.as_ref().map(|reader| reader.buffer().trim_ascii());
        if rest.is_some_and(|rest| !rest.is_empty()) {
            self.warnings.push(
                "standard input has more lines than there are options that read one (stdin); the rest is \
                 not used"
                    .to_owned(),
            );
        }
    }

    fn stdin_line(&mut self, user: &str) -> Result<Secret, Failure> {
        if self.stdin_taken {
            return Err(Failure::usage(format!(
                "standard input is the plan (--file -), so that no password for {user} can come from \
                 it; use file:PATH or prompt"
            )));
        }
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
    fn newlines_at_the_end() {
        assert_eq!(strip_newline(b"a\n"), b"a");
        assert_eq!(strip_newline(b"a\r\n"), b"a");
        assert_eq!(strip_newline(b"a\n\n"), b"a\n");
        assert_eq!(strip_newline(b" a "), b" a ");
    }
}
