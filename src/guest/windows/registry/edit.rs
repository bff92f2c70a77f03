//! Changing values and keys in place.

use zerocopy::{FromZeros, IntoBytes};

use super::error::{HiveError, Result};
use super::format::{
    DATA_RESIDENT, KEY_COMP_NAME, KeyNode, KeySecurity, KeyValue, NONE, SEGMENT, VALUE_COMP_NAME,
};
use super::hive::{Hive, Key};
use super::name::Name;
use super::read::DATA_MAX;
use super::{REG_DWORD, REG_SZ, utf16_bytes};

/// No name of a key is longer, in UTF-16 units.
const KEY_NAME_MAX: usize = 255;
/// No name of a value is longer.
const VALUE_NAME_MAX: usize = 16383;

impl Hive {
    /// Sets a value: a new one, or type and data of one that is there. A value that has them
    /// already changes nothing.
    pub fn set_value(&mut self, key: Key, name: &str, data_type: u32, data: &[u8]) -> Result<()> {
        let name = Name::from(name);
        if name.units().len() > VALUE_NAME_MAX || data.len() > DATA_MAX as usize {
            return Err(HiveError::Invalid(format!(
                "the value {name} with {} bytes is too large for a hive",
                data.len()
            )));
        }
        let node = self.node(key)?;
        match self.find_value(&node, &name)? {
            Some((_, offset)) => self.change_value(offset, data_type, data)?,
            None => self.add_value(key, &name, data_type, data)?,
        }
        if !self.changed {
            return Ok(());
        }
        let mut node = self.node(key)?;
        let length = node.largest_value_name_length.get().max(name.wide_length() as u32);
        node.largest_value_name_length.set(length);
        let size = node.largest_value_data_size.get().max(data.len() as u32);
        node.largest_value_data_size.set(size);
        node.last_written_timestamp.set(self.now.0);
        self.put("key node", key.0, &node)
    }

    /// Sets a text.
    pub fn set_text(&mut self, key: Key, name: &str, text: &str) -> Result<()> {
        let units: Vec<u16> = text.encode_utf16().chain([0]).collect();
        self.set_value(key, name, REG_SZ, &utf16_bytes(&units))
    }

    /// Sets a number.
    pub fn set_number(&mut self, key: Key, name: &str, number: u32) -> Result<()> {
        self.set_value(key, name, REG_DWORD, &number.to_le_bytes())
    }

    fn change_value(&mut self, offset: u32, data_type: u32, data: &[u8]) -> Result<()> {
        let (mut value, _) = self.value_name(offset)?;
        if value.data_type.get() == data_type && self.same_data(offset, &value, data) {
            return Ok(());
        }
        let raw = value.data_size.get();
        let old_segments = self.segments(&value)?;
        let has_cell = raw & DATA_RESIDENT == 0 && raw != 0 && old_segments.is_none();
        let stays = has_cell && data.len() > 4 && !self.wants_segments(data.len());
        if stays {
            // In place, or in another cell where it has grown.
            let at = self.replace_cell("value data", value.data_offset.get(), data)?;
            value.data_offset.set(at);
            value.data_size.set(data.len() as u32);
        } else {
            let (size, at) = self.store_data(data)?;
            self.release_data(&value, old_segments)?;
            value.data_size.set(size);
            value.data_offset.set(at);
        }
        value.data_type.set(data_type);
        self.put("key value", offset, &value)
    }

    fn same_data(&self, offset: u32, value: &KeyValue, data: &[u8]) -> bool {
        (value.data_size.get() & !DATA_RESIDENT) as usize == data.len()
            && self.value_data(offset, value).is_ok_and(|found| found == data)
    }

