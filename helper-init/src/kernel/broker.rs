//! The broker: a process that keeps root's rights and does for the worker, which has none, what
//! the kernel's file systems need them for. It is started when the worker first asks and takes
//! nothing but the requests of [`super::wire`].

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use snf_fs::error::display_name;

use super::files::Pending;
use super::mounts::{Failure, Mounts};
use super::wire::{Answer, Bytes, PIECE, Request, receive, send};

/// First argument of a broker; its standard input is the socket.
pub(crate) const ARGUMENT: &str = "broker";

/// The requests take these rights and no others: mounting and labels, modules, and the
/// guest's files whoever they belong to.
fn rights() -> CapabilitySet {
    CapabilitySet::SYS_ADMIN
        | CapabilitySet::SYS_MODULE
        | CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::SETFCAP
}

/// The whole process.
pub(crate) fn main() -> ExitCode {
    let result = io::stdin().as_fd().try_clone_to_owned().and_then(|fd| run(fd.into()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the process that mounts file systems ends: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs until the worker closes its end.
fn run(stream: UnixStream) -> io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)?;
    setrlimit(Resource::Nproc, none)?;
    let sets = CapabilitySets {
        effective: rights(),
        permitted: rights(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)?;
    rustix::thread::set_no_new_privs(true)?;
    Broker::default().serve(stream)
}

/// The mounts and the content that is being written.
#[derive(Debug, Default)]
pub(super) struct Broker {
    pub(super) mounts: Mounts,
    pub(super) pending: Option<(Pending, bool)>,
}

impl Broker {
    /// Answers requests until the other end is closed.
    pub(super) fn serve(&mut self, mut stream: UnixStream) -> io::Result<()> {
        while let Some(request) = receive::<Request>(&mut stream)? {
            let answer = self.answer(request).unwrap_or_else(|(what, errno)| Answer::Failed {
                what,
                errno: errno.raw_os_error(),
            });
            send(&mut stream, &answer)?;
        }
        Ok(())
    }

    fn answer(&mut self, request: Request) -> Result<Answer, Failure> {
        let at = |what: &str, path: &Bytes| {
            let text = format!("{what} {}", display_name(path));
            move |errno| (text, errno)
        };
        Ok(match request {
            Request::Mount { disk, start, size, kind } => {
                Answer::Mounted { mounted: self.mounts.mount(&disk, start, size, &kind)? }
            }
            Request::Stat { mount, path } => {
                let stat = self.mounts.get(mount)?.root()?.stat(&path);
                Answer::Stat { stat: stat.map_err(at("look at", &path))? }
            }
            Request::List { mount, path } => {
                let entries = self.mounts.get(mount)?.root()?.list(&path);
                Answer::List { entries: entries.map_err(at("list", &path))? }
            }
            Request::Read { mount, path, offset, length } => {
                let length = (length as usize).min(PIECE);
                let bytes = self.mounts.get(mount)?.root()?.read(&path, offset, length);
                Answer::Bytes { bytes: bytes.map_err(at("read", &path))?.into() }
            }
            Request::ReadLink { mount, path } => {
                let target = self.mounts.get(mount)?.root()?.read_link(&path);
                Answer::Bytes { bytes: target.map_err(at("read the link", &path))?.into() }
            }
            Request::Xattrs { mount, path } => {
                let xattrs = self.mounts.get(mount)?.root()?.xattrs(&path);
                Answer::Xattrs { xattrs: xattrs.map_err(at("read the attributes of", &path))? }
            }
            Request::SubvolumeReadOnly { mount, path } => {
                let directory = self.mounts.get(mount)?.root()?.directory(&path);
                let value = directory.and_then(crate::sys::subvolume_read_only);
                Answer::Flag { value: value.map_err(at("look at the subvolume", &path))? }
            }
            Request::Begin { mount, grow } => {
                self.mounts.begin(mount, grow)?;
                Answer::Done {}
            }
            Request::Data { bytes } => {
                let (pending, _) = self.pending.as_mut().ok_or_else(nothing_open)?;
                pending.write(&bytes).map_err(|errno| ("write".to_owned(), errno))?;
                Answer::Done {}
            }
            Request::Close { meta } => {
                let (pending, sync) = self.pending.take().ok_or_else(nothing_open)?;
                pending.finish(&meta, sync).map_err(|errno| ("write".to_owned(), errno))?;
                Answer::Done {}
            }
            Request::Finish { mount } => {
                self.mounts.finish(mount)?;
                Answer::Done {}
            }
            change => self.change(change)?,
        })
    }

    /// Requests that change the tree: only after `Begin`.
    fn change(&mut self, request: Request) -> Result<Answer, Failure> {
        let done = |what: &str, path: &Bytes, result: Result<(), Errno>| match result {
            Ok(()) => Ok(Answer::Done {}),
            Err(errno) => Err((format!("{what} {}", display_name(path)), errno)),
        };
        let writable = |mounts: &Mounts, mount| match mounts.get(mount)?.writable {
            true => Ok(()),
            false => Err(("change a file system that is read-only".to_owned(), Errno::ROFS)),
        };
        match request {
            Request::Open { mount, path, in_place } => {
                writable(&self.mounts, mount)?;
                let mount = self.mounts.get(mount)?;
                let pending = mount.root()?.begin(&path, in_place);
                let pending =
                    pending.map_err(|errno| (format!("write {}", display_name(&path)), errno))?;
                self.pending = Some((pending, mount.kind.syncs_files()));
                Ok(Answer::Done {})
            }
            Request::MakeDirectory { mount, path, meta } => {
                writable(&self.mounts, mount)?;
                let result = self.mounts.get(mount)?.root()?.make_directory(&path, &meta);
                done("make the directory", &path, result)
            }
            Request::MakeSymlink { mount, path, target, meta } => {
                writable(&self.mounts, mount)?;
                let result = self.mounts.get(mount)?.root()?.make_symlink(&path, &target, &meta);
                done("make the link", &path, result)
            }
            Request::Remove { mount, path, directory } => {
                writable(&self.mounts, mount)?;
                let result = self.mounts.get(mount)?.root()?.remove(&path, directory);
                done("remove", &path, result)
            }
            Request::Rename { mount, from, to } => {
                writable(&self.mounts, mount)?;
                let result = self.mounts.get(mount)?.root()?.rename(&from, &to);
                done("rename to", &to, result)
            }
            Request::Set { mount, path, meta } => {
                writable(&self.mounts, mount)?;
                let result = self.mounts.get(mount)?.root()?.set(&path, &meta);
                done("set the attributes of", &path, result)
            }
            _ => Err(("do what was asked".to_owned(), Errno::NOSYS)),
        }
    }
}

fn nothing_open() -> Failure {
    ("write without a file".to_owned(), Errno::BADF)
}
