//! `snf-customize deploy`: an image onto a new file or a block device, larger and changed. The program
//! that reads images from wherever `create` does is snf-image-host.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, OFlags};
use snf_claim::Purpose;
use snf_image::lay::Told;
use snf_image::random::Entropy;

use crate::apply::{self, Origin};
use crate::args::{Deploy, Format};
use crate::disk::{self, Access, OpenDisk};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::resize::{self, DiskSize};
use crate::selector::io_problem;
use crate::signals::Progress;
use crate::spinner;
use crate::vm;

/// Does it and tells about it.
pub(crate) fn run(args: &mut Deploy) -> Exit {
    let target = args.apply.disk.clone();
    match prepare(args) {
        Ok(mut deployment) => apply::run_on(&args.apply, &mut deployment),
        Err(failure) => {
            if args.apply.json {
                let mut document = output::Document::new("deploy", &target);
                document.set("image", args.image.as_str());
                document.finish(failure.exit, &failure.message);
            }
            output::fail(&failure)
        }
    }
}

/// Looks at what can be told before anything is opened.
fn prepare(args: &mut Deploy) -> Result<Deployment, Failure> {
    let apply = &mut args.apply;
    let given = [
        (apply.wrapping.format.is_some(), "--format is for apply; say --target-format"),
        (
            apply.wrapping.backing == crate::args::BackingArg::Allow,
            "--backing is for apply: a deployed image has no backing file",
        ),
        (apply.dry_run, "--dry-run is for apply: deploy makes something new"),
        (apply.domain.name.is_some(), "-d is for apply: deploy makes a new disk; name it"),
    ];
    if let Some((_, problem)) = given.into_iter().find(|(given, _)| *given) {
        return Err(Failure::usage(problem));
    }
    let target = apply.disk.clone();
    let shown = target.display().to_string();
    refuse_itself(&args.image, &target)?;
    let block = match fs::metadata(&target) {
        Ok(found) if found.file_type().is_block_device() => true,
        Ok(found) if !found.is_file() => {
            return Err(Failure::new(
                Exit::Device,
                format!("cannot use {shown}: it is neither a regular file nor a block device"),
            ));
        }
        Ok(_) if !args.overwrite => {
            return Err(Failure::new(
                Exit::Input,
                format!("{shown} is there already; name another file, or say --overwrite"),
            ));
        }
        Err(_) if fs::symlink_metadata(&target).is_ok() => {
            return Err(Failure::new(
                Exit::Input,
                format!("{shown} is a symbolic link that leads nowhere; name another file"),
            ));
        }
        Ok(_) | Err(_) => false,
    };
    let ending = target.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let by_name = match ending.to_ascii_lowercase().as_str() {
        "qcow2" => Format::Qcow2,
        ending @ ("vmdk" | "vhdx" | "vhd" | "vpc" | "vdi")
            if args.target_format.is_none() && !block =>
        {
            return Err(Failure::usage(format!(
                "{shown}: deploy makes raw and qcow2 files and no {ending}; say --target-format, or \
                 name another file and convert it with qemu-img convert",
            )));
        }
        _ => Format::Raw,
    };
    let format = match (args.target_format.map(Format::from), block) {
        (Some(Format::Qcow2), true) => {
            return Err(Failure::usage(
                "--target-format qcow2 is for files; a block device takes the bytes of the disk",
            ));
        }
        (_, true) => Format::Raw,
        (said, false) => said.unwrap_or(by_name),
    };
    if apply.vm && format == Format::Qcow2 {
        return Err(Failure::usage(
            "--vm takes raw disks only: leave it out, or say --target-format raw",
        ));
    }
    if apply.size.is_some() {
        resize::refuse_block(&target, block)?;
    }
    // As `create` does: the disk is used whole. For a file, --size says what is whole.
    apply.fill = block;
    apply.laid = true;
    apply.wrapping.format = Some(format);
    Ok(Deployment {
        image: image_id(&args.image)?,
        name: shown_image(&args.image),
        wanted: apply.size,
        target,
        block,
        format,
        overwrite: args.overwrite,
        fresh: None,
        temporary: Arc::default(),
        size: 0,
    })
}

