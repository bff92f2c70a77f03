//! The errors of a hive.

/// The result of everything in this module.
pub type Result<T, E = HiveError> = std::result::Result<T, E>;

/// Why a hive cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum HiveError {
    /// A structure contradicts itself or the rest of the hive.
    #[error("corrupt {structure} at byte {offset} of the hive: {detail}")]
    Corrupt {
        /// The structure in the specification's words.
        structure: &'static str,
        /// Byte in the file.
        offset: u64,
        /// The value found and the value expected.
        detail: String,
    },
    /// The hive was not written to its end, and its logs do not mend that.
    #[error(
        "the hive was not closed cleanly (sequence numbers {primary} and {secondary}) and {reason}; \
         start and shut down the image's Windows once (without fast startup)"
    )]
    Dirty {
        /// The base block's primary sequence number.
        primary: u32,
        /// The secondary one.
        secondary: u32,
        /// Why the logs did not help.
        reason: LogProblem,
    },
    /// A kind of hive that is not handled.
    #[error("{what} is not supported; {remedy}")]
    Unsupported {
        /// Its kind.
        what: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// The file of the hive cannot be read.
    #[error("the hive cannot be read")]
    Read(#[source] snf_fs::Error),
    /// The request makes no sense or does not fit.
    #[error("{0}")]
    Invalid(String),
}

/// Why the logs of a hive do not mend it. The words follow "and".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogProblem {
    /// Nobody looked for them.
    #[error("its logs were not given")]
    NotGiven,
    /// There is none.
    #[error("there is no log with which to mend it")]
    None,
    /// They are older than the hive.
    #[error("its logs have no entry for it")]
    NoEntry,
    /// A log of so many bytes claims more than it holds.
    #[error("its log makes it {0} bytes long and does not hold as much")]
    Long(usize),
    /// A log in the old format that does not belong to it.
    #[error("its log is of another time, or not whole")]
    OtherTime,
    /// A log without pages.
    #[error("its log is of no hive")]
    NoHive,
    /// A log that ends early.
    #[error("its log is cut short")]
    Short,
}

impl HiveError {
    /// A [`HiveError::Corrupt`] about a cell's offset, which counts from the hive bins data.
    pub(super) fn cell(structure: &'static str, offset: u32, detail: impl Into<String>) -> Self {
        let offset = u64::from(offset) + super::format::PAGE as u64;
        Self::Corrupt { structure, offset, detail: detail.into() }
    }

    /// A [`HiveError::Corrupt`] about the base block.
    pub(super) fn base(detail: impl Into<String>) -> Self {
        Self::Corrupt { structure: "base block", offset: 0, detail: detail.into() }
    }
}
