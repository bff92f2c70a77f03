//! `snf-customize cat`.

use snf_fs::error::display_name;
use snf_fs::{Error, FileType};

use super::Trouble;
use super::args::Cat;
use super::opened::{Opened, bytes};
use super::stream::Stream;
use crate::exit::{Exit, Failure};

/// Writes files to standard output.
pub(super) fn run(args: &Cat) -> Result<Exit, Failure> {
    let opened = Opened::new(&args.source)?;
    let mut out = Stream::new()?;
    let result = args.paths.iter().try_for_each(|path| one(&opened, bytes(path), &mut out));
    // Files before the one that failed are shown.
    let flushed = out.finish();
    opened.end(result.and(flushed))?;
    Ok(Exit::Done)
}

fn one(opened: &Opened, path: &[u8], out: &mut Stream) -> Result<(), Trouble> {
    let tree = opened.tree();
    let handle = tree.handle(path, true)?;
    match tree.stat_handle(handle)?.file_type {
        FileType::Regular => tree.stream(handle, |piece| out.bytes(piece)),
        FileType::Directory => Err(Error::IsADirectory(display_name(path)).into()),
        _ => Err(Error::WrongType(display_name(path), "not a regular file").into()),
    }
}