    fn add_value(&mut self, key: Key, name: &Name, data_type: u32, data: &[u8]) -> Result<()> {
        let (bytes, latin) = name.stored();
        let (size, at) = self.store_data(data)?;
        let mut value = KeyValue::new_zeroed();
        value.signature = *b"vk";
        value.name_length.set(bytes.len() as u16);
        value.data_size.set(size);
        value.data_offset.set(at);
        value.data_type.set(data_type);
        // A name of no length has no form.
        value.flags.set(if latin && !bytes.is_empty() { VALUE_COMP_NAME } else { 0 });
        let new = self.new_cell(&[value.as_bytes(), &bytes].concat())?;
        let mut node = self.node(key)?;
        let mut list = self.value_offsets(&node)?;
        list.push(new);
        let content: Vec<u8> = list.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        let at = if list.len() == 1 {
            self.new_cell(&content)?
        } else {
            let old = node.key_values_list_offset.get();
            self.replace_cell("key values list", old, &content)?
        };
        node.key_values_list_offset.set(at);
        node.number_of_key_values.set(list.len() as u32);
        self.put("key node", key.0, &node)
    }

    fn wants_segments(&self, length: usize) -> bool {
        self.minor >= 4 && length > SEGMENT
    }

    /// Stores data; gives what `data_size` and `data_offset` say of it.
    fn store_data(&mut self, data: &[u8]) -> Result<(u32, u32)> {
        let size = data.len() as u32;
        if data.len() <= 4 {
            let mut bytes = [0; 4];
            bytes[..data.len()].copy_from_slice(data);
            return Ok((size | DATA_RESIDENT, u32::from_le_bytes(bytes)));
        }
        if !self.wants_segments(data.len()) {
            return Ok((size, self.new_cell(data)?));
        }
        let count = u16::try_from(data.len().div_ceil(SEGMENT)).map_err(|_| {
            HiveError::Invalid(format!("{} bytes are too much for one value", data.len()))
        })?;
        let mut list = Vec::new();
        for segment in data.chunks(SEGMENT) {
            list.extend_from_slice(&self.new_cell(segment)?.to_le_bytes());
        }
        let list = self.new_cell(&list)?;
        let mut record = b"db".to_vec();
        record.extend_from_slice(&count.to_le_bytes());
        record.extend_from_slice(&list.to_le_bytes());
        // Windows' own record is 12 bytes long.
        record.extend_from_slice(&[0; 4]);
        Ok((size, self.new_cell(&record)?))
    }

    fn release_data(&mut self, value: &KeyValue, segments: Option<Vec<u32>>) -> Result<()> {
        let (raw, at) = (value.data_size.get(), value.data_offset.get());
        if raw & DATA_RESIDENT != 0 || raw == 0 {
            return Ok(());
        }
        if let Some(segments) = segments {
            let cell = self.cell("big data", at)?;
            let list = cell.get(4..8).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            for segment in segments {
                self.release("data segment", segment)?;
            }
            if let Some(list) = list {
                self.release("list of segments", list)?;
            }
        }
        self.release("value data", at)
    }

    /// Removes a value; says whether there was one.
    pub fn delete_value(&mut self, key: Key, name: &str) -> Result<bool> {
        let mut node = self.node(key)?;
        let Some((index, offset)) = self.find_value(&node, &name.into())? else {
            return Ok(false);
        };
        let (value, _) = self.value_name(offset)?;
        let segments = self.segments(&value)?;
        let mut list = self.value_offsets(&node)?;
        list.remove(index);
        self.release_data(&value, segments)?;
        self.release("key value", offset)?;
        let old = node.key_values_list_offset.get();
        if list.is_empty() {
            self.release("key values list", old)?;
            node.key_values_list_offset.set(NONE);
            node.largest_value_name_length.set(0);
            node.largest_value_data_size.set(0);
        } else {
            let content: Vec<u8> = list.iter().flat_map(|offset| offset.to_le_bytes()).collect();
            let at = self.replace_cell("key values list", old, &content)?;
            node.key_values_list_offset.set(at);
        }
        node.number_of_key_values.set(list.len() as u32);
        node.last_written_timestamp.set(self.now.0);
        self.put("key node", key.0, &node)?;
        Ok(true)
    }