/// The options that may be after the `#` of an image.
const OPTIONS: [&str; 4] = ["sha256", "sha512", "format", "compression"];

/// An image's place and the words after its `#`, which are options all, as snf-image-host sees it.
fn split(image: &str) -> (&str, Option<&str>) {
    let known =
        |option: &str| option.split_once('=').is_some_and(|(key, _)| OPTIONS.contains(&key));
    match image.rsplit_once('#') {
        Some((place, options)) if options.split('&').all(known) => (place, Some(options)),
        _ => (image, None),
    }
}

/// The image as messages may name it: without options, and without what a URL may hold of passwords.
fn shown_image(image: &str) -> String {
    let (place, _) = split(image);
    let Some((scheme, rest)) = place.split_once("://") else { return place.to_owned() };
    let rest = rest.split_once('?').map_or(rest, |(start, _)| start);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// An image is not deployed onto itself, whichever names it has.
fn refuse_itself(image: &str, target: &Path) -> Result<(), Failure> {
    let (place, _) = split(image);
    let place = match place.strip_prefix("file://") {
        Some(path) => path.strip_prefix("localhost").unwrap_or(path),
        None => place,
    };
    let (Ok(from), Ok(to)) = (fs::metadata(place), fs::metadata(target)) else { return Ok(()) };
    let device = |found: &fs::Metadata| found.file_type().is_block_device().then(|| found.rdev());
    let same = match (device(&from), device(&to)) {
        (Some(from), Some(to)) => from == to,
        (None, None) => (from.dev(), from.ino()) == (to.dev(), to.ino()),
        _ => false,
    };
    if !same {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{} is the image itself; name another target, or change the image in place with apply",
        target.display()
    )))
}

/// Words after a `#` that are no options: they would be taken for a part of the name.
fn unknown_options(image: &str) -> Option<&str> {
    if split(image).1.is_some() {
        return None;
    }
    let (place, words) = image.rsplit_once('#')?;
    let is_url = image.contains("://");
    (is_url || (fs::metadata(image).is_err() && fs::metadata(place).is_ok())).then_some(words)
}

/// A path as `create` has it, and a URL as it is.
fn image_id(image: &str) -> Result<String, Failure> {
    if let Some(words) = unknown_options(image) {
        return Err(Failure::usage(format!(
            "#{words} is no option of an image; there are sha256=, sha512=, format= and compression=, with & \
             between them"
        )));
    }
    if image.contains("://") {
        return Ok(image.to_owned());
    }
    if image.is_empty() {
        return Err(Failure::usage("the image has no name"));
    }
    let path = std::path::absolute(image).map_err(|error| {
        Failure::new(Exit::Device, format!("cannot use {image}: {}", io_problem(&error)))
    })?;
    let path = path.to_str().ok_or_else(|| {
        Failure::new(Exit::Device, "cannot use the image: the directory's name is not text")
    })?;
    Ok(format!("file://{path}"))
}

/// An image on its way to a target.
struct Deployment {
    image: String,
    /// The image as messages may name it.
    name: String,
    /// The size that the disk is to have.
    wanted: Option<DiskSize>,
    target: PathBuf,
    block: bool,
    format: Format,
    overwrite: bool,
    fresh: Option<Fresh>,
    /// The name that a file has until it is whole, where it needs one.
    temporary: Arc<Mutex<Option<PathBuf>>>,
    /// Bytes of the image.
    size: u64,
}

/// A file that is not under its name yet.
struct Fresh {
    file: File,
    /// The file that it replaces, claimed.
    _old: Option<File>,
}

