//! Looking up single values of a hive that stays where it is: the SOFTWARE hive of a Windows has
//! up to 200 MB, more than the helper VM has memory for, and three values of it are wanted.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::error::{HiveError, Result};
use super::format::{
    BaseBlock, CELL_HEADER, CellSize, DATA_RESIDENT, KEY_COMP_NAME, KeyNode, KeyValue, PAGE,
    SubkeysList, VALUE_COMP_NAME,
};
use super::name::Name;
use super::read::Value;

/// Longer data is not looked up this way.
const DATA_MAX: usize = 16 << 10;
/// More subkeys or values than this no key has in practice; each costs a read.
const COUNT_MAX: usize = 1 << 16;

/// A hive that is read in place, and only as far as it is asked for. The content of its logs is
/// not seen.
pub struct Peek<R> {
    read: R,
    root: u32,
}

/// A key of a hive that is peeked into.
#[derive(Clone)]
pub struct PeekKey(KeyNode);

impl<R: Fn(u64, usize) -> snf_fs::Result<Vec<u8>>> Peek<R> {
    /// A hive that `read` reads, which gives up to so many bytes at an offset of the file: fewer only
    /// at its end.
    pub fn open(read: R) -> Result<Self> {
        let mut peek = Self { read, root: 0 };
        let bytes = peek.bytes(0, 512)?;
        let base = BaseBlock::read_from_bytes(&bytes)
            .map_err(|_| HiveError::base(format!("the file has only {} bytes", bytes.len())))?;
        if base.signature != *b"regf" {
            return Err(HiveError::base(
                "the file is no registry hive: it does not begin with regf",
            ));
        }
        peek.root = base.root_cell_offset.get();
        Ok(peek)
    }

    /// The key at a path below the root, names separated by backslashes.
    pub fn key(&self, path: &str) -> Result<Option<PeekKey>> {
        let mut node = self.node(self.root)?.0;
        for name in path.split('\\').filter(|name| !name.is_empty()) {
            let wanted = Name::from(name);
            let mut found = None;
            for offset in self.subkey_offsets(&node, Some(&wanted))? {
                let (next, name) = self.node(offset)?;
                if name.same(&wanted) {
                    found = Some(next);
                    break;
                }
            }
            match found {
                Some(next) => node = next,
                None => return Ok(None),
            }
        }
        Ok(Some(PeekKey(node)))
    }

    /// The names of a key's subkeys.
    pub fn subkeys(&self, key: &PeekKey) -> Result<Vec<Name>> {
        let offsets = self.subkey_offsets(&key.0, None)?;
        offsets.into_iter().map(|offset| Ok(self.node(offset)?.1)).collect()
    }

    /// The value with a name.
    pub fn value(&self, key: &PeekKey, name: &str) -> Result<Option<Value>> {
        let wanted = Name::from(name);
        let count = key.0.number_of_key_values.get() as usize;
        if count == 0 {
            return Ok(None);
        }
        let list = key.0.key_values_list_offset.get();
        for offset in words(&self.cell("key values list", list, checked(count, list)? * 4)?) {
            let structure = "key value";
            let head: KeyValue = self.head(structure, offset, *b"vk")?;
            let start = size_of::<KeyValue>();
            let length = usize::from(head.name_length.get());
            let bytes = self.cell(structure, offset, start + length)?;
            let latin = head.flags.get() & VALUE_COMP_NAME != 0;
            let name = Name::from_stored(bytes.get(start..).unwrap_or_default(), latin);
            if !name.same(&wanted) {
                continue;
            }
            let raw = head.data_size.get();
            let size = (raw & !DATA_RESIDENT) as usize;
            let data = if raw & DATA_RESIDENT != 0 {
                head.data_offset.get().to_le_bytes().get(..size).unwrap_or_default().to_vec()
            } else if size > DATA_MAX {
                let detail = format!("its data has {size} bytes");
                return Err(HiveError::cell(structure, offset, detail));
            } else if size == 0 {
                Vec::new()
            } else {
                self.cell("value data", head.data_offset.get(), size)?
            };
            return Ok(Some(Value { name, data_type: head.data_type.get(), data }));
        }
        Ok(None)
    }

    /// The text of a value of the key at a path; `None` where there is no such key, value or text.
    pub fn text(&self, path: &str, name: &str) -> Result<Option<String>> {
        Ok(self.at(path, name)?.and_then(|value| value.text()))
    }

    /// The number of a value of the key at a path.
    pub fn number(&self, path: &str, name: &str) -> Result<Option<u32>> {
        Ok(self.at(path, name)?.and_then(|value| value.number()))
    }

    fn at(&self, path: &str, name: &str) -> Result<Option<Value>> {
        match self.key(path)? {
            Some(key) => self.value(&key, name),
            None => Ok(None),
        }
    }

    fn bytes(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        (self.read)(offset, length).map_err(HiveError::Read)
    }

    /// The first `length` bytes of an allocated cell's content.
    fn cell(&self, structure: &'static str, offset: u32, length: usize) -> Result<Vec<u8>> {
        let wrong = |detail: &str| HiveError::cell(structure, offset, detail);
        let bytes = self.bytes(PAGE as u64 + u64::from(offset), CELL_HEADER + length)?;
        let (header, content) =
            CellSize::read_from_prefix(&bytes).map_err(|_| wrong("it is beyond the end"))?;
        let size = header.size.get();
        if size >= 0 || (size.unsigned_abs() as usize) < CELL_HEADER + length {
            return Err(wrong("no allocated cell of its length begins there"));
        }
        if content.len() < length {
            return Err(wrong("it is beyond the end"));
        }
        Ok(content.to_vec())
    }