    /// The subkey with a name, made where it is missing: with its parent's security.
    pub fn create_key(&mut self, parent: Key, name: &str) -> Result<Key> {
        let name = Name::from(name);
        if name.is_empty() || name.units().len() > KEY_NAME_MAX {
            return Err(HiveError::Invalid(format!(
                "the name of a key has 1 to {KEY_NAME_MAX} characters, and this one {}",
                name.units().len()
            )));
        }
        if name.units().iter().any(|unit| matches!(unit, 0 | 0x5c)) {
            return Err(HiveError::Invalid(format!(
                "the name of a key, \"{name}\", has a backslash or a zero in it"
            )));
        }
        if let Some(key) = self.subkey(parent, &name)? {
            return Ok(key);
        }
        let mut above = self.node(parent)?;
        let security = above.key_security_offset.get();
        let mut item: KeySecurity = self.record("key security", security, *b"sk")?;
        let count = item.reference_count.get().checked_add(1).ok_or_else(|| {
            HiveError::cell("key security", security, "its reference count is at its end")
        })?;
        item.reference_count.set(count);
        let (bytes, latin) = name.stored();
        let mut node = KeyNode::new_zeroed();
        node.signature = *b"nk";
        node.flags.set(if latin { KEY_COMP_NAME } else { 0 });
        node.last_written_timestamp.set(self.now.0);
        node.parent.set(parent.0);
        for place in [
            &mut node.subkeys_list_offset,
            &mut node.volatile_subkeys_list_offset,
            &mut node.key_values_list_offset,
            &mut node.class_name_offset,
        ] {
            place.set(NONE);
        }
        node.key_security_offset.set(security);
        node.key_name_length.set(bytes.len() as u16);
        let key = Key(self.new_cell(&[node.as_bytes(), &bytes].concat())?);
        self.put("key security", security, &item)?;
        let list = match above.number_of_subkeys.get() {
            0 => NONE,
            _ => above.subkeys_list_offset.get(),
        };
        let list = self.insert_subkey(list, key, &name)?;
        above.subkeys_list_offset.set(list);
        above.number_of_subkeys.set(above.number_of_subkeys.get().wrapping_add(1));
        let longest = above.largest_subkey_name_length.get().max(name.wide_length() as u16);
        above.largest_subkey_name_length.set(longest);
        above.last_written_timestamp.set(self.now.0);
        self.put("key node", parent.0, &above)?;
        Ok(key)
    }

    /// The key at a path below `key`, made with all above it where it is missing.
    pub fn create_path(&mut self, key: Key, path: &str) -> Result<Key> {
        path.split('\\')
            .filter(|name| !name.is_empty())
            .try_fold(key, |key, name| self.create_key(key, name))
    }

    /// Sets the class name of a key.
    pub fn set_class_name(&mut self, key: Key, class: &str) -> Result<()> {
        let units: Vec<u16> = class.encode_utf16().collect();
        let length = u16::try_from(units.len() * 2)
            .map_err(|_| HiveError::Invalid("a class name is too long".into()))?;
        let content = utf16_bytes(&units);
        let mut node = self.node(key)?;
        let old = node.class_name_offset.get();
        let at = match (old, content.is_empty()) {
            (NONE, true) => NONE,
            (NONE, false) => self.new_cell(&content)?,
            (old, true) => {
                self.release("class name", old)?;
                NONE
            }
            (old, false) => self.replace_cell("class name", old, &content)?,
        };
        node.class_name_offset.set(at);
        node.class_name_length.set(length);
        node.last_written_timestamp.set(self.now.0);
        self.put("key node", key.0, &node)?;
        let parent = Key(node.parent.get());
        if key != self.root() {
            let mut above = self.node(parent)?;
            let longest = above.largest_subkey_class_name_length.get().max(u32::from(length));
            above.largest_subkey_class_name_length.set(longest);
            self.put("key node", parent.0, &above)?;
        }
        Ok(())
    }
}
