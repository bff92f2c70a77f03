//! `--luks-key`: the keys of encrypted containers.

use std::path::{Path, PathBuf};

use snf_image::ask::luks_key::LuksKey;
use snf_image::secret::Secret;

use crate::exit::Failure;
use crate::selector::{Inputs, Selector, read_file};

/// A key file is read up to this size, as cryptsetup does.
const KEY_FILE_MAX: u64 = 8 << 20;

/// A key before it is read: the container that it is for, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeySpec {
    target: String,
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// A passphrase.
    Passphrase(Selector),
    /// All bytes of a file.
    KeyFile(PathBuf),
}

impl KeySpec {
    /// Parses every `CONTAINER:SELECTOR`. A text that does not parse is not repeated: it may be a
    /// passphrase.
    pub(crate) fn parse_all(texts: &[String]) -> Result<Vec<Self>, Failure> {
        texts.iter().map(|text| Self::parse(text)).collect()
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let Some((target, selector)) = text.split_once(':').filter(|(t, _)| !t.is_empty()) else {
            return Err(Failure::usage(
                "--luks-key: the value is not of the form CONTAINER:SELECTOR (such as 2:prompt)",
            ));
        };
        let source = match selector.strip_prefix("key-file:") {
            Some(path) if !path.is_empty() => Source::KeyFile(path.into()),
            _ => match Selector::parse(selector, "--luks-key") {
                Ok(passphrase @ (Selector::File(_) | Selector::Stdin | Selector::Prompt)) => {
                    Source::Passphrase(passphrase)
                }
                _ => {
                    return Err(Failure::usage(format!(
                        "--luks-key {target}: a key is given as file:PATH, stdin, prompt or \
                         key-file:PATH, never as itself"
                    )));
                }
            },
        };
        Ok(Self { target: target.to_owned(), source })
    }

    /// Reads the keys and asks for them.
    pub(crate) fn read_all(specs: &[Self], inputs: &mut Inputs) -> Result<Vec<LuksKey>, Failure> {
        let keys = specs.iter().map(|spec| spec.read(inputs)).collect();
        inputs.end();
        keys
    }

    /// Reads the key, or asks for it.
    pub(crate) fn read(&self, inputs: &mut Inputs) -> Result<LuksKey, Failure> {
        let whose = format!("LUKS container {}", self.target);
        let secret = match &self.source {
            Source::Passphrase(selector) => inputs.passphrase(selector, &whose)?,
            Source::KeyFile(path) => key_file(path)?,
        };
        if secret.expose().is_empty() {
            return Err(Failure::input(format!("the key of {whose} is empty")));
        }
        Ok(LuksKey { target: self.target.clone(), secret })
    }
}

fn key_file(path: &Path) -> Result<Secret, Failure> {
    let (bytes, _) = read_file(path, KEY_FILE_MAX, "key")?;
    Ok(Secret::new(std::mem::take(&mut *{ bytes })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications() {
        let parse = |text: &str| KeySpec::parse_all(&[text.to_owned()]);
        let spec = parse("2:prompt").unwrap().remove(0);
        assert_eq!(
            (spec.target.as_str(), spec.source),
            ("2", Source::Passphrase(Selector::Prompt))
        );
        let spec = parse("rl/data:key-file:/k:1").unwrap().remove(0);
        assert_eq!(spec.source, Source::KeyFile("/k:1".into()));
        for bad in ["hunter2", ":prompt", "2:hunter2", "2:random", "2:hash:!", "2:key-file:", "2:"]
        {
            let message = parse(bad).unwrap_err().message;
            assert!(message.starts_with("--luks-key"), "{bad}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
