//! Feature flags of the superblock: three sets that cannot be mixed up.
//!
//! The kernel has one word for each: a feature that any program may ignore (compat), one that only a
//! writer must know (ro_compat), one that a reader must know too (incompat). The same bit means
//! different things in each, so each has a type of its own.
//!
//! Source: the kernel's Documentation/filesystems/ext4/super.rst; names as mke2fs has them.

macro_rules! feature_set {
    (
        $(#[$doc:meta])*
        $set:ident, $module:ident, {
            $($(#[$flag_doc:meta])* $flag:ident = $bit:literal, $name:literal;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $set(u32);

        impl $set {
            /// The set of these bits, whatever they mean.
            pub const fn from_bits(bits: u32) -> Self {
                Self(bits)
            }

            /// The bits as they are on disk.
            pub const fn bits(self) -> u32 {
                self.0
            }

            /// Features of either set.
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Features of this set that are not in the other.
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// Whether the sets have a feature in common.
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// Whether no feature is in the set.
            #[allow(dead_code)] // nobody asks it of compatible features
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }
        }

        impl std::ops::BitOr for $set {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                self.union(other)
            }
        }

        /// The names of the features, and in hexadecimal the bits that have none.
        impl std::fmt::Display for $set {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut left = self.0;
                let mut separator = "";
                for (bit, name) in [$(($bit, $name)),*] {
                    if left & bit != 0 {
                        write!(f, "{separator}{name}")?;
                        left &= !bit;
                        separator = ", ";
                    }
                }
                if left != 0 {
                    write!(f, "{separator}{left:#x}")?;
                }
                Ok(())
            }
        }

        #[doc = concat!("The features of [`", stringify!($set), "`].")]
        // The names are the specification's; some features are here for their names only.
        #[allow(missing_docs, dead_code)]
        pub mod $module {
            use super::$set;

            $($(#[$flag_doc])* pub const $flag: $set = $set($bit);)*
        }
    };
}

feature_set! {
    /// `s_feature_compat`: a file system with an unknown one may be read and written.
    Compat, compat, {
        DIR_PREALLOC = 0x1, "dir_prealloc";
        HAS_JOURNAL = 0x4, "has_journal";
        EXT_ATTR = 0x8, "ext_attr";
        RESIZE_INODE = 0x10, "resize_inode";
        DIR_INDEX = 0x20, "dir_index";
        SPARSE_SUPER2 = 0x200, "sparse_super2";
        FAST_COMMIT = 0x400, "fast_commit";
        STABLE_INODES = 0x800, "stable_inodes";
        ORPHAN_FILE = 0x1000, "orphan_file";
    }
}

feature_set! {
    /// `s_feature_incompat`: a file system with an unknown one may not be touched.
    Incompat, incompat, {
        COMPRESSION = 0x1, "compression";
        FILETYPE = 0x2, "filetype";
        RECOVER = 0x4, "needs_recovery";
        JOURNAL_DEV = 0x8, "journal_dev";
        META_BG = 0x10, "meta_bg";
        EXTENTS = 0x40, "extent";
        BIT64 = 0x80, "64bit";
        MMP = 0x100, "mmp";
        FLEX_BG = 0x200, "flex_bg";
        EA_INODE = 0x400, "ea_inode";
        DIRDATA = 0x1000, "dirdata";
        CSUM_SEED = 0x2000, "metadata_csum_seed";
        LARGEDIR = 0x4000, "large_dir";
        INLINE_DATA = 0x8000, "inline_data";
        ENCRYPT = 0x10000, "encrypt";
        CASEFOLD = 0x20000, "casefold";
    }
}

feature_set! {
    /// `s_feature_ro_compat`: a file system with an unknown one may be read only.
    RoCompat, ro_compat, {
        SPARSE_SUPER = 0x1, "sparse_super";
        LARGE_FILE = 0x2, "large_file";
        HUGE_FILE = 0x8, "huge_file";
        GDT_CSUM = 0x10, "uninit_bg";
        DIR_NLINK = 0x20, "dir_nlink";
        EXTRA_ISIZE = 0x40, "extra_isize";
        HAS_SNAPSHOT = 0x80, "snapshot";
        QUOTA = 0x100, "quota";
        BIGALLOC = 0x200, "bigalloc";
        METADATA_CSUM = 0x400, "metadata_csum";
        REPLICA = 0x800, "replica";
        READONLY = 0x1000, "read-only";
        PROJECT = 0x2000, "project";
        SHARED_BLOCKS = 0x4000, "shared_blocks";
        VERITY = 0x8000, "verity";
        ORPHAN_PRESENT = 0x10000, "orphan_present";
    }
}

impl Incompat {
    /// All that this engine reads.
    pub const KNOWN: Self = incompat::FILETYPE
        .union(incompat::RECOVER)
        .union(incompat::META_BG)
        .union(incompat::EXTENTS)
        .union(incompat::BIT64)
        .union(incompat::MMP)
        .union(incompat::FLEX_BG)
        .union(incompat::EA_INODE)
        .union(incompat::CSUM_SEED)
        .union(incompat::LARGEDIR)
        .union(incompat::INLINE_DATA)
        .union(incompat::ENCRYPT)
        .union(incompat::CASEFOLD);
}

impl RoCompat {
    /// All that this engine keeps right when it writes.
    pub const KNOWN: Self = ro_compat::SPARSE_SUPER
        .union(ro_compat::LARGE_FILE)
        .union(ro_compat::HUGE_FILE)
        .union(ro_compat::GDT_CSUM)
        .union(ro_compat::DIR_NLINK)
        .union(ro_compat::EXTRA_ISIZE)
        .union(ro_compat::QUOTA)
        .union(ro_compat::BIGALLOC)
        .union(ro_compat::METADATA_CSUM)
        .union(ro_compat::PROJECT)
        .union(ro_compat::VERITY)
        .union(ro_compat::ORPHAN_PRESENT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_names() {
        assert_eq!(ro_compat::SHARED_BLOCKS.to_string(), "shared_blocks");
        let two = Incompat::from_bits(0x8001_0001);
        assert_eq!(two.to_string(), "compression, encrypt, 0x80000000");
        assert_eq!(Compat::default().to_string(), "");
    }

    #[test]
    fn unknown_ones_are_what_is_left() {
        let found = Incompat::KNOWN | incompat::DIRDATA;
        assert_eq!(found.without(Incompat::KNOWN), incompat::DIRDATA);
        assert!(!RoCompat::KNOWN.intersects(ro_compat::READONLY | ro_compat::SHARED_BLOCKS));
    }
}
