//! The errors of the helper: each keeps its cause as a value, and PID 1 makes one sentence of the
//! chain for the host.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use snf_image::customize::CustomizeError;
use snf_image::request::RequestError;
use snf_image::rules::{MAX_SIZE, ParseError, RulesError};
use snf_image::wire::words;

/// Why PID 1 or a process of its own cannot do its part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    /// Something that the kernel did not do.
    #[error("cannot {step}")]
    System {
        /// The step, as a verb with its object.
        step: &'static str,
        #[source]
        source: io::Error,
    },
    /// A file system of the kernel's own.
    #[error("cannot mount {kind} on {target}")]
    Mount {
        kind: &'static str,
        target: &'static str,
        #[source]
        source: Errno,
    },
    /// The last file of the initramfs is not there.
    #[error(
        "the kernel did not unpack the whole initramfs: it is damaged, packed in a way that this \
         kernel does not know, or too large for the memory of the VM"
    )]
    Initramfs,
    /// The command line does not allow this run.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The modules of a folder cannot be listed, or one of them cannot be loaded.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The parameter disk did not appear.
    #[error("cannot find the parameter disk {path}")]
    NoParameters {
        path: String,
        #[source]
        source: io::Error,
    },
    /// The parameter disk is there and cannot be opened.
    #[error("cannot open the parameter disk {path}")]
    Parameters {
        path: String,
        #[source]
        source: io::Error,
    },
    /// The VM cannot be saved, or not go on.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The rights of root stay.
    #[error("cannot give up root's rights")]
    Rights(#[source] Errno),
    /// The system calls stay.
    #[error("cannot set the system call filter")]
    Filter(#[source] FilterError),
    /// The worker failed or was ended.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The job itself failed.
    #[error(transparent)]
    Job(#[from] JobError),
}

impl InitError {
    /// Makes an error of a step that the kernel did not do.
    pub(crate) fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { step, source: source.into() }
    }
}

/// Why the helper does not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// This may be any VM.
    #[error("refusing to touch a disk: {} is not on the kernel command line", words::ACTIVATE)]
    NotActivated,
    /// Host and helper are of different versions.
    #[error("the host speaks protocol {theirs}, this helper {ours}; run snf-image-update-helper")]
    Protocol { theirs: String, ours: u32 },
}

/// Why the modules of the initramfs cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    /// The folder cannot be read.
    #[error("cannot list {}", .folder.display())]
    List {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The kernel does not take a module.
    #[error("cannot load the kernel module {}", .module.display())]
    Load {
        module: PathBuf,
        #[source]
        source: Errno,
    },
}

/// Why a VM cannot be saved or go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// The driver has looked at its disks already.
    #[error("a VM with this kernel cannot be saved: it has the driver of {0} built in")]
    BuiltIn(String),
    /// The host wrote bytes.
    #[error("the host's line is not text")]
    NotText(#[source] std::str::Utf8Error),
    /// The clock would be wrong.
    #[error("the host did not say what time it is")]
    NoTime,
    /// The random pool would be that of another run.
    #[error("the host sent no seed for the random pool")]
    NoSeed,
}

/// Why the system call filter is not set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    /// The filter is wrong.
    #[error(transparent)]
    Program(#[from] seccompiler::BackendError),
    /// The kernel does not take it.
    #[error(transparent)]
    Apply(#[from] seccompiler::Error),
}

/// How a worker ended that did not do its job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    /// It lost a pipe before it began.
    #[error("cannot watch the worker: no pipe")]
    NoPipe,
    /// The host said that its time is up.
    #[error("the customization did not finish within {seconds} s and was stopped{doing}")]
    TooLate { seconds: u64, doing: Doing },
    /// It said why: the sentence came through a pipe.
    #[error("{0}")]
    Said(String),
    /// The memory of the VM is too small.
    #[error(
        "the helper VM ran out of memory{doing}; raise HELPER_MEMORY (the image may also be \
         damaged)"
    )]
    Memory { doing: Doing },
    /// SIGSYS of the system call filter.
    #[error("the worker tried something it may not do{doing}: {words}")]
    Forbidden { doing: Doing, words: String },
    /// It panicked.
    #[error("internal error{doing}, nothing was written: {words}")]
    Internal { doing: Doing, words: String },
    /// Another signal.
    #[error("the worker died of signal {signal}{doing}: {words}")]
    Signal { signal: i32, doing: Doing, words: String },
    /// It left without a word.
    #[error("the worker ended without a result{doing}: {words}")]
    NoResult { doing: Doing, words: String },
}

/// The task that a worker was in, as the end of a sentence.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doing(pub(crate) Option<String>);

impl std::fmt::Display for Doing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(task) => write!(f, " in task {task}"),
            None => Ok(()),
        }
    }
}

/// Why the worker cannot do the job that the parameter disk describes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// The parameter disk is damaged.
    #[error("cannot read the parameter disk")]
    Disk(#[source] snf_fs::Error),
    /// A file of the parameter disk is something else, or too long.
    #[error("`{0}` on the parameter disk is not a file of at most {MAX_SIZE} bytes")]
    NotAFile(&'static str),
    /// A file of the parameter disk is shorter than its inode says.
    #[error("`{0}` on the parameter disk ends early")]
    Short(&'static str),
    /// Neither rules nor a request.
    #[error("there is no file `rules` on the parameter disk")]
    NoRules,
    /// The rules are no rules.
    #[error("the rules cannot be read")]
    Rules(#[source] ParseError),
    /// The rules make no plan.
    #[error("the rules cannot be followed")]
    Plan(#[source] RulesError),
    /// The rules do not say which disk it is.
    #[error("the rules do not name the instance's disk (SNF_IMAGE_DEV)")]
    NoDevice,
    /// The rules name a disk that is not here.
    #[error("the rules name the disk {device:?}; this VM has {known}")]
    UnknownDisk { device: String, known: String },
    /// The VM has only the parameter disk.
    #[error("there is no disk to work on in this VM")]
    NoDisk,
    /// The request of `snf-customize` cannot be read.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The kernel's pool gives nothing.
    #[error("cannot get randomness from the kernel")]
    Random(#[source] io::Error),
    /// The image was not customized.
    #[error(transparent)]
    Customize(#[from] CustomizeError),
    /// The disk did not keep what was written.
    #[error(transparent)]
    Flush(#[from] snf_fs::DeviceError),
}
