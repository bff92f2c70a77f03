//! Commits through the journal. The module above gives the reasons for the order of writes.

use std::borrow::Cow;

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::area::Area;
use super::find::find;
use super::format::{
    CRC32_CHKSUM, CommitBlock, FLAG_ESCAPE, FLAG_LAST_TAG, FLAG_SAME_UUID, Form, Header,
    JBD2_COMMIT_BLOCK, JBD2_DESCRIPTOR_BLOCK, JBD2_MAGIC_NUMBER, Tag, crc32_be,
};
use super::ordered;
use super::writer::{Writer, read_superblock, zero};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::ext::alloc::is_metadata;
use crate::ext::store::Block;
use crate::ext::superblock::{
    RawSuperblock, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, Superblock, incompat,
};
use crate::ext::units::FsBlock;
use crate::ext::volume::Volume;
use crate::ext::{mmp, quota};
use crate::filesystem::CommitReport;
use crate::num::{low8, low32, to_u32, to_u64};

/// Writes all changes, and what the replay of a dirty journal has to write. After an error the
/// device holds the state before or after a whole transaction, once its journal is replayed; the
/// volume cannot be committed again and must be opened anew.
pub fn commit(vol: &mut Volume) -> Result<CommitReport> {
    if vol.journal.broken {
        return Err(Error::ReadOnly(
            "an earlier commit failed half way; open the file system again".to_owned(),
        ));
    }
    if vol.sb.has_incompat(incompat::RECOVER) {
        return Err(Error::Invalid(
            "the journal was not looked at when this file system was opened".to_owned(),
        ));
    }
    quota::flush(vol)?;
    vol.store_superblock()?;
    if !vol.store.is_dirty() {
        return Ok(CommitReport::default());
    }
    let now = vol.options.now.seconds.cast_unsigned();
    vol.sb.raw.s_wtime.set(low32(now));
    vol.sb.raw.s_wtime_hi = low8(now >> 32);
    vol.store_superblock()?;
    vol.store.seal();
    mmp::check(vol)?;
    let mut report =
        CommitReport { replayed: !vol.store.replayed().is_empty(), ..CommitReport::default() };
    if vol.has_journal() {
        let area = match &vol.journal.area {
            Some(area) => area.clone(),
            None => find(vol)?,
        };
        let form = check_capacity(vol, &area)?;
        let journalled = Journalled::new(vol, area, form)?;
        journalled.vol.journal.broken = true;
        let area = journalled.run(&mut report)?;
        vol.journal.area = Some(area);
    } else {
        vol.journal.broken = true;
        ordered::commit(vol, &mut report)?;
    }
    vol.store.committed();
    vol.journal.broken = false;
    Ok(report)
}

/// Refuses transactions that the journal cannot take, before anything is written. Returns the form
/// to write.
fn check_capacity(vol: &Volume, area: &Area) -> Result<Form> {
    let mut form = area.form;
    let last = vol.store.transactions().iter().filter_map(|t| t.meta.last_key_value());
    if last.into_iter().any(|(&number, _)| number.get() > u64::from(u32::MAX)) {
        form.wide = true;
    }
    for &(first, end) in area.places() {
        if is_metadata(vol, first, end - first)? {
            return Err(Error::corrupt(
                "journal",
                format!("{} blocks at block {first}", end - first),
                "bitmaps, inode tables or descriptors lie in it",
            ));
        }
    }
    let capacity = area.capacity(&form);
    for transaction in vol.store.transactions() {
        if transaction.meta.len() > capacity {
            return Err(Error::NoSpace(format!(
                "a transaction of {} metadata blocks does not fit in the journal of {} blocks; \
                 change less in one run, or enlarge the journal (tune2fs -J size=)",
                transaction.meta.len(),
                area.log_blocks()
            )));
        }
        if let Some((&number, _)) =
            transaction.meta.iter().chain(&transaction.data).find(|&(&n, _)| area.contains(n))
        {
            return Err(Error::corrupt(
                "journal",
                format!("block {number}"),
                "it belongs to the journal or to its map, and to something else that changes",
            ));
        }
    }
    Ok(form)
}

struct Journalled<'a> {
    vol: &'a mut Volume,
    device: std::sync::Arc<dyn BlockDevice>,
    area: Area,
    /// Whether `needs_recovery` is on the device.
    flagged: bool,
}

impl<'a> Journalled<'a> {
    fn new(vol: &'a mut Volume, mut area: Area, form: Form) -> Result<Self> {
        let device = vol.store.device().clone();
        let flagged = read_superblock(&device)?.has_incompat(incompat::RECOVER);
        area.form = form;
        Ok(Self { vol, device, area, flagged })
    }

