//! Content that is longer than memory: it goes to blocks that are free on the device while it is
//! read. Nothing refers to them before the commit.

use std::io::{ErrorKind, Read};

use super::write::{extend, renew};
use crate::error::{Error, Result};
use crate::ext::inode::Inode;
use crate::ext::units::FsBlock;
use crate::ext::volume::Volume;
use crate::num::{to_u64, to_usize};

/// Bytes that are read before they are written: whole blocks of every size.
const CHUNK: usize = 1 << 20;

/// Refuses blocks that must not be written although a bitmap says that they are free.
pub type Check = fn(&Volume, FsBlock, u64) -> Result<()>;

/// Replaces the whole content by what `content` gives, and says how many bytes that were. The caller
/// writes the inode. `check` sees every run of blocks before it is written.
pub fn replace_from(
    vol: &mut Volume,
    inode: &mut Inode,
    content: &mut dyn Read,
    check: Check,
) -> Result<u64> {
    renew(vol, inode, |vol, inode, goal| write(vol, inode, goal, content, check))
}

fn write(
    vol: &mut Volume,
    inode: &mut Inode,
    goal: FsBlock,
    content: &mut dyn Read,
    check: Check,
) -> Result<u64> {
    let block = vol.block_size();
    let mut buffer = vec![0; CHUNK];
    let (mut lblk, mut goal, mut size) = (0, goal, 0u64);
    loop {
        let filled = fill(content, &mut buffer)?;
        size += to_u64(filled);
        let mut rest = filled.div_ceil(block) * block;
        buffer[filled..rest].fill(0);
        let mut done = 0;
        while rest > 0 {
            let (start, len) = extend(vol, inode, lblk, goal, to_u64(rest / block))?;
            // A cluster may have more blocks than are left.
            let now = rest.min(to_usize(len) * block);
            check(vol, start, u64::from(len))?;
            vol.store.write_free(start, &buffer[done..done + now])?;
            let written = to_u64(now / block);
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
