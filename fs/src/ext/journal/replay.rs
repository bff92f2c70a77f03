//! Finds out what replaying a dirty journal would write, and writes nothing.
//!
//! jbd2 goes over the log three times: to find its end, to collect revocations, to copy blocks.
//! Here one walk over descriptor, revoke and commit blocks notes the place of each block's copy;
//! copies themselves stay in the journal and are read when the block is read.

use std::collections::{BTreeMap, HashMap};

use zerocopy::FromBytes;

use super::area::Area;
use super::format::{
    CRC32_CHKSUM, CommitBlock, FLAG_ESCAPE, Header, JBD2_COMMIT_BLOCK, JBD2_DESCRIPTOR_BLOCK,
    JBD2_MAGIC_NUMBER, JBD2_REVOKE_BLOCK, crc32_be, sequence_after,
};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::ext::store::Replayed;
use crate::ext::units::FsBlock;
use crate::num::{to_u32, to_u64};

/// Copies and revocations that are noted at most. A journal of 1 GiB in 4 KiB blocks, the largest that
/// mke2fs makes by itself, has 262,144 blocks; each costs us about 100 bytes.
const MAX_NOTES: usize = 1 << 19;

/// The content of the log.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// For each block of the file system to be written, where its content is.
    pub blocks: BTreeMap<FsBlock, Replayed>,
    /// The sequence number of the first transaction that is not complete.
    pub end: u32,
}

/// A copy of a block in the log.
struct Copy {
    home: FsBlock,
    log: u32,
    escaped: bool,
    checksum: u32,
    sequence: u32,
}

/// The part of the current transaction that the walk has seen.
#[derive(Default)]
struct Open {
    copies: Vec<Copy>,
    revoked: Vec<FsBlock>,
    /// CRC32 of version 1 so far.
    crc: u32,
    /// A descriptor or revoke block had a bad checksum: the transaction is corrupt, or these are
    /// leftovers of an earlier lap; the time of the commit block decides.
    suspect: Option<u32>,
}

impl Open {
    fn new() -> Self {
        Self { crc: !0, ..Self::default() }
    }
}

struct Walk<'a> {
    area: &'a Area,
    device: &'a dyn BlockDevice,
    /// The next block of the log.
    at: u32,
    /// Blocks of the log passed: a hostile log without a commit block must not go round for ever.
    passed: u32,
    sequence: u32,
    last_commit_time: u64,
    copies: Vec<Copy>,
    /// Each revoked block with the newest transaction that revokes it.
    revoked: HashMap<FsBlock, u32>,
}

/// Walks the log from `s_start`.
pub(super) fn scan(area: &Area, device: &dyn BlockDevice) -> Result<Replay> {
    let mut walk = Walk {
        area,
        device,
        at: area.sb.s_start.get(),
        passed: 0,
        sequence: area.sb.s_sequence.get(),
        last_commit_time: 0,
        copies: Vec::new(),
        revoked: HashMap::new(),
    };
    walk.run()?;
    walk.finish()
}

