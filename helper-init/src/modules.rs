//! Loading the kernel modules of the initramfs. update-helper has unpacked them and named them in
//! the order of their dependencies.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::error::ModuleError;

/// The folder of the modules of file systems, in an initramfs that has them.
const FILE_SYSTEMS: &str = "/filesystems";

/// Makes sure that the kernel knows a kind of file system. False: there is no driver here.
pub(crate) fn load_file_system(kind: &str) -> Result<bool, ModuleError> {
    let known = || {
        let list = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        list.lines().any(|line| line.split_whitespace().last() == Some(kind))
    };
    if known() {
        return Ok(true);
    }
    let directory = Path::new(FILE_SYSTEMS).join(kind);
    if !directory.is_dir() {
        return Ok(false);
    }
    load_all(&directory)?;
    Ok(known())
}

/// Loads every module of a directory in the order of their names.
pub(crate) fn load_all(directory: &Path) -> Result<(), ModuleError> {
    load_some(directory, &|_| true)
}

/// Loads the modules of a directory that are wanted, in the order of their names.
pub(crate) fn load_some(
    directory: &Path,
    wanted: &dyn Fn(&Path) -> bool,
) -> Result<(), ModuleError> {
    let mut paths = match fs::read_dir(directory) {
        Ok(entries) => entries.flatten().map(|e| e.path()).collect::<Vec<_>>(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ModuleError::List { folder: directory.to_owned(), source }),
    };
    paths.retain(|path| wanted(path));
    paths.sort();
    for path in paths {
        let load = || -> Result<(), Errno> {
            let file =
                File::open(&path).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
            match rustix::system::finit_module(&file, c"", 0) {
                // A kernel that has the driver already needs it no more.
                Err(Errno::EXIST) => Ok(()),
                other => other,
            }
        };
        load().map_err(|source| ModuleError::Load { module: path.clone(), source })?;
    }
    Ok(())
}
