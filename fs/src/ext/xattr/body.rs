//! Attributes in the inode itself, after its fields. The file content that inline_data keeps as an
//! attribute is one of them.

use super::list::{self, Attr, MAGIC, Value};
use super::names::name_index;
use crate::error::Result;
use crate::ext::inode::Inode;

/// Bytes of the magic number before the attributes in an inode.
const BODY_HEADER: usize = 4;

/// The attributes in the inode itself.
pub(super) fn load_body(inode: &Inode) -> Result<Vec<Attr>> {
    let Some((magic, region)) = inode.tail.split_at_checked(BODY_HEADER) else {
        return Ok(Vec::new());
    };
    // Without an extra part no attributes follow, whatever the bytes look like.
    if inode.extra_isize() == 0 || magic != MAGIC.to_le_bytes() {
        return Ok(Vec::new());
    }
    list::parse(region, 0, &format!("inode {}", inode.ino))
}

/// Bytes that the attributes in the inode may take.
pub(super) fn body_room(inode: &Inode) -> usize {
    inode.tail.len().saturating_sub(BODY_HEADER)
}

/// Puts the attributes into the inode; they must fit into [`body_room`].
pub(super) fn store_body(inode: &mut Inode, attrs: &[Attr]) {
    inode.tail.fill(0);
    if !attrs.is_empty()
        && let Some((magic, region)) = inode.tail.split_at_mut_checked(BODY_HEADER)
    {
        magic.copy_from_slice(&MAGIC.to_le_bytes());
        list::write(region, 0, attrs, false);
    }
}

/// The part of a file's or directory's inline data that does not fit into `i_block`: the value of
/// `system.data`. `None` when there is no such attribute.
pub fn inline_tail(inode: &Inode) -> Result<Option<Vec<u8>>> {
    let found = load_body(inode)?
        .into_iter()
        .find(|attr| attr.index == name_index::SYSTEM && attr.name == b"data");
    Ok(match found {
        Some(Attr { value: Value::Here(value), .. }) => Some(value),
        _ => None,
    })
}

/// Sets or removes `system.data`. `false` when the inode has no room for it; nothing changed then.
pub fn set_inline_tail(inode: &mut Inode, value: Option<&[u8]>) -> Result<bool> {
    inode.use_extra();
    let mut body = load_body(inode)?;
    let is_it = |attr: &Attr| attr.index == name_index::SYSTEM && attr.name == b"data";
    let at = body.iter().position(is_it);
    match (at, value) {
        (Some(at), Some(value)) => body[at].value = Value::Here(value.to_vec()),
        (Some(at), None) => {
            body.remove(at);
        }
        (None, Some(value)) => body.push(Attr {
            index: name_index::SYSTEM,
            name: b"data".to_vec(),
            value: Value::Here(value.to_vec()),
        }),
        (None, None) => {}
    }
    if !list::fits(&body, body_room(inode)) && !body.is_empty() {
        return Ok(false);
    }
    store_body(inode, &body);
    Ok(true)
}
