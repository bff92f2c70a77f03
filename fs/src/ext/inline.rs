//! inline_data: small content kept in the inode, the first 60 bytes in `i_block` and the rest as
//! the value of the xattr `system.data` in the room behind the inode's fields.

use crate::error::Error;
use crate::error::Result;
use crate::ext::inode::Inode;
use crate::ext::volume::Volume;

/// `h_magic` before the xattrs in an inode.
const MAGIC: u32 = 0xEA02_0000;
/// `e_name_index` of names that begin with `system.`.
const INDEX_SYSTEM: u8 = 7;
/// Bytes of an entry before its name.
const ENTRY: usize = 16;

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
}

/// The value of `system.data`, empty when there is none.
fn tail(inode: &Inode) -> Result<&[u8]> {
    let bytes = &inode.tail;
    if word(bytes, 0) != Some(MAGIC) {
        return Ok(&[]);
    }
    let wrong = |detail: String| {
        Error::corrupt("xattr system.data", format!("inode {}", inode.ino), detail)
    };
    let mut at = 4;
    // A zero word ends the list; the list cannot be longer than the inode.
    while word(bytes, at).is_some_and(|word| word != 0) {
        let (Some(&name_len), Some(&index)) = (bytes.get(at), bytes.get(at + 1)) else { break };
        let name_end = at + ENTRY + usize::from(name_len);
        let Some(name) = bytes.get(at + ENTRY..name_end) else {
            return Err(wrong("an entry runs past the end of the inode".to_owned()));
        };
        if index == INDEX_SYSTEM && name == b"data" {
            let offset = half(bytes, at + 2).unwrap_or(0) + 4;
            let size = word(bytes, at + 8).unwrap_or(0) as usize;
            let value = offset.checked_add(size).and_then(|end| bytes.get(offset..end));
            return value.ok_or_else(|| {
                wrong(format!("its value of {size} bytes is not within the inode"))
            });
        }
        at = name_end.next_multiple_of(4);
    }
    Ok(&[])
}

/// All bytes that an inode with the inline_data flag holds; `i_size` says how many of them count.
pub fn content(_vol: &Volume, inode: &Inode) -> Result<Vec<u8>> {
    let mut out = inode.raw.i_block.to_vec();
    out.extend_from_slice(tail(inode)?);
    Ok(out)
}

/// Takes the content out of the inode, before it gets a block map.
pub fn remove(_vol: &mut Volume, inode: &mut Inode) -> Result<()> {
    Err(Error::unsupported(
        format!("changing inode {}, which has inline data", inode.ino),
        "mount the image and rewrite the file",
    ))
}
