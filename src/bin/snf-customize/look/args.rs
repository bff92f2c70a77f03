//! The options of the reading commands.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};

use crate::args::{Domain, Stack, VolumeArg, Wrapping};
use crate::exit::Exit;

/// The reading commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Look {
    /// List directories of the guest.
    #[command(after_help = Exit::help())]
    Ls(Ls),
    /// Write files of the guest to standard output.
    #[command(after_help = Exit::help())]
    Cat(Cat),
    /// Copy files and directories of the guest to this machine.
    #[command(after_help = Exit::help(), visible_alias = "copy-out")]
    Get(Get),
    /// Pack a directory of the guest into a tar archive: owners, modes, times, links, device nodes and
    /// extended attributes are kept.
    #[command(after_help = Exit::help())]
    TarOut(TarOut),
    /// Show how full the guest's file systems are.
    #[command(after_help = Exit::help())]
    Df(Df),
    /// List the paths below a directory of the guest.
    #[command(after_help = Exit::help())]
    Find(Find),
    /// Show all that is known of files of the guest.
    #[command(after_help = Exit::help())]
    Stat(Stat),
    /// Show the fingerprints of the guest's SSH host keys, as `ssh-keygen -lf` does.
    #[command(after_help = Exit::help())]
    Fingerprints(Fingerprints),
    /// Compare the files of two disks: kind, content, mode, owner, links and extended attributes.
    #[command(after_help = Exit::help())]
    Diff(Diff),
}

/// Reads the path of a file in the guest, which is absolute.
fn guest_path() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|path| match path.as_bytes().starts_with(b"/") {
        true => Ok(path),
        false => Err("it does not begin with '/', as a path of the guest does"),
    })
}

/// The disk whose files are read.
#[derive(Args, Debug)]
pub(crate) struct Source {
    /// The disk: a file or block device that holds a whole disk or a bare file system.
    pub(crate) disk: PathBuf,

    #[command(flatten)]
    pub(crate) domain: Domain,

    #[command(flatten)]
    pub(crate) place: Place,
}

impl Look {
    /// The disk of a command that takes one.
    pub(crate) fn source(&mut self) -> Option<&mut Source> {
        match self {
            Self::Ls(args) => Some(&mut args.source),
            Self::Cat(args) => Some(&mut args.source),
            Self::Get(args) => Some(&mut args.source),
            Self::TarOut(args) => Some(&mut args.source),
            Self::Df(args) => Some(&mut args.source),
            Self::Find(args) => Some(&mut args.source),
            Self::Stat(args) => Some(&mut args.source),
            Self::Fingerprints(args) => Some(&mut args.source),
            Self::Diff(_) => None,
        }
    }
}

/// The files of a disk that are read.
#[derive(Args, Debug)]
pub(crate) struct Place {
    #[command(flatten)]
    pub(crate) wrapping: Wrapping,

    #[command(flatten)]
    pub(crate) stack: Stack,

    /// The root, when it cannot be found: the number of its partition, GROUP/NAME of its logical
    /// volume, or the UUID of its LUKS container.
    #[arg(long, value_name = "VOLUME", help_heading = "The disk")]
    pub(crate) root_partition: Option<VolumeArg>,

    /// Read the file system of this partition or logical volume by itself: paths begin at its root,
    /// and nothing is mounted in it. It is named as for --root-partition.
    #[arg(
        long,
        value_name = "VOLUME",
        help_heading = "The disk",
        conflicts_with = "root_partition"
    )]
    pub(crate) partition: Option<VolumeArg>,
}

/// The options of `ls`. Its `-d` is what everybody knows.
#[derive(Args, Debug)]
#[command(mut_arg("domain", |arg| arg.short(None::<char>)))]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) source: Source,

    /// Directories or files of the guest. Names that begin with a dot are listed, too.
    #[arg(value_name = "GUESTPATH", value_parser = guest_path(), default_value = "/")]
    pub(crate) paths: Vec<OsString>,

    /// Show kind, mode, links, owner, group, size and time.
    #[arg(short, long)]
    pub(crate) long: bool,

    /// List what lies below, too.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,

    /// List a directory itself and not its content.
    #[arg(short, long)]
    pub(crate) directory: bool,

    /// Show owner and group as numbers.
    #[arg(short, long)]
    pub(crate) numeric: bool,

    /// Print one JSON document on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The options of `cat`.
#[derive(Args, Debug)]
pub(crate) struct Cat {
    #[command(flatten)]
    pub(crate) source: Source,

    /// Files of the guest.
    #[arg(value_name = "GUESTPATH", value_parser = guest_path(), required = true)]
    pub(crate) paths: Vec<OsString>,
}