impl Origin for Deployment {
    fn command(&self) -> &'static str {
        "deploy"
    }

    fn untouched(&self) -> Box<dyn FnOnce() -> String + Send> {
        let shown = self.target.display().to_string();
        let (temporary, block) = (self.temporary.clone(), self.block);
        Box::new(move || {
            remove(&temporary);
            if block { format!("{shown} is as it was") } else { format!("{shown} was not made") }
        })
    }

    fn open(&mut self, _: Access, progress: &Progress) -> Result<OpenDisk, Failure> {
        let mut opened = match self.block {
            true => disk::open_file(&self.target, Access::Write)?,
            false => self.make()?,
        };
        if self.block {
            progress.begin_writing();
        }
        let laid = self.lay(&opened.file, progress);
        let size = laid.map_err(|(wrote, failure)| {
            if !self.block || !wrote {
                if self.block {
                    progress.nothing_written();
                }
                return failure;
            }
            let message = format!("{}; {} is half written", failure.message, self.target.display());
            Failure::new(Exit::Commit, message)
        })?;
        self.size = size;
        if let Some(wanted) = self.wanted {
            wanted.of(Path::new(&self.name), size)?;
        }
        if !self.block {
            let length = opened.file.metadata().map(|found| found.len());
            opened.size = length.map_err(|error| self.cannot(&io_problem(&error)))?;
        }
        Ok(opened)
    }

    fn is_new(&self) -> bool {
        !self.block
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let Some(fresh) = &self.fresh else { return Ok(()) };
        let give = || -> std::io::Result<()> {
            fresh.file.sync_all()?;
            self.name_it(&fresh.file)?;
            File::open(directory(&self.target))?.sync_all()
        };
        give().map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::new(
                Exit::Refused,
                format!("{} has been made by somebody else meanwhile", self.target.display()),
            ),
            _ => self.cannot(&io_problem(&error)),
        })
    }

    fn failed(&self, failure: Failure) -> Failure {
        match self.block {
            true => failure,
            // Nothing that was begun is left.
            false => Failure::new(
                failure.exit,
                format!("{}; {} was not made", failure.message, self.target.display()),
            ),
        }
    }

    fn done(&self) -> Option<String> {
        Some(format!("{} holds {} of the image", self.target.display(), output::size(self.size)))
    }
}

impl Deployment {
    fn cannot(&self, problem: &str) -> Failure {
        Failure::new(Exit::Device, format!("cannot make {}: {problem}", self.target.display()))
    }

    /// A new file beside the target, for us alone.
    fn make(&mut self) -> Result<OpenDisk, Failure> {
        let old = match self.overwrite {
            true => self.old()?,
            false => None,
        };
        let directory = directory(&self.target);
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        // Without a name nothing is left over, whatever ends the run.
        let mut nameless = options.clone();
        nameless.custom_flags(OFlags::TMPFILE.bits() as i32);
        let file = nameless.open(&directory).or_else(|error| {
            // Not every file system has files without a name.
            let path = self.beside().map_err(|_| error)?;
            let file = options.create_new(true).open(&path)?;
            *self.temporary.lock().unwrap_or_else(PoisonError::into_inner) = Some(path);
            Ok(file)
        });
        let file = file.map_err(|error: std::io::Error| self.cannot(&io_problem(&error)))?;
        snf_claim::claim(&file, Purpose::Write).map_err(|busy| self.cannot(&busy.to_string()))?;
        let other = file.try_clone().map_err(|error| self.cannot(&io_problem(&error)))?;
        self.fresh = Some(Fresh { file: other, _old: old });
        Ok(OpenDisk { file, size: 0, sector_size: 512, block: false })
    }

