//! Numbers and flags with a meaning of their own.

/// Numbers of trees and of objects with a meaning of their own.
pub mod objectid {
    /// The tree of tree roots.
    pub const ROOT_TREE: u64 = 1;
    /// The extent tree.
    pub const EXTENT_TREE: u64 = 2;
    /// The chunk tree.
    pub const CHUNK_TREE: u64 = 3;
    /// The tree of device extents.
    pub const DEV_TREE: u64 = 4;
    /// The top subvolume.
    pub const FS_TREE: u64 = 5;
    /// The directory of the root tree, which names the default subvolume.
    pub const ROOT_TREE_DIR: u64 = 6;
    /// The tree of data checksums.
    pub const CSUM_TREE: u64 = 7;
    /// The tree of quota groups.
    pub const QUOTA_TREE: u64 = 8;
    /// The free space tree.
    pub const FREE_SPACE_TREE: u64 = 10;
    /// The tree of block group items, where they are not in the extent tree.
    pub const BLOCK_GROUP_TREE: u64 = 11;
    /// All data checksums.
    pub const EXTENT_CSUM: u64 = (-10i64).cast_unsigned();
    /// A running or interrupted balance.
    pub const BALANCE: u64 = (-4i64).cast_unsigned();
    /// Trees of a relocation.
    pub const TREE_RELOC: u64 = (-8i64).cast_unsigned();
    /// The chunks of the chunk tree.
    pub const FIRST_CHUNK_TREE: u64 = 256;
    /// The devices of the chunk tree.
    pub const DEV_ITEMS: u64 = 1;
    /// The first inode and the first subvolume number.
    pub const FIRST_FREE: u64 = 256;
    /// The last of them.
    pub const LAST_FREE: u64 = (-256i64).cast_unsigned();
    /// The object that a snapshot of a directory has in place of a subvolume.
    pub const EMPTY_SUBVOL_DIR: u64 = 2;
}

/// Types of items.
pub mod item_type {
    /// An inode.
    pub const INODE_ITEM: u8 = 1;
    /// A name of an inode.
    pub const INODE_REF: u8 = 12;
    /// A name that found no room in an [`INODE_REF`].
    pub const INODE_EXTREF: u8 = 13;
    /// An extended attribute.
    pub const XATTR_ITEM: u8 = 24;
    /// A directory entry by its name's hash.
    pub const DIR_ITEM: u8 = 84;
    /// A directory entry by its index.
    pub const DIR_INDEX: u8 = 96;
    /// A piece of a file.
    pub const EXTENT_DATA: u8 = 108;
    /// Checksums of data.
    pub const EXTENT_CSUM: u8 = 128;
    /// A tree.
    pub const ROOT_ITEM: u8 = 132;
    /// A subvolume that is named in this one.
    pub const ROOT_REF: u8 = 156;
    /// An allocated extent.
    pub const EXTENT_ITEM: u8 = 168;
    /// An allocated tree block, where the key's offset is its level.
    pub const METADATA_ITEM: u8 = 169;
    /// A tree refers to a tree block.
    pub const TREE_BLOCK_REF: u8 = 176;
    /// A file refers to data.
    pub const EXTENT_DATA_REF: u8 = 178;
    /// A tree block refers to a tree block.
    pub const SHARED_BLOCK_REF: u8 = 182;
    /// A tree block refers to data.
    pub const SHARED_DATA_REF: u8 = 184;
    /// How full a block group is.
    pub const BLOCK_GROUP_ITEM: u8 = 192;
    /// How a block group's free space is kept.
    pub const FREE_SPACE_INFO: u8 = 198;
    /// Free space.
    pub const FREE_SPACE_EXTENT: u8 = 199;
    /// Free space, one bit a sector.
    pub const FREE_SPACE_BITMAP: u8 = 200;
    /// A piece of a device that a chunk has.
    pub const DEV_EXTENT: u8 = 204;
    /// A device.
    pub const DEV_ITEM: u8 = 216;
    /// A chunk.
    pub const CHUNK_ITEM: u8 = 228;
    /// The state of the quota groups.
    pub const QGROUP_STATUS: u8 = 240;
    /// Items that come and go: a balance.
    pub const TEMPORARY_ITEM: u8 = 248;
    /// Items that stay: the state of a device's replacement.
    pub const DEV_REPLACE: u8 = 250;
}

/// Types of chunks and block groups.
pub mod block_group {
    /// File content.
    pub const DATA: u64 = 1;
    /// The chunk tree.
    pub const SYSTEM: u64 = 2;
    /// All other trees.
    pub const METADATA: u64 = 4;
    /// Two copies on one device.
    pub const DUP: u64 = 32;
    /// The three kinds of content.
    pub const TYPES: u64 = DATA | SYSTEM | METADATA;

    /// The name of a profile; that of the first that `flags` has.
    pub fn profile(flags: u64) -> &'static str {
        const NAMES: [(u64, &str); 8] = [
            (8, "RAID0"),
            (16, "RAID1"),
            (DUP, "DUP"),
            (64, "RAID10"),
            (128, "RAID5"),
            (256, "RAID6"),
            (512, "RAID1C3"),
            (1024, "RAID1C4"),
        ];
        NAMES.iter().find(|(bit, _)| flags & bit != 0).map_or("single", |(_, name)| name)
    }
}

/// Flags of an inode.
pub mod inode_flags {
    /// Without checksums.
    pub const NODATASUM: u64 = 1;
    /// Overwritten in place.
    pub const NODATACOW: u64 = 2;
    /// Never compressed.
    pub const NOCOMPRESS: u64 = 8;
    /// Compressed.
    pub const COMPRESS: u64 = 1 << 11;
    /// Sealed by fs-verity (among the upper 32 bits).
    pub const RO_VERITY: u64 = 1 << 32;
}
