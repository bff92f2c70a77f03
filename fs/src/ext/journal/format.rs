//! The structures of jbd2 as they are on disk. All fields are big-endian.
//!
//! Source: the kernel's Documentation/filesystems/ext4/journal.rst.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ext::checksum::crc32c;
use crate::num::{low16, low32, to_usize};

/// `h_magic` of every block that is not a copy of a file system block.
pub const JBD2_MAGIC_NUMBER: u32 = 0xC03B_3998;
/// `h_blocktype`: tags, each for a block that follows.
pub const JBD2_DESCRIPTOR_BLOCK: u32 = 1;
/// `h_blocktype`: the transaction is complete.
pub const JBD2_COMMIT_BLOCK: u32 = 2;
/// `h_blocktype`: superblock without features.
pub const JBD2_SUPERBLOCK_V1: u32 = 3;
/// `h_blocktype`: superblock.
pub const JBD2_SUPERBLOCK_V2: u32 = 4;
/// `h_blocktype`: blocks that must not be replayed from this or earlier transactions.
pub const JBD2_REVOKE_BLOCK: u32 = 5;

/// `s_feature_compat`: commit blocks carry a CRC32 of the transaction (version 1).
pub const FEATURE_COMPAT_CHECKSUM: u32 = 0x1;
/// `s_feature_incompat`: revoke blocks may be there.
pub const FEATURE_INCOMPAT_REVOKE: u32 = 0x1;
/// `s_feature_incompat`: block numbers have 64 bits.
pub const FEATURE_INCOMPAT_64BIT: u32 = 0x2;
/// `s_feature_incompat`: a commit block may have been written before what it commits.
pub const FEATURE_INCOMPAT_ASYNC_COMMIT: u32 = 0x4;
/// `s_feature_incompat`: crc32c in every block, 16 bits of it in tags.
pub const FEATURE_INCOMPAT_CSUM_V2: u32 = 0x8;
/// `s_feature_incompat`: crc32c in every block and tag.
pub const FEATURE_INCOMPAT_CSUM_V3: u32 = 0x10;
/// `s_feature_incompat`: the end of the journal holds fast commits.
pub const FEATURE_INCOMPAT_FAST_COMMIT: u32 = 0x20;
/// All incompatible features known here.
pub const FEATURE_INCOMPAT_KNOWN: u32 = FEATURE_INCOMPAT_REVOKE
    | FEATURE_INCOMPAT_64BIT
    | FEATURE_INCOMPAT_ASYNC_COMMIT
    | FEATURE_INCOMPAT_CSUM_V2
    | FEATURE_INCOMPAT_CSUM_V3
    | FEATURE_INCOMPAT_FAST_COMMIT;

/// `t_flags`: the copy's first four bytes were the magic number and are zero in the journal.
pub const FLAG_ESCAPE: u32 = 1;
/// `t_flags`: no UUID follows this tag.
pub const FLAG_SAME_UUID: u32 = 2;
/// `t_flags`: the last tag of its block.
pub const FLAG_LAST_TAG: u32 = 8;

/// Blocks of the fast commit area when the superblock has 0 there.
pub const DEFAULT_FC_BLOCKS: u32 = 256;

/// The first 12 bytes of each block that is not a copy.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)] // the names are the specification's
pub struct Header {
    pub h_magic: U32,
    pub h_blocktype: U32,
    pub h_sequence: U32,
}

/// The journal's superblock: the first 1024 bytes of its first block.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)] // the names are the specification's
pub struct JournalSuperblock {
    pub s_header: Header,
    pub s_blocksize: U32,
    pub s_maxlen: U32,
    pub s_first: U32,
    pub s_sequence: U32,
    pub s_start: U32,
    pub s_errno: U32,
    pub s_feature_compat: U32,
    pub s_feature_incompat: U32,
    pub s_feature_ro_compat: U32,
    pub s_uuid: [u8; 16],
    pub s_nr_users: U32,
    pub s_dynsuper: U32,
    pub s_max_transaction: U32,
    pub s_max_trans_data: U32,
    pub s_checksum_type: u8,
    pub s_padding2: [u8; 3],
    pub s_num_fc_blks: U32,
    pub s_head: U32,
    pub s_padding: [U32; 40],
    pub s_checksum: U32,
    pub s_users: [u8; 768],
}

/// The start of a commit block.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)] // the names are the specification's
pub struct CommitBlock {
    pub h_header: Header,
    pub h_chksum_type: u8,
    pub h_chksum_size: u8,
    pub h_padding: [u8; 2],
    pub h_chksum: [U32; 8],
    pub h_commit_sec: U64,
    pub h_commit_nsec: U32,
}

/// The tag of journals without CSUM_V3; `t_blocknr_high` is there with 64BIT only.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)] // the names are the specification's
pub struct RawTag {
    pub t_blocknr: U32,
    pub t_checksum: U16,
    pub t_flags: U16,
    pub t_blocknr_high: U32,
}