    fn head<T: FromBytes + KnownLayout + Immutable + Unaligned>(
        &self,
        structure: &'static str,
        offset: u32,
        signature: [u8; 2],
    ) -> Result<T> {
        let cell = self.cell(structure, offset, size_of::<T>())?;
        let wrong = || HiveError::cell(structure, offset, "its signature is wrong");
        let good = cell.starts_with(&signature);
        T::read_from_bytes(&cell).ok().filter(|_| good).ok_or_else(wrong)
    }

    fn node(&self, offset: u32) -> Result<(KeyNode, Name)> {
        let structure = "key node";
        let head: KeyNode = self.head(structure, offset, *b"nk")?;
        let start = size_of::<KeyNode>();
        let bytes =
            self.cell(structure, offset, start + usize::from(head.key_name_length.get()))?;
        let latin = head.flags.get() & KEY_COMP_NAME != 0;
        let name = Name::from_stored(bytes.get(start..).unwrap_or_default(), latin);
        Ok((head, name))
    }

    /// Offsets of the subkeys, but for those whose hash says that they have another name.
    fn subkey_offsets(&self, node: &KeyNode, wanted: Option<&Name>) -> Result<Vec<u32>> {
        if node.number_of_subkeys.get() == 0 {
            return Ok(Vec::new());
        }
        let top = node.subkeys_list_offset.get();
        let mut leaves = vec![top];
        if self.list_head(top)?.signature == *b"ri" {
            let count = usize::from(self.list_head(top)?.number_of_elements.get());
            let list = self.cell("subkeys list", top, 4 + count * 4)?;
            leaves = words(list.get(4..).unwrap_or_default());
        }
        let mut offsets = Vec::new();
        for leaf in leaves {
            let head = self.list_head(leaf)?;
            let count = usize::from(head.number_of_elements.get());
            let width = match &head.signature {
                b"li" => 4,
                b"lf" | b"lh" => 8,
                _ => return Err(HiveError::cell("subkeys list", leaf, "it is of no known kind")),
            };
            let list = self.cell("subkeys list", leaf, 4 + count * width)?;
            for element in list.get(4..).unwrap_or_default().chunks_exact(width) {
                let hash = element.get(4..8).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                if head.signature == *b"lh"
                    && wanted.is_some_and(|wanted| Some(wanted.hash()) != hash)
                {
                    continue;
                }
                offsets.extend(words(&element[..4]));
            }
            checked(offsets.len(), leaf)?;
        }
        Ok(offsets)
    }

    fn list_head(&self, offset: u32) -> Result<SubkeysList> {
        let cell = self.cell("subkeys list", offset, size_of::<SubkeysList>())?;
        SubkeysList::read_from_bytes(&cell)
            .map_err(|_| HiveError::cell("subkeys list", offset, "it is cut short"))
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn checked(count: usize, offset: u32) -> Result<usize> {
    if count <= COUNT_MAX {
        return Ok(count);
    }
    Err(HiveError::cell("list", offset, format!("it has {count} elements")))
}

#[cfg(test)]
mod tests {
    use super::super::{FileTime, Hive};
    use super::*;

    type Read<'a> = Box<dyn Fn(u64, usize) -> snf_fs::Result<Vec<u8>> + 'a>;

    fn peek(data: &[u8]) -> Result<Peek<Read<'_>>> {
        Peek::open(Box::new(move |offset, length| {
            let start = data.len().min(offset as usize);
            Ok(data[start..data.len().min(start + length)].to_vec())
        }))
    }

    fn hive() -> Vec<u8> {
        let mut hive = Hive::create("x", 5, &[1; 20], FileTime(1)).unwrap();
        let key = hive.create_path(hive.root(), "A\\Größe\\C").unwrap();
        hive.set_text(key, "text", "hello").unwrap();
        hive.set_number(key, "number", 7).unwrap();
        let many = hive.create_path(hive.root(), "Many").unwrap();
        for n in 0..1200 {
            let sub = hive.create_key(many, &format!("k{n}")).unwrap();
            hive.set_number(sub, "", n).unwrap();
        }
        hive.finish()
    }

    #[test]
    fn single_values() {
        let data = hive();
        let peek = peek(&data).unwrap();
        assert_eq!(peek.text("a\\GRÖßE\\c", "TEXT").unwrap().as_deref(), Some("hello"));
        assert_eq!(peek.number("A\\Größe\\C", "number").unwrap(), Some(7));
        assert_eq!(peek.text("A\\Größe\\C", "number").unwrap(), None);
        assert_eq!(peek.text("A\\none", "x").unwrap(), None);
        assert_eq!(peek.number("Many\\k777", "").unwrap(), Some(777));
        let many = peek.key("many").unwrap().unwrap();
        assert_eq!(peek.subkeys(&many).unwrap().len(), 1200);
    }

    #[test]
    fn damage_is_an_error() {
        let data = hive();
        assert!(peek(b"MZ").is_err() && peek(&data[..400]).is_err());
        for at in (4096..data.len()).step_by(37) {
            let mut bad = data.clone();
            bad[at] ^= 0xff;
            let peek = peek(&bad).unwrap();
            // Any result will do, as long as it comes.
            let _ = (peek.text("A\\Größe\\C", "text"), peek.number("Many\\k777", ""));
        }
        let cut = peek(&data[..data.len() - 4096]).unwrap();
        let _ = cut.key("Many").map(|key| key.map(|key| cut.subkeys(&key)));
    }
}
