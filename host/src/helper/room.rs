//! The file systems as QEMU sees them: a root directory of its own, in a mount name space of its
//! own, with programs, libraries, firmware and some devices, all of it read-only, and nothing of the
//! node's data. It stands where Landlock is not known (kernels before 5.13), and beside it elsewhere.

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};

use super::walls::{READ, RUN, USE};

/// The places for the new root; every node has one of these directories. Mounts in the name space
/// of the child alone are seen by nobody else.
const PLACES: [&str; 3] = ["/run", "/mnt", "/tmp"];

/// The steps after the fork, where nothing may be allocated.
#[derive(Debug)]
enum Step {
    Directory(CString),
    File(CString),
    Link { target: CString, at: CString },
    Bind { from: CString, to: CString, flags: MountFlags },
    Proc(CString),
}

/// A root directory that is put together in a child.
#[derive(Debug)]
pub(super) struct Room {
    place: CString,
    steps: Vec<Step>,
}

impl Room {
    /// Plans the room of a program. `None` where the node is too strange for it.
    pub(super) fn plan(program: &Path) -> Option<Self> {
        let place = PLACES.iter().map(Path::new).find(|place| {
            fs::symlink_metadata(place).is_ok_and(|metadata| metadata.is_dir())
                && !program.starts_with(place)
        })?;
        let mut plan = Plan { place, made: Vec::new(), steps: Vec::new() };
        for path in RUN.iter().chain(&READ).chain(&USE) {
            plan.show(Path::new(path))?;
        }
        // One that PATH finds is in one of those; another is shown by itself.
        if program.is_absolute() && !RUN.iter().any(|shown| program.starts_with(shown)) {
            plan.show(program)?;
        }
        let proc = plan.directory(Path::new("/proc"))?;
        plan.steps.push(Step::Proc(proc));
        Some(Self { place: c_string(place)?, steps: plan.steps })
    }

    /// Moves the calling process, which has a mount name space of its own, into the room. Makes
    /// system calls only. After an error the process sees what it saw before.
    pub(super) fn enter(&self) -> Result<(), Errno> {
        mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount(c"tmpfs", &*self.place, c"tmpfs", flags, c"mode=0755,size=1m")?;
        let entered = self.furnish().and_then(|()| {
            rustix::process::chdir(&*self.place)?;
            rustix::process::pivot_root(c".", c".")
        });
        if let Err(error) = entered {
            let _ = rustix::process::chdir(c"/");
            let _ = unmount(&*self.place, UnmountFlags::DETACH);
            return Err(error);
        }
        // The old root lies over the new one.
        unmount(c".", UnmountFlags::DETACH)?;
        rustix::process::chdir(c"/")
    }

    fn furnish(&self) -> Result<(), Errno> {
        rustix::process::umask(Mode::from_raw_mode(0o022));
        for step in &self.steps {
            match step {
                Step::Directory(path) => match rustix::fs::mkdir(&**path, 0o755.into()) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                },
                Step::File(path) => {
                    rustix::fs::mknodat(CWD, &**path, FileType::RegularFile, 0o644.into(), 0)?;
                }
                Step::Link { target, at } => rustix::fs::symlink(&**target, &**at)?,
                Step::Bind { from, to, flags } => {
                    mount_bind_recursive(&**from, &**to)?;
                    mount_remount(&**to, MountFlags::BIND | *flags, c"")?;
                }
                Step::Proc(path) => {
                    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
                    mount(c"proc", &**path, c"proc", flags, None::<&CStr>)?;
                }
            }
        }
        Ok(())
    }
}

/// A room being planned.
struct Plan<'a> {
    place: &'a Path,
    made: Vec<PathBuf>,
    steps: Vec<Step>,
}

impl Plan<'_> {
    /// A path in the room.
    fn inside(&self, path: &Path) -> Option<CString> {
        c_string(self.place.join(path.strip_prefix("/").ok()?))
    }

    /// Makes a directory and those above it.
    fn directory(&mut self, path: &Path) -> Option<CString> {
        let above: Vec<&Path> = path.ancestors().collect();
        for directory in above.into_iter().rev().filter(|path| path.parent().is_some()) {
            if !self.made.iter().any(|made| made == directory) {
                let inside = self.inside(directory)?;
                self.made.push(directory.to_owned());
                self.steps.push(Step::Directory(inside));
            }
        }
        self.inside(path)
    }

    /// Shows a file, directory or device of the node at its own place, read-only. One that is not
    /// there is left out.
    fn show(&mut self, path: &Path) -> Option<()> {
        let Ok(metadata) = fs::symlink_metadata(path) else { return Some(()) };
        self.directory(path.parent()?)?;
        let to = self.inside(path)?;
        let kind = metadata.file_type();
        if kind.is_symlink() && RUN.iter().any(|shown| path == Path::new(shown)) {
            // Such as /lib, which leads to /usr/lib.
            let target = c_string(fs::read_link(path).ok()?.as_os_str())?;
            self.steps.push(Step::Link { target, at: to });
            return Some(());
        }
        // The kernel follows other links when it binds.
        let Ok(metadata) = fs::metadata(path) else { return Some(()) };
        let device = metadata.file_type().is_char_device();
        self.steps.push(match metadata.is_dir() {
            true => Step::Directory(to.clone()),
            false => Step::File(to.clone()),
        });
        let mut flags = MountFlags::RDONLY | MountFlags::NOSUID;
        if !device {
            flags |= MountFlags::NODEV;
        }
        self.steps.push(Step::Bind { from: c_string(path)?, to, flags });
        Some(())
    }
}

fn c_string(path: impl AsRef<OsStr>) -> Option<CString> {
    CString::new(path.as_ref().as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_elsewhere_is_shown_by_itself() {
        let shown = |program: &str| {
            let room = Room::plan(Path::new(program)).unwrap();
            room.steps.iter().any(
                |step| matches!(step, Step::Bind { from, .. } if from.to_bytes() == program.as_bytes()),
            )
        };
        assert!(!shown("qemu-system-x86_64") && !shown("/usr/bin/env"));
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("qemu");
        fs::write(&program, "").unwrap();
        assert!(shown(program.to_str().unwrap()));
        assert!(!shown("/nowhere/qemu"), "it is left out");
        let room = Room::plan(Path::new("/run/qemu")).unwrap();
        assert_ne!(&*room.place, c"/run", "that hides the program");
    }
}