/// The tag of journals with CSUM_V3.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)] // the names are the specification's
pub struct RawTag3 {
    pub t_blocknr: U32,
    pub t_flags: U32,
    pub t_blocknr_high: U32,
    pub t_checksum: U32,
}

const _: () = assert!(size_of::<Header>() == 12);
const _: () = assert!(size_of::<JournalSuperblock>() == 1024);
const _: () = assert!(size_of::<CommitBlock>() == 60);
const _: () = assert!(size_of::<RawTag>() == 12);
const _: () = assert!(size_of::<RawTag3>() == 16);

/// Bytes of the checksum at the end of descriptor and revoke blocks.
pub const TAIL_SIZE: usize = 4;
/// `h_chksum_type` and `h_chksum_size` of version 1.
pub const CRC32_CHKSUM: (u8, u8) = (1, 4);

/// One tag of a descriptor block, in any of its forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The block's place in the file system.
    pub block: u64,
    /// `FLAG_*`.
    pub flags: u32,
    /// Checksum of the copy: 32 bits, 16 or none, as the journal has it.
    pub checksum: u32,
}

/// The form of blocks and tags, as the features define it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Bytes in a block.
    pub block_size: usize,
    /// Block numbers of 64 bits.
    pub wide: bool,
    /// CSUM_V3.
    pub v3: bool,
    /// CSUM_V2.
    pub v2: bool,
    /// Version 1: a CRC32 of the transaction in the commit block.
    pub v1: bool,
    /// crc32c of the journal's UUID: the seed of the checksums of versions 2 and 3.
    pub seed: u32,
}

impl Form {
    /// Whether blocks carry a crc32c.
    pub fn has_csum(&self) -> bool {
        self.v2 || self.v3
    }

    /// Bytes of a tag, without the UUID that may follow. CSUM_V2 adds two bytes that hold nothing:
    /// the journal's first checksums were made with such tags, and so they stay.
    pub fn tag_size(&self) -> usize {
        if self.v3 {
            return size_of::<RawTag3>();
        }
        let size = if self.wide { size_of::<RawTag>() } else { size_of::<RawTag>() - 4 };
        if self.v2 { size + 2 } else { size }
    }

    /// Bytes of a descriptor or revoke block before its checksum.
    pub fn usable(&self) -> usize {
        if self.has_csum() { self.block_size - TAIL_SIZE } else { self.block_size }
    }

    /// Tags that fit in a descriptor block when only the first has a UUID.
    pub fn tags_per_block(&self) -> usize {
        (self.usable() - size_of::<Header>() - 16) / self.tag_size()
    }

    /// All tags of a descriptor block.
    pub fn tags(&self, block: &[u8]) -> Vec<Tag> {
        let mut tags = Vec::new();
        let mut at = size_of::<Header>();
        let size = self.tag_size();
        while let Some(bytes) = block.get(at..at + size).filter(|_| at + size <= self.usable()) {
            let tag = self.parse_tag(bytes);
            tags.push(tag);
            at += size;
            if tag.flags & FLAG_SAME_UUID == 0 {
                at += 16;
            }
            if tag.flags & FLAG_LAST_TAG != 0 {
                break;
            }
        }
        tags
    }

    fn parse_tag(&self, bytes: &[u8]) -> Tag {
        if self.v3 {
            let Ok((raw, _)) = RawTag3::ref_from_prefix(bytes) else {
                return Tag { block: u64::MAX, flags: FLAG_LAST_TAG, checksum: 0 };
            };
            let high = if self.wide { u64::from(raw.t_blocknr_high.get()) << 32 } else { 0 };
            return Tag {
                block: high | u64::from(raw.t_blocknr.get()),
                flags: raw.t_flags.get(),
                checksum: raw.t_checksum.get(),
            };
        }
        let mut whole = [0; size_of::<RawTag>()];
        let length = bytes.len().min(if self.wide { 12 } else { 8 });
        whole[..length].copy_from_slice(&bytes[..length]);
        let raw: RawTag = zerocopy::transmute!(whole);
        Tag {
            block: u64::from(raw.t_blocknr_high.get()) << 32 | u64::from(raw.t_blocknr.get()),
            flags: u32::from(raw.t_flags.get()),
            checksum: u32::from(raw.t_checksum.get()),
        }
    }

    /// Writes a tag at the start of `out`, which has [`Form::tag_size`] bytes.
    pub fn write_tag(&self, tag: Tag, out: &mut [u8]) {
        out.fill(0);
        if self.v3 {
            let raw = RawTag3 {
                t_blocknr: U32::new(low32(tag.block)),
                t_flags: U32::new(tag.flags),
                t_blocknr_high: U32::new(low32(tag.block >> 32)),
                t_checksum: U32::new(tag.checksum),
            };
            out.copy_from_slice(raw.as_bytes());
            return;
        }
        let raw = RawTag {
            t_blocknr: U32::new(low32(tag.block)),
            t_checksum: U16::new(if self.v2 { low16(tag.checksum) } else { 0 }),
            t_flags: U16::new(low16(tag.flags)),
            t_blocknr_high: U32::new(low32(tag.block >> 32)),
        };
        let length = if self.wide { 12 } else { 8 };
        out[..length].copy_from_slice(&raw.as_bytes()[..length]);
    }

