//! The structures of btrfs on disk, with the names of their fields as its documentation ("On-disk
//! Format" of btrfs.readthedocs.io) has them. All numbers are little-endian.

mod key;
mod numbers;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use key::Key;
pub use numbers::{block_group, inode_flags, item_type, objectid};

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
        /// The place of this copy on the device.
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
        /// The object that it names.
        location: DiskKey,
        /// The transaction that made it.
        transid: U64,
        /// Bytes of data (attributes).
        data_len: U16,
        /// Bytes of the name.
        name_len: U16,
        /// Its type.
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
        /// The place in the file where the extent would begin.
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
