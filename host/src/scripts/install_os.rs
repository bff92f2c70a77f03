//! Lays out a Ganeti OS directory: links to this program and the lists Ganeti reads.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::node::parameters;

/// The scripts of a Ganeti OS, each a link to the multi-call program.
pub const SCRIPTS: [&str; 5] = ["create", "export", "import", "rename", "verify"];

/// Why the directory cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The directory's name is one Ganeti does not find.
    #[error(
        "{}: Ganeti finds only OS directories whose name consists of letters, digits, '-' and '_'",
        .0.display()
    )]
    Name(PathBuf),
    /// A variant's name is not one word.
    #[error("{0:?} is not the name of a variant: letters, digits, '-', '_' and '.'")]
    Variant(String),
    /// Something of the name is there that is not ours to replace.
    #[error("{} is in the way; remove it first", .0.display())]
    InTheWay(PathBuf),
    /// The system refused.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Makes `dir` a Ganeti OS directory whose scripts are `program`, with the given variants.
/// Running it again brings the directory up to date.
pub fn install(dir: &Path, program: &Path, variants: &[String]) -> Result<(), InstallError> {
    let good_name = dir.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
        !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    if !good_name {
        return Err(InstallError::Name(dir.to_owned()));
    }
    let mut list = String::new();
    for variant in variants {
        let plain = variant.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if variant.is_empty() || variant.starts_with('.') || !plain {
            return Err(InstallError::Variant(variant.clone()));
        }
        list.push_str(variant);
        list.push('\n');
    }
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| InstallError::Io { path, source }
    };
    fs::create_dir_all(dir).map_err(io_error(dir))?;
    readable(dir, 0o755).map_err(io_error(dir))?;
    for script in SCRIPTS {
        let path = dir.join(script);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_symlink() => {
                fs::remove_file(&path).map_err(io_error(&path))?;
            }
            Ok(_) => return Err(InstallError::InTheWay(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(&path)(error)),
        }
        symlink(program, &path).map_err(io_error(&path))?;
    }
    // Exactly one integer a line and no blank line: Ganeti reads it so.
    for (name, text) in [
        ("ganeti_api_version", "20\n".to_owned()),
        ("variants.list", list),
        ("parameters.list", parameters::list()),
    ] {
        let path = dir.join(name);
        let new = dir.join(format!(".{name}.new"));
        fs::write(&new, text).map_err(io_error(&new))?;
        readable(&new, 0o644).map_err(io_error(&new))?;
        fs::rename(&new, &path).map_err(io_error(&path))?;
    }
    Ok(())
}

/// The program runs with umask 0077, but Ganeti's unprivileged daemons read this directory.
fn readable(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lays_out_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let os = dir.path().join("snf-image");
        let program = Path::new("/usr/bin/snf-image-host");
        install(&os, program, &["default".into()]).unwrap();
        install(&os, program, &["default".into(), "debian-12".into()]).unwrap();
        assert_eq!(fs::read(os.join("ganeti_api_version")).unwrap(), b"20\n");
        assert_eq!(fs::read(os.join("variants.list")).unwrap(), b"default\ndebian-12\n");
        assert_eq!(fs::read_link(os.join("verify")).unwrap(), program);
        assert_eq!(fs::read_dir(&os).unwrap().count(), 8);
    }

    #[test]
    fn refusals() {
        let dir = tempfile::tempdir().unwrap();
        let program = Path::new("/usr/bin/snf-image-host");
        assert!(install(&dir.path().join("a.b"), program, &[]).is_err());
        assert!(install(&dir.path().join("a"), program, &["x y".into()]).is_err());
        let os = dir.path().join("b");
        fs::create_dir(&os).unwrap();
        fs::write(os.join("create"), "mine").unwrap();
        let error = install(&os, program, &[]).unwrap_err().to_string();
        assert!(error.contains("in the way"), "{error}");
    }
}