    /// The checksum that the tag of a copied block has.
    pub fn tag_checksum(&self, sequence: u32, copy: &[u8]) -> u32 {
        if !self.has_csum() {
            return 0;
        }
        let crc = crc32c(crc32c(self.seed, &sequence.to_be_bytes()), copy);
        if self.v3 { crc } else { crc & 0xFFFF }
    }

    /// The checksum at the end of a descriptor or revoke block.
    fn tail_checksum(&self, block: &[u8]) -> u32 {
        let crc = crc32c(self.seed, &block[..self.block_size - TAIL_SIZE]);
        crc32c(crc, &[0; TAIL_SIZE])
    }

    /// Whether the checksum at the end of a descriptor or revoke block is right.
    pub fn verify_tail(&self, block: &[u8]) -> bool {
        !self.has_csum()
            || block[self.block_size - TAIL_SIZE..] == self.tail_checksum(block).to_be_bytes()
    }

    /// Writes the checksum at the end of a descriptor or revoke block.
    pub fn seal_tail(&self, block: &mut [u8]) {
        if self.has_csum() {
            let crc = self.tail_checksum(block);
            block[self.block_size - TAIL_SIZE..].copy_from_slice(&crc.to_be_bytes());
        }
    }

    /// The crc32c that a commit block has in `h_chksum[0]`.
    pub fn commit_checksum(&self, block: &[u8]) -> u32 {
        const AT: usize = 16;
        let crc = crc32c(self.seed, &block[..AT]);
        let crc = crc32c(crc, &[0; 4]);
        crc32c(crc, &block[AT + 4..])
    }

    /// The block numbers of a revoke block; `None` when its count is impossible.
    pub fn revoked(&self, block: &[u8]) -> Option<Vec<u64>> {
        const AT: usize = 16;
        let used = block.get(12..AT).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)?;
        let used = to_usize(used);
        if used < AT || used > self.usable() {
            return None;
        }
        let size = if self.wide { 8 } else { 4 };
        Some(
            block[AT..used]
                .chunks_exact(size)
                .map(|bytes| bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
                .collect(),
        )
    }
}

/// The CRC32 of version 1: polynomial 0x04C11DB7, most significant bit first, no inversion.
pub fn crc32_be(mut crc: u32, data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        // The same number twice: it counts bytes, and is an index.
        let (mut index, mut byte) = (0, 0u32);
        while index < 256 {
            let mut value = byte << 24;
            let mut bit = 0;
            while bit < 8 {
                value = if value >> 31 != 0 { value << 1 ^ 0x04C1_1DB7 } else { value << 1 };
                bit += 1;
            }
            table[index] = value;
            (index, byte) = (index + 1, byte + 1);
        }
        table
    };
    for &byte in data {
        crc = crc << 8 ^ TABLE[to_usize(crc >> 24) ^ usize::from(byte)];
    }
    crc
}

/// Whether sequence number `a` comes after `b`; they wrap around.
pub fn sequence_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(wide: bool, v2: bool, v3: bool) -> Form {
        Form { block_size: 1024, wide, v3, v2, v1: false, seed: 7 }
    }

    #[test]
    fn tags_of_every_form_come_back() {
        let sizes = [(false, false, false, 8), (true, false, false, 12), (false, true, false, 10)];
        let more = [(true, true, false, 14), (false, false, true, 16), (true, false, true, 16)];
        for (wide, v2, v3, size) in sizes.into_iter().chain(more) {
            let form = form(wide, v2, v3);
            assert_eq!(form.tag_size(), size);
            let mut block = vec![0; 1024];
            let mut at = 12;
            let mut want = Vec::new();
            for n in 0..form.tags_per_block() {
                let first = n == 0;
                let last = n + 1 == form.tags_per_block();
                let tag = Tag {
                    block: n as u64 + if wide { 1 << 40 } else { 1 << 20 },
                    flags: if first { 0 } else { FLAG_SAME_UUID }
                        | if last { FLAG_LAST_TAG } else { 0 },
                    checksum: if v3 {
                        0xDEAD_BEEF
                    } else if v2 {
                        0xBEEF
                    } else {
                        0
                    },
                };
                form.write_tag(tag, &mut block[at..at + size]);
                at += size + if first { 16 } else { 0 };
                want.push(tag);
            }
            assert!(at <= form.usable());
            assert_eq!(form.tags(&block), want);
        }
    }

    #[test]
    fn crc32_be_known_value() {
        // CRC-32/MPEG-2 of the check string.
        assert_eq!(crc32_be(!0, b"123456789"), 0x0376_E6E7);
    }

    #[test]
    fn sequences_wrap() {
        assert!(sequence_after(1, u32::MAX));
        assert!(!sequence_after(u32::MAX, 1));
        assert!(!sequence_after(5, 5));
    }
}
