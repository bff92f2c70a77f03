//! `snf-image-host lay-image`: the half of `snf-customize deploy` that reads images from wherever
//! `create` reads them. The target is standard input, so that the lock on it stays the caller's;
//! what happens is told on standard output, a JSON document a line.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use snf_image::lay::Told;

use crate::disk::destination::Destination;
use crate::disk::error::TargetError;
use crate::disk::fresh::{FreshFile, FreshQcow2};
use crate::disk::target::Target;
use crate::image::copy::{CopyError, Settle, copy_image};
use crate::image::source::id::{ImageId, Location};
use crate::image::source::{self, SourceError};
use crate::node::cancel::Cancel;
use crate::node::config::{self, Config, ConfigError};
use crate::node::harden::harden;
use crate::node::log;

/// How often the position is told.
const PACE: Duration = Duration::from_millis(200);
/// The person who runs it may read every file and ask every host by other means, too.
const FOR_A_PERSON: &str = "IMAGE_FILES=\"/\"\nIMAGE_HOSTS=\"0.0.0.0/0 ::/0\"\n";

/// Why an image is not laid.
#[derive(Debug, thiserror::Error)]
pub enum LayError {
    /// Not called as snf-customize does.
    #[error("lay-image is called by snf-customize deploy: {0}")]
    Usage(String),
    /// The standard input or output, or the signals.
    #[error("cannot {0}")]
    Io(&'static str, #[source] io::Error),
    /// The image.
    #[error(transparent)]
    Source(SourceError),
    /// The name of the image makes no sense.
    #[error("the image {name}: {problem}")]
    Name {
        /// The image, as a person may see it.
        name: String,
        /// The problem, and what to do.
        problem: String,
    },
    /// Nobody here reads images of this scheme.
    #[error(
        "the image {name}: nothing here reads {scheme}://; name a path, or a URL that begins with \
         http://, https:// or file://"
    )]
    Scheme {
        /// The image, as a person may see it.
        name: String,
        /// The beginning of its URL.
        scheme: String,
    },
    /// There is no image.
    #[error("null names no image; deploy needs one")]
    Null,
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The copy.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

impl From<SourceError> for LayError {
    /// In the words of a person, who knows no OS parameters.
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Id { id, problem } => Self::Name { name: id, problem },
            other => Self::Source(other),
        }
    }
}

struct Arguments {
    image: String,
    name: PathBuf,
    qcow2: bool,
}

impl Arguments {
    fn parse(args: Vec<OsString>) -> Result<Self, LayError> {
        let usage = |problem: &str| LayError::Usage(problem.to_owned());
        let [image, name, format] = <[OsString; 3]>::try_from(args)
            .map_err(|_| usage("the arguments are IMAGE, NAME and FORMAT"))?;
        let image = image.into_string().map_err(|_| usage("the image's name is not text"))?;
        let qcow2 = match format.to_str() {
            Some("raw") => false,
            Some("qcow2") => true,
            _ => return Err(usage("FORMAT is raw or qcow2")),
        };
        Ok(Self { image, name: name.into(), qcow2 })
    }
}

/// Lays the image and tells about it. An error is one that nobody hears of otherwise.
///
/// # Errors
/// The arguments make no sense, or nothing can be told.
pub fn run(args: Vec<OsString>) -> Result<(), LayError> {
    harden();
    let arguments = Arguments::parse(args)?;
    // The caller has gone.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    let cancel = Cancel::on_signals().map_err(|e| LayError::Io("watch for signals", e))?;
    let end = match lay(&arguments, &cancel) {
        Ok((size, written)) => Told::Done { size, written },
        Err(error) => {
            let interrupted = cancel.is_requested();
            let wrote = !matches!(&error, LayError::Copy(CopyError::TooLarge { .. }))
                && matches!(&error, LayError::Copy(_));
            Told::Failed { message: log::chain(&error), interrupted, wrote }
        }
    };
    tell(&end)
}

fn tell(what: &Told) -> Result<(), LayError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", what.line())
        .and_then(|()| out.flush())
        .map_err(|error| LayError::Io("write to standard output", error))
}

/// The size of the image, and the bytes of it that were written as data.
fn lay(arguments: &Arguments, cancel: &Cancel) -> Result<(u64, u64), LayError> {
    let duplicate = io::stdin().as_fd().try_clone_to_owned();
    let file = File::from(duplicate.map_err(|e| LayError::Io("use the target", e))?);
    let kind = file.metadata().map_err(|e| LayError::Io("use the target", e))?.file_type();
    let image: ImageId = arguments.image.parse()?;
    let mut config = config::of_process(None).unwrap_or_else(|_| Config::default());
    config.apply(Path::new("snf-customize deploy"), FOR_A_PERSON)?;
    config.for_a_person = true;
    let reader = source::open(&image, &config, None, cancel).map_err(|error| {
        match (&image.location, LayError::from(error)) {
            (Location::Foreign(scheme), LayError::Name { name, .. }) => {
                LayError::Scheme { name, scheme: scheme.clone() }
            }
            (_, error) => error,
        }
    });
    let reader = reader?.ok_or(LayError::Null)?;
    let name = &arguments.name;
    let mut target: Box<dyn Destination> = if kind.is_block_device() {
        Box::new(Target::of_claimed(name, file)?.with_rest(config.rest))
    } else if arguments.qcow2 {
        Box::new(FreshQcow2::new(name, file, reader.size().unwrap_or(0))?)
    } else {
        Box::new(FreshFile::new(name, file))
    };
    let mut told = None;
    let mut progress = |position: u64, total: Option<u64>| {
        let now = Instant::now();
        if told.is_none_or(|before| now.duration_since(before) >= PACE) {
            told = Some(now);
            // The listener may have closed the pipe; only the copy counts.
            let _ = tell(&Told::Progress { position, total });
        }
    };
    // The caller flushes when it has made its changes, too; only a new qcow2 has to be whole now.
    let settle = if arguments.qcow2 { Settle::Now } else { Settle::Later };
    let report = copy_image(reader, &mut *target, 0, settle, cancel, &mut progress)?;
    Ok((report.size, report.written))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_snf_customize_calls_it() {
        let parse = |args: &[&str]| Arguments::parse(args.iter().map(OsString::from).collect());
        for args in [&[][..], &["a"], &["a", "b", "vmdk"], &["a", "b", "raw", "x"]] {
            assert!(matches!(parse(args), Err(LayError::Usage(_))), "{args:?}");
        }
        assert!(parse(&["http://x/y", "/t", "qcow2"]).unwrap().qcow2);
    }
}
