//! A change of a partition table, decided and not yet written.

use std::fmt;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::relocate::{Move, Obstacle};
use crate::table::{Partition, Role, TableKind, read};

/// Bytes and where on the disk they go.
pub type Write = (u64, Vec<u8>);

/// One thing that a plan does, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A disk gets a table that had none.
    NewTable(TableKind),
    /// A partition gets a new size; it keeps all else.
    Resize {
        /// As it is.
        before: Partition,
        /// As it will be.
        after: Partition,
    },
    /// A partition moves to another place with its content; it keeps all else.
    Move {
        /// As it is.
        before: Partition,
        /// As it will be.
        after: Partition,
    },
    /// A partition is added.
    Add(Partition),
    /// The backup GPT is written to the end of the disk.
    WriteBackup {
        /// The sector where it was.
        from: u64,
        /// The sector where it will be.
        to: u64,
    },
    /// The damaged primary GPT is written anew from the backup.
    RestorePrimary,
    /// The protective MBR is made to cover the disk.
    FixProtectiveMbr,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewTable(kind) => write!(f, "write a new {kind}"),
            Self::Resize { before, after } => {
                let what =
                    if after.role == Role::Extended { "extended partition" } else { "partition" };
                write!(
                    f,
                    "enlarge {what} {} from {} to {} sectors (it ends before sector {})",
                    after.number,
                    before.size,
                    after.size,
                    after.end()
                )
            }
            Self::Move { before, after } => {
                let what =
                    if after.role == Role::Extended { "extended partition" } else { "partition" };
                write!(
                    f,
                    "move {what} {} ({} sectors) from sector {} to sector {}",
                    after.number, after.size, before.start, after.start
                )
            }
            Self::Add(partition) => write!(
                f,
                "add {} partition {} of type {}: {} sectors from sector {}",
                match partition.role {
                    Role::Primary => "primary",
                    Role::Extended => "extended",
                    Role::Logical => "logical",
                },
                partition.number,
                partition.partition_type,
                partition.size,
                partition.start
            ),
            Self::WriteBackup { from, to } if from == to => {
                write!(f, "write the backup GPT in sector {to} anew")
            }
            Self::WriteBackup { from, to } => {
                write!(f, "move the backup GPT from sector {from} to sector {to}")
            }
            Self::RestorePrimary => f.write_str("restore the primary GPT from the backup"),
            Self::FixProtectiveMbr => f.write_str("make the protective MBR cover the disk"),
        }
    }
}

/// A change of a partition table, decided and not yet written.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) sector_size: u32,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) changes: Vec<Change>,
    pub(crate) stages: Vec<Vec<Write>>,
    pub(crate) notes: Vec<String>,
    pub(crate) moves: Vec<Move>,
    pub(crate) obstacle: Option<Obstacle>,
}

impl Plan {
    /// The partitions whose content must be at its new place, and flushed, before the first byte of
    /// the plan is written.
    pub fn moves(&self) -> &[Move] {
        &self.moves
    }

    /// Why the partitions after the one that grows stay where they are, when that keeps it from
    /// growing.
    pub fn obstacle(&self) -> Option<&Obstacle> {
        self.obstacle.as_ref()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// The sector size that the table counts in.
    pub fn sector_size(&self) -> u32 {
        self.sector_size
    }

    /// The partitions as they will be, by number.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// The changes, in the order in which a person wants to read them.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The partition that grows (extended partitions aside): as it is and as it will be.
    pub fn grown(&self) -> Option<(&Partition, &Partition)> {
        self.changes.iter().find_map(|change| match change {
            Change::Resize { before, after } if !after.is_extended() => Some((before, after)),
            _ => None,
        })
    }

    /// The partition for data that is added.
    pub fn added(&self) -> Option<&Partition> {
        self.changes.iter().find_map(|change| match change {
            Change::Add(partition) if !partition.is_extended() => Some(partition),
            _ => None,
        })
    }

    /// Further notes for the person: why something was not done.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// One line for each change, for `--dry-run`.
    pub fn describe(&self) -> String {
        if self.changes.is_empty() {
            return "it stays as it is\n".to_owned();
        }
        self.changes.iter().map(|change| format!("{change}\n")).collect()
    }

    /// The bytes to write, for a caller who keeps an overlay: all of one stage must be on stable
    /// storage before the next begins, and within a stage the order counts.
    pub fn stages(&self) -> &[Vec<Write>] {
        &self.stages
    }

    /// Writes the plan, with a flush after each stage, and reads the table back. The content of
    /// what moves ([`Plan::moves`]) is the caller's to carry, before this.
    ///
    /// # Errors
    /// [`Error::Io`] where the disk fails. The table that was written until then works.
    pub fn write(&self, disk: &dyn Disk) -> Result<()> {
        for stage in &self.stages {
            for (offset, bytes) in stage {
                disk.write_at(*offset, bytes).map_err(|source| Error::Io {
                    operation: "write",
                    offset: *offset,
                    length: bytes.len(),
                    source,
                })?;
            }
            disk.flush().map_err(|source| Error::Io {
                operation: "flush",
                offset: 0,
                length: 0,
                source,
            })?;
        }
        self.verify(disk)
    }

    /// Whether the disk has the planned partitions.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the disk does not hold what the plan wrote, [`Error::Io`] where it
    /// fails.
    pub fn verify(&self, disk: &dyn Disk) -> Result<()> {
        let found = read(disk)?.map(|table| table.partitions).unwrap_or_default();
        if found == self.partitions {
            return Ok(());
        }
        Err(Error::corrupt(
            "partition table",
            "the disk",
            "the disk gave back other bytes than were written; it may be faulty",
        ))
    }
}