    fn run(mut self, report: &mut CommitReport) -> Result<Area> {
        if self.area.is_dirty() {
            self.finish_replay()?;
        }
        let vol = &*self.vol;
        let block_size = vol.block_size();
        let transactions = vol.store.transactions();
        for (index, transaction) in transactions.iter().enumerate() {
            if !transaction.zero.is_empty() {
                zero(&self.device, block_size, &transaction.zero)?;
            }
            let mut writer = Writer::new(&self.device, block_size);
            for (&number, content) in &transaction.data {
                writer.write(number, content)?;
            }
            writer.finish()?;
            report.data_blocks += to_u64(transaction.data.len()) + transaction.written;
            if transaction.meta.is_empty() {
                continue;
            }
            if index > 0 {
                // The log is emptied for good before its blocks are overwritten.
                self.device.flush()?;
            }
            let sequence = self.write_log(&transaction.meta)?;
            flag(&self.device, &mut self.flagged)?;
            self.device.flush()?;
            self.area.write_superblock(&self.device, self.area.first, sequence)?;
            self.device.flush()?;
            let (sb_block, _) = vol.superblock_position();
            let mut writer = Writer::new(&self.device, block_size);
            for (&number, content) in transaction.meta.iter().filter(|&(&n, _)| n != sb_block) {
                writer.write(number, content)?;
            }
            writer.finish()?;
            if let Some(content) = transaction.meta.get(&sb_block) {
                self.place_superblock(content)?;
            }
            self.device.flush()?;
            self.area.next_sequence = sequence.wrapping_add(1);
            self.area.write_superblock(&self.device, 0, self.area.next_sequence)?;
            report.metadata_blocks += to_u64(transaction.meta.len());
            report.transactions += 1;
        }
        // The empty log is durable before the flag goes. A replay would change nothing now, but a log
        // with a start in a file system without the flag makes `e2fsck -p` ask for a person.
        self.device.flush()?;
        self.device.write_at(SUPERBLOCK_OFFSET, &self.vol.sb.to_bytes())?;
        self.device.flush()?;
        Ok(self.area)
    }

    /// Writes what the dirty journal holds to its place, and empties the log.
    fn finish_replay(&mut self) -> Result<()> {
        if !self.flagged {
            flag(&self.device, &mut self.flagged)?;
            self.device.flush()?;
        }
        let vol = &*self.vol;
        let (sb_block, _) = vol.superblock_position();
        let mut buf = vec![0; vol.block_size()];
        let mut writer = Writer::new(&self.device, vol.block_size());
        for (&home, &copy) in vol.store.replayed() {
            vol.store.read_replayed(copy, &mut buf)?;
            if home == sb_block {
                self.place_superblock(&buf)?;
            } else {
                writer.write(home, &buf)?;
            }
        }
        writer.finish()?;
        self.device.flush()?;
        self.area.write_superblock(&self.device, 0, self.area.next_sequence)?;
        self.device.flush()?;
        self.vol.store.replayed_written();
        Ok(())
    }

    /// Writes the superblock out of its block, with `needs_recovery`. It goes alone: of a larger write
    /// a power cut may leave half, and of all structures this one has nothing to repair it from but
    /// backups that are older.
    fn place_superblock(&self, block: &[u8]) -> Result<()> {
        let (number, at) = self.vol.superblock_position();
        let block = with_recover(self.vol, number, block);
        Ok(self.device.write_at(SUPERBLOCK_OFFSET, &block[at..at + SUPERBLOCK_SIZE])?)
    }

    /// Writes descriptor blocks, copies and commit block from the start of the log. Returns the
    /// transaction's number.
    fn write_log(&self, meta: &std::collections::BTreeMap<FsBlock, Block>) -> Result<u32> {
        let form = &self.area.form;
        let per_block = form.tags_per_block();
        let length = meta.len() + meta.len().div_ceil(per_block) + 1;
        let sequence = self.pick_sequence(to_u32(length))?;
        let mut log = LogWriter {
            area: &self.area,
            writer: Writer::new(&self.device, form.block_size),
            at: self.area.first,
            crc: !0,
        };
        let entries: Vec<(&FsBlock, &Block)> = meta.iter().collect();
        for chunk in entries.chunks(per_block) {
            let mut descriptor = header(form, JBD2_DESCRIPTOR_BLOCK, sequence);
            let mut copies: Vec<Cow<'_, [u8]>> = Vec::with_capacity(chunk.len());
            let mut at = size_of::<Header>();
            for (index, &(&number, content)) in chunk.iter().enumerate() {
                let mut flags = if index == 0 { 0 } else { FLAG_SAME_UUID };
                if index + 1 == chunk.len() {
                    flags |= FLAG_LAST_TAG;
                }
                let mut copy = with_recover(self.vol, number, content);
                if copy.starts_with(&JBD2_MAGIC_NUMBER.to_be_bytes()) {
                    copy.to_mut()[..4].fill(0);
                    flags |= FLAG_ESCAPE;
                }
                let checksum = form.tag_checksum(sequence, &copy);
                let tag = Tag { block: number.get(), flags, checksum };
                form.write_tag(tag, &mut descriptor[at..at + form.tag_size()]);
                at += form.tag_size();
                if index == 0 {
                    descriptor[at..at + 16].copy_from_slice(&self.area.sb.s_uuid);
                    at += 16;
                }
                copies.push(copy);
            }
            form.seal_tail(&mut descriptor);
            log.write(&descriptor)?;
            for copy in copies {
                log.write(&copy)?;
            }
        }
        let commit = self.commit_block(sequence, log.crc);
        log.write(&commit)?;
        log.writer.finish()?;
        Ok(sequence)
    }

