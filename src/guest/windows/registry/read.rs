//! Reading keys, values, class names and security descriptors.

use super::error::{HiveError, Result};
use super::format::{
    BigData, DATA_RESIDENT, KEY_COMP_NAME, KeyNode, KeySecurity, KeyValue, NONE, SEGMENT,
    VALUE_COMP_NAME,
};
use super::hive::{Hive, Key};
use super::name::{Name, utf16_units};
use super::{REG_DWORD, REG_EXPAND_SZ, REG_MULTI_SZ, REG_SZ};

/// Windows takes values up to this size, and so do we.
pub(super) const DATA_MAX: u32 = 256 << 20;

/// A value of a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    /// Its name; empty for the key's default value.
    pub name: Name,
    /// `REG_SZ` and so on. In SAM it is sometimes a number of another meaning.
    pub data_type: u32,
    /// The data.
    pub data: Vec<u8>,
}

impl std::fmt::Debug for Value {
    /// Without the data, which may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Value({}, type {}, {} bytes)", self.name, self.data_type, self.data.len())
    }
}

impl Value {
    /// The text of a `REG_SZ`, `REG_EXPAND_SZ`, or the first of a `REG_MULTI_SZ`.
    pub fn text(&self) -> Option<String> {
        if !matches!(self.data_type, REG_SZ | REG_EXPAND_SZ | REG_MULTI_SZ) {
            return None;
        }
        let units = utf16_units(&self.data);
        let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
        Some(String::from_utf16_lossy(&units[..end]))
    }

    /// The number of a `REG_DWORD`.
    pub fn number(&self) -> Option<u32> {
        let bytes: [u8; 4] = self.data.as_slice().try_into().ok()?;
        (self.data_type == REG_DWORD).then(|| u32::from_le_bytes(bytes))
    }
}

impl Hive {
    pub(super) fn node(&self, key: Key) -> Result<KeyNode> {
        self.record("key node", key.0, *b"nk")
    }

    /// The name of a key.
    pub fn name(&self, key: Key) -> Result<Name> {
        let node = self.node(key)?;
        let length = usize::from(node.key_name_length.get());
        let bytes = self.tail("key node", key.0, size_of::<KeyNode>(), length)?;
        Ok(Name::from_stored(bytes, node.flags.get() & KEY_COMP_NAME != 0))
    }

    /// `length` bytes after the head of a record.
    fn tail(
        &self,
        structure: &'static str,
        offset: u32,
        head: usize,
        length: usize,
    ) -> Result<&[u8]> {
        self.cell(structure, offset)?.get(head..head + length).ok_or_else(|| {
            HiveError::cell(structure, offset, format!("{length} bytes do not fit into its cell"))
        })
    }

    /// The class name of a key.
    pub fn class_name(&self, key: Key) -> Result<Option<Name>> {
        let node = self.node(key)?;
        let length = usize::from(node.class_name_length.get());
        if node.class_name_offset.get() == NONE || length == 0 {
            return Ok(None);
        }
        let bytes = self.tail("class name", node.class_name_offset.get(), 0, length)?;
        Ok(Some(Name::from_units(utf16_units(bytes))))
    }

    /// The security descriptor of a key, in self-relative form.
    pub fn security(&self, key: Key) -> Result<Vec<u8>> {
        let offset = self.node(key)?.key_security_offset.get();
        let item: KeySecurity = self.record("key security", offset, *b"sk")?;
        let length = item.security_descriptor_size.get() as usize;
        Ok(self.tail("key security", offset, size_of::<KeySecurity>(), length)?.to_vec())
    }

    /// When a key was written last.
    pub fn last_written(&self, key: Key) -> Result<super::FileTime> {
        Ok(super::FileTime(self.node(key)?.last_written_timestamp.get()))
    }

    /// The key at a path below `key`, names separated by backslashes.
    pub fn descend(&self, key: Key, path: &str) -> Result<Option<Key>> {
        let mut key = key;
        for name in path.split('\\').filter(|name| !name.is_empty()) {
            match self.subkey(key, &name.into())? {
                Some(next) => key = next,
                None => return Ok(None),
            }
        }
        Ok(Some(key))
    }

    /// The key at a path below the root.
    pub fn key(&self, path: &str) -> Result<Option<Key>> {
        self.descend(self.root(), path)
    }

