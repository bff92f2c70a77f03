//! The structures of btrfs on disk, with the names of their fields as its documentation ("On-disk
//! Format" of btrfs.readthedocs.io) has them. All numbers are little-endian.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

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
    pub const EXTENT_CSUM: u64 = (-10i64) as u64;
    /// A running or interrupted balance.
    pub const BALANCE: u64 = (-4i64) as u64;
    /// Trees of a relocation.
    pub const TREE_RELOC: u64 = (-8i64) as u64;
    /// The chunks of the chunk tree.
    pub const FIRST_CHUNK_TREE: u64 = 256;
    /// The devices of the chunk tree.
    pub const DEV_ITEMS: u64 = 1;
    /// The first inode and the first subvolume number.
    pub const FIRST_FREE: u64 = 256;
    /// The last of them.
    pub const LAST_FREE: u64 = (-256i64) as u64;
    /// What stands for a subvolume in a snapshot of its directory.
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

/// The key of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The object, an inode or an address for example.
    pub objectid: u64,
    /// The item's type, of [`item_type`].
    pub item_type: u8,
    /// A further number; its meaning is the type's.
    pub offset: u64,
}

impl Key {
    /// The first key there is.
    pub const MIN: Self = Self { objectid: 0, item_type: 0, offset: 0 };
    /// The last key there is.
    pub const MAX: Self = Self { objectid: u64::MAX, item_type: u8::MAX, offset: u64::MAX };

    /// A key of its three parts.
    pub const fn new(objectid: u64, item_type: u8, offset: u64) -> Self {
        Self { objectid, item_type, offset }
    }

    /// The key after this one.
    pub fn next(self) -> Option<Self> {
        let Self { objectid, item_type, offset } = self;
        if let Some(offset) = offset.checked_add(1) {
            return Some(Self { offset, ..self });
        }
        if let Some(item_type) = item_type.checked_add(1) {
            return Some(Self { objectid, item_type, offset: 0 });
        }
        Some(Self::new(objectid.checked_add(1)?, 0, 0))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "key ({} {} {})", self.objectid, self.item_type, self.offset)
    }
}

