//! Why a helper VM run, or the making of a helper, failed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::protocol::ProtocolError;

/// Everything that can go wrong with the helper VM, each with its own words.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HelperError {
    /// There is no helper yet.
    #[error("the helper is not built: {0} is missing; run snf-image-update-helper")]
    NotBuilt(PathBuf),
    /// The helper there is cannot be used.
    #[error("the helper in {directory} cannot be used: {problem}; run snf-image-update-helper")]
    BadHelper {
        /// HELPER_DIR.
        directory: PathBuf,
        /// The defect.
        problem: String,
    },
    /// Helper and host do not speak the same protocol version.
    #[error(
        "the helper in {directory} speaks protocol {found} (made by snf-image {made_by}), this host \
         speaks {wanted}; run snf-image-update-helper of this version"
    )]
    OtherProtocol {
        /// HELPER_DIR.
        directory: PathBuf,
        /// The helper's version of the protocol.
        found: u32,
        /// Ours.
        wanted: u32,
        /// Version of snf-image that made the helper.
        made_by: String,
    },
    /// QEMU is not installed, or not where it was looked for.
    #[error("cannot run {qemu}; install qemu-system-x86 or set HELPER_QEMU")]
    QemuMissing {
        /// The program.
        qemu: PathBuf,
        /// Why it did not.
        #[source]
        source: io::Error,
    },
    /// QEMU refused to start the VM.
    #[error("QEMU ended with {status} before the helper reported a result: {stderr}")]
    QemuFailed {
        /// Exit status in words.
        status: String,
        /// The last words of its error output.
        stderr: String,
    },
    /// QEMU died of a signal that is not ours.
    #[error("QEMU was killed by {signal} in the middle of the run; the disk may be half done")]
    QemuKilled {
        /// The signal.
        signal: String,
    },
    /// The VM powered off without a word.
    #[error("the helper VM ended without a result; its last words: {last}")]
    NoResult {
        /// The last lines of the console.
        last: String,
    },
    /// Serial 2 said neither SUCCESS nor ERROR.
    #[error("the helper VM reported {0}")]
    Garbage(String),
    /// The helper did its work and says why it could not.
    #[error("{0}")]
    Failed(String),
    /// The monitor line broke the protocol.
    #[error("the helper VM broke the monitor protocol")]
    Protocol(#[from] ProtocolError),
    /// The soft time limit passed and SIGTERM ended the VM: the limit, and the task it was in as
    /// the end of the sentence.
    #[error(
        "the helper VM did not finish within {} s (HELPER_SOFT_TIMEOUT) and was stopped{}",
        .0.as_secs_f64(), .1
    )]
    SoftTimeout(Duration, String),
    /// The VM did not even end on SIGTERM.
    #[error(
        "the helper VM did not finish within {} s (HELPER_SOFT_TIMEOUT), ignored SIGTERM for {} s \
         (HELPER_HARD_TIMEOUT) and was killed",
        .0.as_secs_f64(), .1.as_secs_f64()
    )]
    HardTimeout(Duration, Duration),
    /// KVM was asked for and does not boot the helper.
    #[error("the helper VM does not run with KVM here: {0}; set HELPER_ACCEL=tcg (or auto)")]
    Kvm(String),
    /// HELPER_USER does not exist.
    #[error("HELPER_USER {0:?} is not a user of this node")]
    NoSuchUser(String),
    /// HELPER_USER or HELPER_UID_RANGE means root.
    #[error(
        "HELPER_USER or HELPER_UID_RANGE is {0:?}, which has root in it: the helper VM must not run as root"
    )]
    RootUser(String),
    /// Every number of HELPER_UID_RANGE is in use.
    #[error("every number of HELPER_UID_RANGE ({0}-{1}) is in use by another run")]
    NoFreeUser(u32, u32),
    /// A signal asked the host's script to stop.
    #[error(transparent)]
    Cancelled(#[from] crate::node::cancel::Cancelled),
    /// A system call of the host side.
    #[error("cannot {action}")]
    System {
        /// The action that failed.
        action: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl HelperError {
    /// A [`HelperError::System`] for `map_err`.
    pub(crate) fn system<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |source| Self::System { action, source: source.into() }
    }
}