    /// Offsets of the values of a key.
    pub(super) fn value_offsets(&self, node: &KeyNode) -> Result<Vec<u32>> {
        let count = node.number_of_key_values.get() as usize;
        let list = node.key_values_list_offset.get();
        if count == 0 {
            return Ok(Vec::new());
        }
        let cell = self.cell("key values list", list)?;
        let bytes =
            count.checked_mul(4).and_then(|length| cell.get(..length)).ok_or_else(|| {
                let detail = format!("{count} values do not fit into its cell");
                HiveError::cell("key values list", list, detail)
            })?;
        Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    pub(super) fn value_name(&self, offset: u32) -> Result<(KeyValue, Name)> {
        let value: KeyValue = self.record("key value", offset, *b"vk")?;
        let length = usize::from(value.name_length.get());
        let bytes = self.tail("key value", offset, size_of::<KeyValue>(), length)?;
        let latin = value.flags.get() & VALUE_COMP_NAME != 0;
        let name = Name::from_stored(bytes, latin);
        Ok((value, name))
    }

    /// Place in the list, and offset, of the value with a name.
    pub(super) fn find_value(&self, node: &KeyNode, name: &Name) -> Result<Option<(usize, u32)>> {
        for (index, offset) in self.value_offsets(node)?.into_iter().enumerate() {
            if self.value_name(offset)?.1.same(name) {
                return Ok(Some((index, offset)));
            }
        }
        Ok(None)
    }

    /// All values of a key, in the hive's order.
    pub fn values(&self, key: Key) -> Result<Vec<Value>> {
        let offsets = self.value_offsets(&self.node(key)?)?;
        offsets.into_iter().map(|offset| self.read_value(offset)).collect()
    }

    /// The value with a name; the default value of the key has the empty one.
    pub fn value(&self, key: Key, name: &str) -> Result<Option<Value>> {
        match self.find_value(&self.node(key)?, &name.into())? {
            Some((_, offset)) => self.read_value(offset).map(Some),
            None => Ok(None),
        }
    }

    /// The text of a value, where it is one.
    pub fn text(&self, key: Key, name: &str) -> Result<Option<String>> {
        Ok(self.value(key, name)?.and_then(|value| value.text()))
    }

    /// The number of a value, where it is one.
    pub fn number(&self, key: Key, name: &str) -> Result<Option<u32>> {
        Ok(self.value(key, name)?.and_then(|value| value.number()))
    }

    fn read_value(&self, offset: u32) -> Result<Value> {
        let (value, name) = self.value_name(offset)?;
        let data = self.value_data(offset, &value)?;
        Ok(Value { name, data_type: value.data_type.get(), data })
    }

    pub(super) fn value_data(&self, offset: u32, value: &KeyValue) -> Result<Vec<u8>> {
        let raw = value.data_size.get();
        let size = (raw & !DATA_RESIDENT) as usize;
        let wrong = |detail: String| HiveError::cell("key value", offset, detail);
        if raw & DATA_RESIDENT != 0 {
            let bytes = value.data_offset.get().to_le_bytes();
            return bytes
                .get(..size)
                .map(<[u8]>::to_vec)
                .ok_or_else(|| wrong(format!("{size} bytes are not in the value itself")));
        }
        if size == 0 {
            return Ok(Vec::new());
        }
        if raw > DATA_MAX {
            return Err(wrong(format!("its data has {size} bytes")));
        }
        let at = value.data_offset.get();
        if let Some(segments) = self.segments(value)? {
            let mut data = Vec::with_capacity(size.min(1 << 20));
            for segment in segments {
                let cell = self.cell("data segment", segment)?;
                let wanted = (size - data.len()).min(SEGMENT);
                let part = cell.get(..wanted).ok_or_else(|| {
                    HiveError::cell("data segment", segment, "it is shorter than a segment")
                })?;
                data.extend_from_slice(part);
            }
            if data.len() == size {
                return Ok(data);
            }
            return Err(wrong(format!("its segments hold {} of {size} bytes", data.len())));
        }
        Ok(self.tail("value data", at, 0, size)?.to_vec())
    }

    /// The segments of a value's data, where it is a big data record.
    pub(super) fn segments(&self, value: &KeyValue) -> Result<Option<Vec<u32>>> {
        let raw = value.data_size.get();
        if self.minor < 4 || raw & DATA_RESIDENT != 0 || raw as usize <= SEGMENT {
            return Ok(None);
        }
        let at = value.data_offset.get();
        if !self.cell("big data", at)?.starts_with(b"db") {
            return Ok(None);
        }
        let record: BigData = self.record("big data", at, *b"db")?;
        let count = usize::from(record.number_of_segments.get());
        let list = record.offset_to_list_of_segments.get();
        let bytes = self.tail("list of segments", list, 0, count * 4)?;
        let segments = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Ok(Some(segments.collect()))
    }
}