/// The options of `get`.
#[derive(Args, Debug)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) source: Source,

    /// Files or directories of the guest.
    #[arg(value_name = "GUESTPATH", value_parser = guest_path(), required = true)]
    pub(crate) paths: Vec<OsString>,

    /// Their new place: a directory of this machine, into which they go. Where there is none of that
    /// name, one file or directory is copied as it.
    #[arg(value_name = "LOCAL", required = true)]
    pub(crate) target: PathBuf,

    /// Replace local files that exist already.
    #[arg(long)]
    pub(crate) overwrite: bool,

    /// Keep owners, set-id bits and extended attributes, and make device nodes. Needs root.
    #[arg(long)]
    pub(crate) all: bool,
}

/// The options of `tar-out`.
#[derive(Args, Debug)]
pub(crate) struct TarOut {
    #[command(flatten)]
    pub(crate) source: Source,

    /// The directory of the guest. Names in the archive begin at it.
    #[arg(value_name = "GUESTDIR", value_parser = guest_path())]
    pub(crate) directory: OsString,

    /// The archive; `-` is standard output.
    #[arg(value_name = "ARCHIVE", default_value = "-")]
    pub(crate) archive: PathBuf,

    /// Replace an archive that exists already.
    #[arg(long)]
    pub(crate) overwrite: bool,

    /// Show owner and group as numbers only.
    #[arg(long)]
    pub(crate) numeric_owner: bool,
}

/// The options of `df`.
#[derive(Args, Debug)]
pub(crate) struct Df {
    #[command(flatten)]
    pub(crate) source: Source,

    /// Print one JSON document on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The kinds that `find --type` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TypeArg {
    /// Regular files.
    F,
    /// Directories.
    D,
    /// Symbolic links.
    L,
    /// Block devices.
    B,
    /// Character devices.
    C,
    /// Named pipes.
    P,
    /// Sockets.
    S,
}

/// The options of `find`.
#[derive(Args, Debug)]
pub(crate) struct Find {
    #[command(flatten)]
    pub(crate) source: Source,

    /// The path to begin at.
    #[arg(value_name = "GUESTPATH", value_parser = guest_path(), default_value = "/")]
    pub(crate) paths: Vec<OsString>,

    /// Only names that match this pattern (`*`, `?`, `[a-z]`).
    #[arg(long, value_name = "PATTERN")]
    pub(crate) name: Option<OsString>,

    /// Only these kinds: f, d, l, b, c, p, s; several with commas between.
    #[arg(long = "type", value_name = "KIND", value_enum, value_delimiter = ',')]
    pub(crate) kinds: Vec<TypeArg>,

    /// Only what belongs to this user (name or number).
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// Only regular files of this size: +N for more, -N for less, with k, M or G for units.
    #[arg(long, value_name = "[+-]SIZE", allow_hyphen_values = true)]
    pub(crate) size: Option<String>,

    /// Only what has all of these mode bits (octal).
    #[arg(long, value_name = "MODE")]
    pub(crate) perm: Option<String>,

    /// Go no deeper than this; 0 is the starting point itself.
    #[arg(long, value_name = "N")]
    pub(crate) max_depth: Option<usize>,

    /// Stay on the file system of the starting point.
    #[arg(long)]
    pub(crate) xdev: bool,

    /// End each path with a zero byte, and show its bytes as they are.
    #[arg(short = '0', long)]
    pub(crate) print0: bool,
}

/// The options of `stat`.
#[derive(Args, Debug)]
pub(crate) struct Stat {
    #[command(flatten)]
    pub(crate) source: Source,

    /// Files of the guest. A symbolic link at the end of a path is shown itself.
    #[arg(value_name = "GUESTPATH", value_parser = guest_path(), required = true)]
    pub(crate) paths: Vec<OsString>,

    /// Show what a symbolic link leads to.
    #[arg(short = 'L', long)]
    pub(crate) dereference: bool,

    /// Print one JSON document on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The options of `fingerprints`.
#[derive(Args, Debug)]
pub(crate) struct Fingerprints {
    #[command(flatten)]
    pub(crate) source: Source,

    /// Print one JSON document on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The options of `diff`.
#[derive(Args, Debug)]
pub(crate) struct Diff {
    /// The first disk.
    pub(crate) old: PathBuf,

    /// The second disk.
    pub(crate) new: PathBuf,

    #[command(flatten)]
    pub(crate) place: Place,

    /// Compare what lies below this directory only.
    #[arg(long, value_name = "GUESTPATH", value_parser = guest_path(), default_value = "/")]
    pub(crate) path: OsString,

    /// Compare times of modification, too.
    #[arg(long)]
    pub(crate) times: bool,

    /// Do not compare extended attributes.
    #[arg(long)]
    pub(crate) no_xattrs: bool,

    /// End with exit code 1 when the disks differ.
    #[arg(long)]
    pub(crate) exit_code: bool,

    /// Print one JSON document on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}