    /// The file that is replaced: nobody else may use it.
    fn old(&self) -> Result<Option<File>, Failure> {
        let file = match OpenOptions::new().read(true).write(true).open(&self.target) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.cannot(&io_problem(&error))),
        };
        snf_claim::claim(&file, Purpose::Write).map_err(|user| {
            Failure::new(Exit::Busy, format!("{} is in use: {user}", self.target.display()))
        })?;
        Ok(Some(file))
    }

    /// A name in the target's directory that nobody has.
    fn beside(&self) -> Result<PathBuf, Failure> {
        let entropy = Entropy::from_os().map_err(|error| self.cannot(&error.to_string()))?;
        let random: [u8; 8] = entropy.derive("temporary name").bytes();
        let name = self.target.file_name().unwrap_or_default().to_string_lossy();
        let name: String = name.chars().take(100).collect();
        let number = u64::from_le_bytes(random);
        Ok(directory(&self.target).join(format!(".{name}.{number:016x}.part")))
    }

    /// Gives the file its name, in one step.
    fn name_it(&self, file: &File) -> std::io::Result<()> {
        use std::os::fd::AsRawFd;
        let mut temporary = self.temporary.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = temporary.as_ref() {
            if self.overwrite {
                fs::rename(path, &self.target)?;
                *temporary = None;
            } else {
                fs::hard_link(path, &self.target)?;
            }
            return Ok(());
        }
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = |to: &Path| rustix::fs::linkat(CWD, &*own, CWD, to, AtFlags::SYMLINK_FOLLOW);
        if !self.overwrite {
            return Ok(link(&self.target)?);
        }
        let path = self.beside().map_err(|failure| std::io::Error::other(failure.message))?;
        link(&path)?;
        *temporary = Some(path.clone());
        fs::rename(&path, &self.target)?;
        *temporary = None;
        Ok(())
    }

    /// Has the image laid. The flag of a failure: whether something had been written.
    fn lay(&self, file: &File, progress: &Progress) -> Result<u64, (bool, Failure)> {
        let fail = |message: String| (false, Failure::new(Exit::Device, message));
        let target = file.try_clone().map_err(|error| fail(io_problem(&error)))?;
        let program = vm::host_program();
        let mut command = Command::new(&program);
        command.arg("lay-image").arg(&self.image).arg(&self.target).arg(self.format.name());
        command.stdin(Stdio::from(target)).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            fail(format!(
                "cannot run {}, which reads the image: {error}; install it beside snf-customize, in \
                 {} or in the PATH",
                program.display(),
                vm::LIBRARY
            ))
        })?;
        progress.pass_signals_to(i32::try_from(child.id()).unwrap_or(0));
        let mut end = None;
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
        for line in lines.into_iter().flatten().map_while(Result::ok) {
            match Told::parse(&line) {
                Some(Told::Progress { position, total }) => {
                    spinner::say(format!("copying the image: {}", copied(position, total)));
                }
                other => end = other,
            }
        }
        let status = child.wait();
        progress.pass_signals_to(0);
        match end {
            Some(Told::Done { size, .. }) => Ok(size),
            Some(Told::Failed { interrupted: true, wrote, .. }) => {
                let message = format!("interrupted while {} was written", self.target.display());
                Err((wrote, Failure::new(Exit::Interrupted, message)))
            }
            Some(Told::Failed { message, wrote, .. }) => {
                Err((wrote, Failure::new(Exit::Device, message)))
            }
            Some(Told::Progress { .. }) | None => {
                let status = status.map_or_else(|error| error.to_string(), |s| s.to_string());
                let message = format!("{} gave no answer ({status})", program.display());
                Err((true, Failure::new(Exit::Device, message)))
            }
        }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        remove(&self.temporary);
    }
}

fn remove(temporary: &Mutex<Option<PathBuf>>) {
    if let Some(path) = temporary.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // There is nothing else that could be done about it.
        let _ = fs::remove_file(path);
    }
}

fn directory(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// How far a copy is.
fn copied(position: u64, total: Option<u64>) -> String {
    match total.filter(|total| *total > 0) {
        Some(total) => format!(
            "{:>3} % ({} of {})",
            u128::from(position) * 100 / u128::from(total),
            output::size(position),
            output::size(total)
        ),
        None => output::size(position),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images() {
        assert_eq!(image_id("https://x/y#sha256=0").unwrap(), "https://x/y#sha256=0");
        assert_eq!(image_id("/a/b.img").unwrap(), "file:///a/b.img");
        assert!(image_id("b.img").unwrap().ends_with("/b.img"));
        assert!(image_id("").is_err());
        for (image, part) in [
            ("https://x/y#foo=bar", "#foo=bar is no option"),
            ("/etc/hostname#foo=bar", "#foo=bar is no option"),
            ("/etc/hostname#format=raw&x=1", "is no option"),
        ] {
            let failure = image_id(image).unwrap_err();
            assert!(failure.message.contains(part), "{image}: {}", failure.message);
        }
        assert!(image_id("/no/such#1").is_ok());
        assert_eq!(shown_image("https://u:p@h/x?token=1#sha256=0"), "https://h/x");
        assert_eq!(shown_image("a#b"), "a#b");
        assert_eq!(directory(Path::new("x")), Path::new("."));
        assert_eq!(directory(Path::new("/x")), Path::new("/"));
    }
}
