//! `snf-customize find`.

use std::cmp::Ordering;

use snf_fs::FileType;
use snf_fs::error::display_name;
use snf_fs::tree::{Descend, Visited};
use snf_image::guest::glob;

use super::Trouble;
use super::args::{Find, TypeArg};
use super::names::Names;
use super::opened::{Opened, bytes};
use super::stream::Stream;
use crate::exit::{Exit, Failure};
use crate::output;

/// Lists paths.
pub(super) fn run(args: &Find) -> Result<Exit, Failure> {
    let size = args.size.as_deref().map(Size::parse).transpose()?;
    let perm = args.perm.as_deref().map(octal).transpose()?;
    let opened = Opened::new(&args.source)?;
    let user = match &args.user {
        None => None,
        Some(name) => Some(Names::of(&opened.guest).user_number(name).ok_or_else(|| {
            Failure::new(Exit::Failed, format!("--user {name}: the guest has no such user"))
        })?),
    };
    let wanted = Wanted { args, size, perm, user };
    let mut out = Stream::new()?;
    let result = args.paths.iter().try_for_each(|path| {
        let mut start = None;
        opened.tree().visit(bytes(path), |visited| {
            let depth = visited.path.iter().filter(|byte| **byte == b'/').count();
            let depth = if visited.path == b"/" { 0 } else { depth };
            let system = opened.tree().file_system_of(visited.handle);
            let (top, first) = *start.get_or_insert((depth, system));
            if let Some(reason) = visited.blocked {
                output::warning_line(&format!("{}: {reason}", display_name(visited.path)));
            }
            if wanted.accepts(visited) {
                match args.print0 {
                    true => out.bytes(&[visited.path, b"\0"].concat())?,
                    false => out.line(&display_name(visited.path))?,
                }
            }
            let deep_enough = args.max_depth.is_some_and(|limit| depth - top >= limit);
            let elsewhere = args.xdev && system != first;
            Ok::<_, Trouble>(if deep_enough || elsewhere { Descend::No } else { Descend::Yes })
        })
    });
    let flushed = out.finish();
    opened.end(result.and(flushed))?;
    Ok(Exit::Done)
}

struct Wanted<'a> {
    args: &'a Find,
    size: Option<Size>,
    perm: Option<u16>,
    user: Option<u32>,
}

impl Wanted<'_> {
    fn accepts(&self, visited: &Visited<'_>) -> bool {
        let Visited { path, stat, .. } = visited;
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let kinds = &self.args.kinds;
        let pattern = self.args.name.as_deref().map(bytes);
        // A leading dot is no wall here: find(1) lists hidden names, too.
        pattern.is_none_or(|pattern| glob::matches_any(pattern, name))
            && (kinds.is_empty() || kinds.iter().any(|kind| kind.file_type() == stat.file_type))
            && self.user.is_none_or(|uid| stat.uid == uid)
            && self.perm.is_none_or(|bits| stat.mode & bits == bits)
            && self.size.is_none_or(|size| {
                stat.file_type == FileType::Regular && stat.size.cmp(&size.bytes) == size.order
            })
    }
}

impl TypeArg {
    fn file_type(self) -> FileType {
        match self {
            Self::F => FileType::Regular,
            Self::D => FileType::Directory,
            Self::L => FileType::Symlink,
            Self::B => FileType::BlockDevice,
            Self::C => FileType::CharDevice,
            Self::P => FileType::Fifo,
            Self::S => FileType::Socket,
        }
    }
}

/// `+10M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    order: Ordering,
    bytes: u64,
}

impl Size {
    fn parse(text: &str) -> Result<Self, Failure> {
        let (order, number) = match text.as_bytes().first() {
            Some(b'+') => (Ordering::Greater, &text[1..]),
            Some(b'-') => (Ordering::Less, &text[1..]),
            _ => (Ordering::Equal, text),
        };
        let (number, unit) = match number.as_bytes().last() {
            Some(b'k' | b'K') => (&number[..number.len() - 1], 1 << 10),
            Some(b'M') => (&number[..number.len() - 1], 1 << 20),
            Some(b'G') => (&number[..number.len() - 1], 1 << 30),
            _ => (number, 1),
        };
        let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(unit));
        bytes.map(|bytes| Self { order, bytes }).ok_or_else(|| {
            Failure::usage(format!(
                "--size {text}: it is not a size such as 4096, +10M or -1k (units k, M, G)"
            ))
        })
    }
}

fn octal(text: &str) -> Result<u16, Failure> {
    u16::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(|| {
        Failure::usage(format!("--perm {text}: it is not an octal mode such as 4000 or 0644"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_modes() {
        let size = |order, bytes| Size { order, bytes };
        assert_eq!(Size::parse("+10M").unwrap(), size(Ordering::Greater, 10 << 20));
        assert_eq!(Size::parse("-1k").unwrap(), size(Ordering::Less, 1024));
        assert_eq!(Size::parse("0").unwrap(), size(Ordering::Equal, 0));
        for bad in ["", "+", "x", "1T", "99999999999999999999", "18446744073709551615G", "--1"] {
            assert_eq!(Size::parse(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
        assert_eq!(octal("4000").unwrap(), 0o4000);
        assert!(octal("8").is_err() && octal("10000").is_err());
    }
}
