//! Why an instance was not deployed.

use std::io;

use snf_image::failure::sentence;
use snf_image::params::Problem;
use snf_image::passwords::PasswordError;
use snf_image::rules::{RulesError, WriteError};

use crate::backend::BackendError;
use crate::disk::error::TargetError;
use crate::disk::open::DiskError;
use crate::helper::HelperError;
use crate::helper::floppy::FloppyError;
use crate::image::copy::CopyError;
use crate::image::fetch::FetchError;
use crate::image::source::SourceError;
use crate::node::cancel::Cancelled;
use crate::node::env::EnvError;
use crate::node::trust::Distrust;

/// Why an instance was not deployed. Everything the node did for it is undone but for what was
/// written to the disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// Ganeti's environment.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// Wrong or missing OS parameters.
    #[error("the OS parameters are wrong: {}", list(.0))]
    Parameters(Vec<Problem>),
    /// No OS parameter at all.
    #[error(
        "no OS parameters were given, not even img_id and img_format; pass them with -O \
         (gnt-instance reinstall forgets stored ones in Ganeti 3.0, so pass them again there), or set \
         IMG_ID and IMG_FORMAT in /etc/default/snf-image"
    )]
    NoParameters,
    /// There is no disk to deploy to.
    #[error("{0}")]
    Disk(String),
    /// The image.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// `config_url` or `os_answer_file`.
    #[error("{parameter}")]
    Fetch {
        /// The parameter with the URL.
        parameter: &'static str,
        /// The cause.
        source: FetchError,
    },
    /// Copying.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The disk.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Opening a disk.
    #[error(transparent)]
    OpenDisk(#[from] DiskError),
    /// A back-end that is asked for disks.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A parameter that the rules cannot hold.
    #[error(transparent)]
    Rules(#[from] WriteError),
    /// Parameters that the helper would refuse.
    #[error(transparent)]
    Plan(#[from] RulesError),
    /// A password that no guest could take.
    #[error("img_passwd")]
    Password(#[from] PasswordError),
    /// The parameter disk.
    #[error(transparent)]
    Floppy(#[from] FloppyError),
    /// Others than root could change what root runs.
    #[error("{key} is refused")]
    Distrust {
        /// The key of the configuration.
        key: &'static str,
        /// The reason, and how to mend it.
        source: Distrust,
    },
    /// The helper VM.
    #[error(transparent)]
    Helper(#[from] HelperError),
    /// A system call.
    #[error("cannot {action}")]
    System {
        /// The action that failed.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A signal came.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl CreateError {
    /// The message for the instance's owner: it says nothing about the node.
    pub fn public(&self) -> String {
        match self {
            Self::Parameters(_)
            | Self::NoParameters
            | Self::Plan(_)
            | Self::Floppy(FloppyError::Format(_)) => self.to_string(),
            Self::Password(_) => sentence(self),
            Self::Copy(CopyError::TooLarge { needed, available, .. }) => format!(
                "the image needs {needed} bytes and the disk has {available}; make the disk larger"
            ),
            Self::Source(error) | Self::Copy(CopyError::Source(error)) => match error {
                SourceError::Id { .. } => error.to_string(),
                SourceError::Refused(_) => "the node does not allow this img_id".into(),
                _ => "the image could not be read".into(),
            },
            Self::Copy(_) | Self::Target(_) | Self::OpenDisk(_) | Self::Backend(_) => {
                "the image could not be copied to the disk".into()
            }
            Self::Helper(HelperError::Failed(text)) => text.clone(),
            Self::Helper(HelperError::SoftTimeout(..) | HelperError::HardTimeout(..)) => {
                "customizing the image took too long".into()
            }
            Self::Helper(_) => "the image could not be customized".into(),
            Self::Fetch { parameter, .. } => format!("the text at {parameter} cannot be used"),
            Self::Cancelled(_) => "the deployment was stopped".into(),
            _ => "the deployment failed; the node's log says why".into(),
        }
    }
}
