//! Keys of items, in their order.

/// The key of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The object, an inode or an address for example.
    pub objectid: u64,
    /// The item's type, of [`item_type`](super::item_type).
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