macro_rules! on_disk {
    ($($(#[$doc:meta])* $name:ident, $size:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
            #[repr(C)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
            const _: () = assert!(size_of::<$name>() == $size);
        )*
    };
}

on_disk! {
    /// `btrfs_disk_key`.
    DiskKey, 17 {
        /// The object.
        objectid: U64,
        /// The type.
        item_type: u8,
        /// The rest.
        offset: U64,
    }
    /// `btrfs_timespec`.
    Timespec, 12 {
        /// Seconds since 1970.
        sec: U64,
        /// Nanoseconds.
        nsec: U32,
    }
    /// `btrfs_dev_item`.
    DevItem, 98 {
        /// The device's number.
        devid: U64,
        /// Its size in bytes.
        total_bytes: U64,
        /// Bytes that chunks have.
        bytes_used: U64,
        /// Optimal alignment.
        io_align: U32,
        /// Optimal width.
        io_width: U32,
        /// Smallest access.
        sector_size: U32,
        /// Unused.
        r#type: U64,
        /// Expected generation.
        generation: U64,
        /// First byte to be used.
        start_offset: U64,
        /// Unused.
        dev_group: U32,
        /// Unused.
        seek_speed: u8,
        /// Unused.
        bandwidth: u8,
        /// The device's UUID.
        uuid: [u8; 16],
        /// The file system's UUID.
        fsid: [u8; 16],
    }
    /// `btrfs_root_backup`.
    RootBackup, 168 {
        /// Address of the root tree.
        tree_root: U64,
        /// Its generation.
        tree_root_gen: U64,
        /// Address of the chunk tree.
        chunk_root: U64,
        /// Its generation.
        chunk_root_gen: U64,
        /// Address of the extent tree.
        extent_root: U64,
        /// Its generation.
        extent_root_gen: U64,
        /// Address of the top subvolume.
        fs_root: U64,
        /// Its generation.
        fs_root_gen: U64,
        /// Address of the device tree.
        dev_root: U64,
        /// Its generation.
        dev_root_gen: U64,
        /// Address of the checksum tree.
        csum_root: U64,
        /// Its generation.
        csum_root_gen: U64,
        /// Size of the file system.
        total_bytes: U64,
        /// Bytes used.
        bytes_used: U64,
        /// Devices.
        num_devices: U64,
        /// Unused.
        unused_64: [U64; 4],
        /// Level of the root tree.
        tree_root_level: u8,
        /// Level of the chunk tree.
        chunk_root_level: u8,
        /// Level of the extent tree.
        extent_root_level: u8,
        /// Level of the top subvolume.
        fs_root_level: u8,
        /// Level of the device tree.
        dev_root_level: u8,
        /// Level of the checksum tree.
        csum_root_level: u8,
        /// Unused.
        unused_8: [u8; 10],
    }
    /// `btrfs_super_block`.
    SuperBlock, 4096 {
        /// Checksum of what follows.
        csum: [u8; 32],
        /// The file system's UUID.
        fsid: [u8; 16],
        /// Where this copy is on the device.
        bytenr: U64,
        /// Flags.
        flags: U64,
        /// `_BHRfS_M`.
        magic: [u8; 8],
        /// Number of the last transaction.
        generation: U64,
        /// Address of the root tree.
        root: U64,
        /// Address of the chunk tree.
        chunk_root: U64,
        /// Address of the log tree.
        log_root: U64,
        /// Unused.
        log_root_transid: U64,
        /// Size of the file system.
        total_bytes: U64,
        /// Bytes used.
        bytes_used: U64,
        /// Always 6.
        root_dir_objectid: U64,
        /// Devices.
        num_devices: U64,
        /// Bytes in a sector, the unit of data.
        sectorsize: U32,
        /// Bytes in a tree block.
        nodesize: U32,
        /// Unused.
        leafsize: U32,
        /// Unused.
        stripesize: U32,
        /// Bytes used in `sys_chunk_array`.
        sys_chunk_array_size: U32,
        /// Generation of the chunk tree's root.
        chunk_root_generation: U64,
        /// Features that need not be known.
        compat_flags: U64,
        /// Features that must be known for writing.
        compat_ro_flags: U64,
        /// Features that must be known.
        incompat_flags: U64,
        /// The kind of checksums.
        csum_type: U16,
        /// Level of the root tree's root.
        root_level: u8,
        /// Level of the chunk tree's root.
        chunk_root_level: u8,
        /// Level of the log tree's root.
        log_root_level: u8,
        /// This device.
        dev_item: DevItem,
        /// The label.
        label: [u8; 256],
        /// Generation for which the free space cache of version 1 is right.
        cache_generation: U64,
        /// Generation for which the UUID tree is right.
        uuid_tree_generation: U64,
        /// UUID in tree blocks, with `METADATA_UUID`.
        metadata_uuid: [u8; 16],
        /// Unused.
        reserved: [U64; 28],
        /// The system chunks: a key and a chunk each.
        sys_chunk_array: [u8; 2048],
        /// Former roots.
        super_roots: [RootBackup; 4],
        /// Unused.
        padding: [u8; 565],
    }
    /// `btrfs_header`, at the beginning of each tree block.
    Header, 101 {
        /// Checksum of what follows.
        csum: [u8; 32],
        /// UUID of the file system.
        fsid: [u8; 16],
        /// Its own address.
        bytenr: U64,
        /// Flags; the backref revision in the upper byte.
        flags: U64,
        /// UUID of the chunk tree.
        chunk_tree_uuid: [u8; 16],
        /// The transaction that wrote it.
        generation: U64,
        /// The tree that it was made for.
        owner: U64,
        /// Items or pointers in it.
        nritems: U32,
        /// 0 for a leaf.
        level: u8,
    }
    /// `btrfs_item`: an item's place in its leaf.
    ItemHeader, 25 {
        /// Its key.
        key: DiskKey,
        /// First byte, counted from the end of the header.
        offset: U32,
        /// Bytes.
        size: U32,
    }
    /// `btrfs_key_ptr`: a pointer to a child.
    KeyPtr, 33 {
        /// The child's first key.
        key: DiskKey,
        /// Its address.
        blockptr: U64,
        /// Its generation.
        generation: U64,
    }
    /// `btrfs_stripe`.
    Stripe, 32 {
        /// The device.
        devid: U64,
        /// First byte on it.
        offset: U64,
        /// The device's UUID.
        dev_uuid: [u8; 16],
    }
    /// `btrfs_chunk`, without its stripes.
    Chunk, 48 {
        /// Bytes.
        length: U64,
        /// Always 2.
        owner: U64,
        /// Bytes in a stripe.
        stripe_len: U64,
        /// Content and profile.
        r#type: U64,
        /// Optimal alignment.
        io_align: U32,
        /// Optimal width.
        io_width: U32,
        /// Smallest access.
        sector_size: U32,
        /// Stripes that follow.
        num_stripes: U16,
        /// Copies in RAID10.
        sub_stripes: U16,
    }
    /// `btrfs_dev_extent`.
    DevExtent, 48 {
        /// Always 3.
        chunk_tree: U64,
        /// Always 256.
        chunk_objectid: U64,
        /// Address of the chunk.
        chunk_offset: U64,
        /// Bytes.
        length: U64,
        /// UUID of the chunk tree.
        chunk_tree_uuid: [u8; 16],
    }
    /// `btrfs_inode_item`.
    InodeItem, 160 {
        /// The transaction that made it.
        generation: U64,
        /// The transaction that changed it last.
        transid: U64,
        /// Size in bytes.
        size: U64,
        /// Bytes that its extents have.
        nbytes: U64,
        /// Unused.
        block_group: U64,
        /// Names.
        nlink: U32,
        /// Owner.
        uid: U32,
        /// Group.
        gid: U32,
        /// Type and permissions.
        mode: U32,
        /// Device number.
        rdev: U64,
        /// Flags.
        flags: U64,
        /// Counts changes, for NFS.
        sequence: U64,
        /// Unused.
        reserved: [U64; 4],
        /// Last access.
        atime: Timespec,
        /// Last change.
        ctime: Timespec,
        /// Last change of content.
        mtime: Timespec,
        /// When it was made.
        otime: Timespec,
    }
    /// `btrfs_root_item` of the first form.
    RootItem, 239 {
        /// An inode that means nothing today.
        inode: InodeItem,
        /// Generation of the root.
        generation: U64,
        /// Number of the root directory.
        root_dirid: U64,
        /// Address of the root.
        bytenr: U64,
        /// Unused.
        byte_limit: U64,
        /// Unused.
        bytes_used: U64,
        /// Generation of the last snapshot of it.
        last_snapshot: U64,
        /// Flags.
        flags: U64,
        /// 0 while it is being removed.
        refs: U32,
        /// How far the removal is.
        drop_progress: DiskKey,
        /// Its level.
        drop_level: u8,
        /// Level of the root.
        level: u8,
    }
    /// The second part of `btrfs_root_item`.
    RootItemV2, 200 {
        /// Equal to `generation`, else this part is void.
        generation_v2: U64,
        /// The subvolume's UUID.
        uuid: [u8; 16],
        /// That of what it is a snapshot of.
        parent_uuid: [u8; 16],
        /// That of what it was received from.
        received_uuid: [u8; 16],
        /// Last change.
        ctransid: U64,
        /// Made.
        otransid: U64,
        /// Sent.
        stransid: U64,
        /// Received.
        rtransid: U64,
        /// Last change.
        ctime: Timespec,
        /// Made.
        otime: Timespec,
        /// Sent.
        stime: Timespec,
        /// Received.
        rtime: Timespec,
        /// Unused.
        reserved: [U64; 8],
    }
    /// `btrfs_root_ref`, before the name.
    RootRef, 18 {
        /// The directory that has the name.
        dirid: U64,
        /// The entry's index in it.
        sequence: U64,
        /// Bytes of the name.
        name_len: U16,
    }
    /// `btrfs_dir_item`, before name and data.
    DirItem, 30 {
        /// What it names.
        location: DiskKey,
        /// The transaction that made it.
        transid: U64,
        /// Bytes of data (attributes).
        data_len: U16,
        /// Bytes of the name.
        name_len: U16,
        /// What it is.
        r#type: u8,
    }
    /// `btrfs_inode_ref`, before the name.
    InodeRef, 10 {
        /// The entry's index in its directory.
        index: U64,
        /// Bytes of the name.
        name_len: U16,
    }
    /// `btrfs_inode_extref`, before the name.
    InodeExtref, 18 {
        /// The directory.
        parent_objectid: U64,
        /// The entry's index in it.
        index: U64,
        /// Bytes of the name.
        name_len: U16,
    }
    /// `btrfs_file_extent_item` up to what only extents outside the tree have.
    FileExtentHead, 21 {
        /// The transaction that made it.
        generation: U64,
        /// Bytes when unpacked.
        ram_bytes: U64,
        /// How it is compressed.
        compression: u8,
        /// How it is encrypted.
        encryption: u8,
        /// Unused.
        other_encoding: U16,
        /// Inline, regular or preallocated.
        r#type: u8,
    }
    /// The rest of `btrfs_file_extent_item`.
    FileExtentTail, 32 {
        /// Address of the extent; 0 is a hole.
        disk_bytenr: U64,
        /// Bytes of the extent.
        disk_num_bytes: U64,
        /// First byte of the (unpacked) extent that this piece shows.
        offset: U64,
        /// Bytes that it shows.
        num_bytes: U64,
    }
    /// `btrfs_extent_item`.
    ExtentItem, 24 {
        /// References.
        refs: U64,
        /// The transaction that made it.
        generation: U64,
        /// Data or tree block.
        flags: U64,
    }
    /// `btrfs_tree_block_info`, in extent items without skinny metadata.
    TreeBlockInfo, 18 {
        /// The block's first key.
        key: DiskKey,
        /// Its level.
        level: u8,
    }
    /// `btrfs_extent_data_ref`.
    ExtentDataRef, 28 {
        /// The tree.
        root: U64,
        /// The inode.
        objectid: U64,
        /// Where in the file the extent would begin.
        offset: U64,
        /// How many pieces refer to it.
        count: U32,
    }
    /// `btrfs_block_group_item`.
    BlockGroupItem, 24 {
        /// Bytes used.
        used: U64,
        /// Always 256.
        chunk_objectid: U64,
        /// Content and profile.
        flags: U64,
    }
    /// `btrfs_free_space_info`.
    FreeSpaceInfo, 8 {
        /// Free extents.
        extent_count: U32,
        /// 1: kept as bitmaps.
        flags: U32,
    }
}

impl DiskKey {
    /// The key.
    pub fn get(&self) -> Key {
        Key::new(self.objectid.get(), self.item_type, self.offset.get())
    }
}

impl From<Key> for DiskKey {
    fn from(key: Key) -> Self {
        Self {
            objectid: U64::new(key.objectid),
            item_type: key.item_type,
            offset: U64::new(key.offset),
        }
    }
}

/// Bytes of a structure at the beginning of `bytes`, and what follows.
pub fn split<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    bytes: &[u8],
) -> Option<(&T, &[u8])> {
    T::ref_from_prefix(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_successors() {
        assert_eq!(Key::new(1, 2, 3).next(), Some(Key::new(1, 2, 4)));
        assert_eq!(Key::new(1, 2, u64::MAX).next(), Some(Key::new(1, 3, 0)));
        assert_eq!(Key::new(1, 255, u64::MAX).next(), Some(Key::new(2, 0, 0)));
        assert_eq!(Key::MAX.next(), None);
        assert!(Key::new(1, 255, 0) < Key::new(2, 0, 0));
    }
}
