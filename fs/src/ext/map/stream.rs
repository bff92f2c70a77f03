//! Content that is longer than memory: it goes to blocks that are free on the device while it is
//! read. Nothing refers to them before the commit.

use std::io::{ErrorKind, Read};

use super::write::{extend, renew};
use crate::error::{Error, Result};
use crate::ext::inode::Inode;
use crate::ext::journal;
use crate::ext::units::FsBlock;
use crate::ext::volume::Volume;

/// Bytes that are read before they are written: whole blocks of every size.
const CHUNK: usize = 1 << 20;

/// Replaces the whole content by what `content` gives, and says how many bytes that were. The caller
/// writes the inode.
pub fn replace_from(vol: &mut Volume, inode: &mut Inode, content: &mut dyn Read) -> Result<u64> {
    renew(vol, inode, |vol, inode, goal| write(vol, inode, goal, content))
}

fn write(
    vol: &mut Volume,
    inode: &mut Inode,
    goal: FsBlock,
    content: &mut dyn Read,
) -> Result<u64> {
    let block = vol.block_size();
    let mut buffer = vec![0; CHUNK];
    let (mut lblk, mut goal, mut size) = (0, goal, 0u64);
    loop {
        let filled = fill(content, &mut buffer)?;
        size += filled as u64;
        let mut rest = filled.div_ceil(block) * block;
        buffer[filled..rest].fill(0);
        let mut done = 0;
        while rest > 0 {
            let (start, len) = extend(vol, inode, lblk, goal, (rest / block) as u64)?;
            // A cluster may have more blocks than are left.
            let now = rest.min(len as usize * block);
            journal::check_apart(vol, start, u64::from(len))?;
            vol.store.write_free(start, &buffer[done..done + now])?;
            let written = (now / block) as u64;
            for more in (start + written).run(u64::from(len) - written) {
                vol.store.write_data(more, vec![0; block])?;
            }
            lblk += u64::from(len);
            goal = start + u64::from(len);
            done += now;
            rest -= now;
        }
        if filled < buffer.len() {
            return Ok(size);
        }
    }
}

/// Reads until the buffer is full or the content ends.
fn fill(content: &mut dyn Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match content.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count.min(buffer.len() - filled),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Content(String::new(), error)),
        }
    }
    Ok(filled)
}
