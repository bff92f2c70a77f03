//! Checksums beside an image: `NAME.sha256`, or a line of `SHA256SUMS`.

use std::io::Read;
use std::path::Path;

use super::SourceError;
use super::id::{Checksum, hex};
use crate::image::local;
use crate::limits::SUMS_BYTES;

/// The checksum of the image `name`, when there is one beside it.
pub(crate) fn beside(image_dir: &Path, name: &str) -> Result<Option<Checksum>, SourceError> {
    let own = format!("{name}.sha256");
    if let Some(text) = read(image_dir, &own)? {
        // `sha256sum NAME >NAME.sha256` writes one line; some write the sum alone.
        let sum = text.split_whitespace().next().and_then(hex);
        return match sum {
            Some(sum) => Ok(Some(Checksum::Sha256(sum))),
            None => Err(SourceError::Bad {
                name: format!("{name:?}"),
                problem: format!("cannot be checked: {own:?} does not begin with a SHA-256 sum"),
            }),
        };
    }
    let (dir, file) = name.rsplit_once('/').map_or(("", name), |(dir, file)| (dir, file));
    let list = if dir.is_empty() { "SHA256SUMS".into() } else { format!("{dir}/SHA256SUMS") };
    let Some(text) = read(image_dir, &list)? else { return Ok(None) };
    for line in text.lines() {
        // Text mode has two blanks in front of the name, binary mode a blank and an asterisk.
        let Some((sum, listed)) = line.split_once(' ') else { continue };
        let listed = listed.strip_prefix([' ', '*']).unwrap_or(listed);
        if listed.strip_prefix("./").unwrap_or(listed) == file {
            return match hex(sum) {
                Some(sum) => Ok(Some(Checksum::Sha256(sum))),
                None => Err(SourceError::Bad {
                    name: format!("{name:?}"),
                    problem: format!("cannot be checked: its line in {list:?} has no SHA-256 sum"),
                }),
            };
        }
    }
    Ok(None)
}

fn read(image_dir: &Path, name: &str) -> Result<Option<String>, SourceError> {
    let Some(file) = local::open_if_there(image_dir, name)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(SUMS_BYTES + 1).read_to_end(&mut bytes).map_err(|source| SourceError::Io {
        name: format!("{name:?}"),
        offset: None,
        source,
    })?;
    // The sum that is asked for may be in the rest.
    if bytes.len() as u64 > SUMS_BYTES {
        return Err(SourceError::Bad {
            name: format!("{name:?}"),
            problem: format!("is no list of checksums: it is larger than {SUMS_BYTES} bytes"),
        });
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let (one, two) = ("11".repeat(32), "22".repeat(32));
        assert_eq!(beside(dir.path(), "a").unwrap(), None);
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        write("SHA256SUMS", &format!("{one}  other\n{two} *a\nrubbish  b\n"));
        write("sub/SHA256SUMS", &format!("{one}  ./c\n"));
        assert_eq!(beside(dir.path(), "a").unwrap(), Some(Checksum::Sha256([0x22; 32])));
        assert_eq!(beside(dir.path(), "sub/c").unwrap(), Some(Checksum::Sha256([0x11; 32])));
        assert_eq!(beside(dir.path(), "c").unwrap(), None);
        assert!(beside(dir.path(), "b").is_err());
        write("a.sha256", &format!("{one}  a\n"));
        assert_eq!(beside(dir.path(), "a").unwrap(), Some(Checksum::Sha256([0x11; 32])));
        write("a.sha256", "nonsense");
        assert!(beside(dir.path(), "a").is_err());
    }
}