    /// The number for a transaction of `length` blocks: the next, unless what follows it in the log
    /// is a leftover that would be taken for its successor.
    fn pick_sequence(&self, length: u32) -> Result<u32> {
        let sequence = self.area.next_sequence;
        let mut block = vec![0; self.area.form.block_size];
        self.area.read(&self.device, self.area.first + length, &mut block)?;
        let stale = Header::ref_from_prefix(&block).is_ok_and(|(header, _)| {
            header.h_magic.get() == JBD2_MAGIC_NUMBER
                && header.h_sequence.get() == sequence.wrapping_add(1)
        });
        Ok(if stale { sequence.wrapping_add(1) } else { sequence })
    }

    fn commit_block(&self, sequence: u32, crc: u32) -> Vec<u8> {
        let form = &self.area.form;
        let mut commit = CommitBlock::new_zeroed();
        commit.h_header = raw_header(JBD2_COMMIT_BLOCK, sequence);
        commit.h_commit_sec = U64::new(self.vol.options.now.seconds.max(0).cast_unsigned());
        commit.h_commit_nsec = U32::new(self.vol.options.now.nanoseconds);
        if form.v1 {
            (commit.h_chksum_type, commit.h_chksum_size) = CRC32_CHKSUM;
            commit.h_chksum[0] = U32::new(crc);
        }
        let mut block = vec![0; form.block_size];
        block[..size_of::<CommitBlock>()].copy_from_slice(commit.as_bytes());
        if form.has_csum() {
            commit.h_chksum[0] = U32::new(form.commit_checksum(&block));
            block[..size_of::<CommitBlock>()].copy_from_slice(commit.as_bytes());
        }
        block
    }
}

/// Writes the blocks of the log one after the other.
struct LogWriter<'a> {
    area: &'a Area,
    writer: Writer<'a>,
    at: u32,
    /// CRC32 of version 1 over all blocks so far.
    crc: u32,
}

impl LogWriter<'_> {
    fn write(&mut self, block: &[u8]) -> Result<()> {
        if self.area.form.v1 {
            self.crc = crc32_be(self.crc, block);
        }
        let (physical, _) = self.area.physical(self.at)?;
        self.at = self.area.next(self.at);
        self.writer.write(physical, block)
    }
}

fn raw_header(block_type: u32, sequence: u32) -> Header {
    Header {
        h_magic: U32::new(JBD2_MAGIC_NUMBER),
        h_blocktype: U32::new(block_type),
        h_sequence: U32::new(sequence),
    }
}

fn header(form: &Form, block_type: u32, sequence: u32) -> Vec<u8> {
    let mut block = vec![0; form.block_size];
    let header = raw_header(block_type, sequence);
    block[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    block
}

/// Turns `needs_recovery` on in the superblock that is on the device.
fn flag(device: &dyn BlockDevice, flagged: &mut bool) -> Result<()> {
    if !*flagged {
        let mut sb = read_superblock(device)?;
        sb.set_incompat(incompat::RECOVER, true);
        device.write_at(SUPERBLOCK_OFFSET, &sb.to_bytes())?;
        *flagged = true;
    }
    Ok(())
}

/// A block as it may be on the device before the commit is complete: where it holds the superblock,
/// with `needs_recovery`.
fn with_recover<'b>(vol: &Volume, number: FsBlock, content: &'b [u8]) -> Cow<'b, [u8]> {
    let (sb_block, at) = vol.superblock_position();
    if number != sb_block {
        return Cow::Borrowed(content);
    }
    let mut block = content.to_vec();
    if let Ok(raw) = RawSuperblock::read_from_bytes(&block[at..at + SUPERBLOCK_SIZE]) {
        let mut sb = Superblock { raw };
        sb.set_incompat(incompat::RECOVER, true);
        block[at..at + SUPERBLOCK_SIZE].copy_from_slice(&sb.to_bytes());
    }
    Cow::Owned(block)
}