impl Walk<'_> {
    fn run(&mut self) -> Result<()> {
        let mut open = Open::new();
        let mut block = vec![0; self.area.form.block_size];
        while self.passed < self.area.log_blocks() {
            let notes = self.copies.len() + open.copies.len() + open.revoked.len();
            if notes.max(self.revoked.len()) > MAX_NOTES {
                return Err(Error::unsupported(
                    format!("an unclean journal with more than {MAX_NOTES} blocks to replay"),
                    "mount and unmount the file system once on a Linux system",
                ));
            }
            let log = self.at;
            self.area.read(self.device, log, &mut block)?;
            let Ok((header, _)) = Header::ref_from_prefix(&block) else { break };
            if header.h_magic.get() != JBD2_MAGIC_NUMBER || header.h_sequence.get() != self.sequence
            {
                break;
            }
            let block_type = header.h_blocktype.get();
            self.advance(1);
            match block_type {
                JBD2_DESCRIPTOR_BLOCK => {
                    if !self.area.form.verify_tail(&block) {
                        open.suspect.get_or_insert(log);
                    }
                    if self.area.form.v1 {
                        open.crc = crc32_be(open.crc, &block);
                    }
                    if !self.descriptor(&block, &mut open)? {
                        break;
                    }
                }
                JBD2_REVOKE_BLOCK => {
                    if !self.area.form.verify_tail(&block) {
                        open.suspect.get_or_insert(log);
                    } else if let Some(blocks) = self.area.form.revoked(&block) {
                        open.revoked.extend(blocks.into_iter().map(FsBlock::new));
                    } else {
                        return Err(Error::corrupt(
                            "journal revoke block",
                            format!("journal block {log}"),
                            "r_count does not fit the block",
                        ));
                    }
                }
                JBD2_COMMIT_BLOCK => {
                    if !self.commit(&block, std::mem::replace(&mut open, Open::new()))? {
                        break;
                    }
                }
                _ => break,
            }
        }
        Ok(())
    }

    fn advance(&mut self, blocks: u32) {
        self.passed = self.passed.saturating_add(blocks);
        // `at` is within the log and `blocks` is less than its length, or the walk ends.
        let ahead = u64::from(self.at) + u64::from(blocks);
        let last = u64::from(self.area.last);
        let wrapped = if ahead >= last { ahead - u64::from(self.area.log_blocks()) } else { ahead };
        self.at = if wrapped < last { to_u32(wrapped) } else { self.area.first };
    }

    /// Notes the copies that a descriptor block announces. False when the log ends in them.
    fn descriptor(&mut self, block: &[u8], open: &mut Open) -> Result<bool> {
        let tags = self.area.form.tags(block);
        let mut copy = vec![0; if self.area.form.v1 { block.len() } else { 0 }];
        for tag in tags {
            if self.passed >= self.area.log_blocks() {
                return Ok(false);
            }
            let log = self.at;
            if self.area.form.v1 {
                self.area.read(self.device, log, &mut copy)?;
                open.crc = crc32_be(open.crc, &copy);
            }
            open.copies.push(Copy {
                home: FsBlock::new(tag.block),
                log,
                escaped: tag.flags & FLAG_ESCAPE != 0,
                checksum: tag.checksum,
                sequence: self.sequence,
            });
            self.advance(1);
        }
        Ok(true)
    }

    /// Takes the open transaction over if its commit block is good. False when the log ends here.
    fn commit(&mut self, block: &[u8], open: Open) -> Result<bool> {
        let Ok((commit, _)) = CommitBlock::ref_from_prefix(block) else { return Ok(false) };
        let time = commit.h_commit_sec.get();
        if let Some(suspect) = open.suspect {
            if time < self.last_commit_time {
                return Ok(false);
            }
            return Err(Error::corrupt(
                "journal",
                format!("journal block {suspect}"),
                format!(
                    "bad checksum in the committed transaction {}; e2fsck decides what to keep",
                    self.sequence
                ),
            ));
        }
        let found = commit.h_chksum[0].get();
        let good = if self.area.form.v1 {
            let kind = (commit.h_chksum_type, commit.h_chksum_size);
            kind == CRC32_CHKSUM && found == open.crc || kind == (0, 0) && found == 0
        } else if self.area.form.has_csum() {
            let whole = self.area.form.commit_checksum(block);
            // A kernel that was stopped in the middle may have left rubbish after the fields.
            let mut fields = vec![0; block.len()];
            let used = size_of::<CommitBlock>();
            fields[..used].copy_from_slice(&block[..used]);
            found == whole || found == self.area.form.commit_checksum(&fields)
        } else {
            true
        };
        if !good {
            // Written in part, with async_commit before its blocks, or of an earlier lap: in each
            // case the log ends before it.
            return Ok(false);
        }
        self.last_commit_time = time;
        for block in open.revoked {
            let newest = self.revoked.entry(block).or_insert(self.sequence);
            if sequence_after(self.sequence, *newest) {
                *newest = self.sequence;
            }
        }
        self.copies.extend(open.copies);
        self.sequence = self.sequence.wrapping_add(1);
        Ok(true)
    }

    /// The last copy of every block that is not revoked after it, with its checksum verified.
    fn finish(self) -> Result<Replay> {
        let device_blocks = self.device.len() / to_u64(self.area.form.block_size);
        let mut newest: BTreeMap<FsBlock, &Copy> = BTreeMap::new();
        for copy in &self.copies {
            let revoked = self.revoked.get(&copy.home);
            if revoked.is_some_and(|&revoked| !sequence_after(copy.sequence, revoked)) {
                continue;
            }
            if copy.home.get() >= device_blocks || self.area.contains(copy.home) {
                return Err(Error::corrupt(
                    "journal descriptor",
                    format!("transaction {}", copy.sequence),
                    if copy.home.get() >= device_blocks {
                        format!("block {} is beyond the device", copy.home)
                    } else {
                        format!("block {} belongs to the journal itself", copy.home)
                    },
                ));
            }
            newest.insert(copy.home, copy);
        }
        let mut blocks = BTreeMap::new();
        let mut buf = vec![0; self.area.form.block_size];
        for (home, copy) in newest {
            if self.area.form.has_csum() {
                self.area.read(self.device, copy.log, &mut buf)?;
                if self.area.form.tag_checksum(copy.sequence, &buf) != copy.checksum {
                    return Err(Error::corrupt(
                        "journal",
                        format!("journal block {}", copy.log),
                        format!(
                            "bad checksum of block {home} in the committed transaction {}; \
                             e2fsck decides what to keep",
                            copy.sequence
                        ),
                    ));
                }
            }
            let (physical, _) = self.area.physical(copy.log)?;
            let head = copy.escaped.then(|| JBD2_MAGIC_NUMBER.to_be_bytes());
            blocks.insert(home, Replayed { physical, head });
        }
        Ok(Replay { blocks, end: self.sequence })
    }
}
