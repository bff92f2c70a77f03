//! The messages between worker and broker: requests and answers as length-prefixed
//! binary messages over one socket. Both ends are this program; still each bounds what it reads.

use std::io::{self, Read, Write};

use snf_fs::{FileType, Timestamp};

/// Longest message: a directory of some hundred thousand names.
pub(crate) const MESSAGE_MAX: usize = 48 << 20;
/// Longest piece of a file in one message.
pub(crate) const PIECE: usize = 1 << 20;

/// Something that travels.
pub(crate) trait Wire: Sized {
    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes it from the front; `None` when it is not there.
    fn get(input: &mut &[u8]) -> Option<Self>;
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(taken)
}

macro_rules! wire_number {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(input: &mut &[u8]) -> Option<Self> {
                Some(Self::from_le_bytes(take(input, size_of::<Self>())?.try_into().ok()?))
            }
        }
    )*};
}
wire_number!(u8, u16, u32, u64, i32, i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(*self).put(out);
    }
    fn get(input: &mut &[u8]) -> Option<Self> {
        Some(u8::get(input)? != 0)
    }
}

/// Bytes: a name, a path, a piece of a file.
pub(crate) type Bytes = Box<[u8]>;

impl Wire for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        out.extend_from_slice(self);
    }
    fn get(input: &mut &[u8]) -> Option<Self> {
        let length = usize::try_from(u64::get(input)?).ok()?;
        Some(take(input, length)?.into())
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        Bytes::from(self.as_bytes()).put(out);
    }
    fn get(input: &mut &[u8]) -> Option<Self> {
        Self::from_utf8(Bytes::get(input)?.into_vec()).ok()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn get(input: &mut &[u8]) -> Option<Self> {
        Some(if bool::get(input)? { Some(T::get(input)?) } else { None })
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        for value in self {
            value.put(out);
        }
    }
    fn get(input: &mut &[u8]) -> Option<Self> {
        let count = u64::get(input)?;
        // Not reserved beforehand: each element takes bytes that must be there.
        let mut values = Self::new();
        for _ in 0..count {
            values.push(T::get(input)?);
        }
        Some(values)
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn get(input: &mut &[u8]) -> Option<Self> {
        Some((A::get(input)?, B::get(input)?))
    }
}

const FILE_TYPES: [FileType; 7] = [
    FileType::Regular,
    FileType::Directory,
    FileType::Symlink,
    FileType::CharDevice,
    FileType::BlockDevice,
    FileType::Fifo,
    FileType::Socket,
];

impl Wire for FileType {
    fn put(&self, out: &mut Vec<u8>) {
        let at = FILE_TYPES.iter().position(|kind| kind == self).unwrap_or(0);
        out.push(at as u8);
    }
    fn get(input: &mut &[u8]) -> Option<Self> {
        FILE_TYPES.get(usize::from(u8::get(input)?)).copied()
    }
}

impl Wire for Timestamp {
    fn put(&self, out: &mut Vec<u8>) {
        self.seconds.put(out);
        self.nanoseconds.put(out);
    }
    fn get(input: &mut &[u8]) -> Option<Self> {
        Some(Self { seconds: i64::get(input)?, nanoseconds: u32::get(input)? })
    }
}

macro_rules! wire_struct {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct $name { $($(#[$field_doc])* pub(crate) $field: $type,)* }
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn get(input: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: Wire::get(input)?,)* })
            }
        }
    };
}

macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$variant_doc:meta])* $tag:literal $variant:ident { $($field:ident: $type:ty),* },)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$variant_doc])* $variant { $($field: $type),* },)* }
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant { $($field),* } => {
                        out.push($tag);
                        $($field.put(out);)*
                    })*
                }
            }
            fn get(input: &mut &[u8]) -> Option<Self> {
                match u8::get(input)? {
                    $($tag => Some(Self::$variant { $($field: Wire::get(input)?),* }),)*
                    _ => None,
                }
            }
        }
    };
}

wire_struct! {
    /// The answer of `lstat`, and the numbers that identify the node.
    NodeStat {
        /// Device and inode number: the same for every name of a node.
        identity: (u64, u64),
        file_type: FileType,
        /// 12 bits.
        mode: u16,
        uid: u32,
        gid: u32,
        links: u32,
        size: u64,
        /// In units of 512 bytes.
        blocks: u64,
        /// Major and minor number of a device node.
        device: (u32, u32),
        atime: Timestamp,
        mtime: Timestamp,
        ctime: Timestamp,
        /// Whether it has the attribute `immutable` or `append only`: not even root may change it.
        fixed: bool,
    }
}

wire_struct! {
    /// The content and attributes of a new node, without paths and names.
    Meta {
        mode: u16,
        uid: u32,
        gid: u32,
        atime: Timestamp,
        mtime: Timestamp,
        /// Extended attributes to set, or to remove.
        xattrs: Vec<(Bytes, Option<Bytes>)>,
    }
}

wire_struct! {
    /// A mounted file system.
    Mounted {
        /// Its number in requests.
        mount: u32,
        block_size: u32,
        size: u64,
        free: u64,
        /// The path of the subvolume that is mounted when none is named; empty where there is
        /// only one tree.
        default: Bytes,
    }
}

wire_enum! {
    /// A request of the worker. Paths are relative to the root of the mount, without `.`, `..`
    /// and symbolic links; the empty one is the root itself.
    Request {
        /// Mounts a part of a disk, read-only.
        0 Mount { disk: String, start: u64, size: u64, kind: String },
        1 Stat { mount: u32, path: Bytes },
        2 List { mount: u32, path: Bytes },
        3 Read { mount: u32, path: Bytes, offset: u64, length: u32 },
        4 ReadLink { mount: u32, path: Bytes },
        5 Xattrs { mount: u32, path: Bytes },
        /// Whether the subvolume is read-only.
        6 SubvolumeReadOnly { mount: u32, path: Bytes },
        /// From here on it may be written; enlarged to this many bytes first, if asked for.
        7 Begin { mount: u32, grow: Option<u64> },
        /// A new content for the file of that path begins. In place only where other names of the
        /// node have to keep it.
        8 Open { mount: u32, path: Bytes, in_place: bool },
        9 Data { bytes: Bytes },
        /// The content is complete and takes its place.
        10 Close { meta: Meta },
        11 MakeDirectory { mount: u32, path: Bytes, meta: Meta },
        12 MakeSymlink { mount: u32, path: Bytes, target: Bytes, meta: Meta },
        13 Remove { mount: u32, path: Bytes, directory: bool },
        14 Rename { mount: u32, from: Bytes, to: Bytes },
        15 Set { mount: u32, path: Bytes, meta: Meta },
        /// Everything is to be on the disk; the mount is gone afterwards.
        16 Finish { mount: u32 },
    }
}

wire_enum! {
    /// An answer of the broker.
    Answer {
        0 Done {},
        1 Mounted { mounted: Mounted },
        /// `None`: there is no such name.
        2 Stat { stat: Option<NodeStat> },
        3 List { entries: Vec<(Bytes, Option<FileType>)> },
        4 Bytes { bytes: Bytes },
        5 Xattrs { xattrs: Vec<(Bytes, Bytes)> },
        6 Flag { value: bool },
        /// The step that failed, and the system's error number (0: none of its).
        7 Failed { what: String, errno: i32 },
    }
}

/// Sends one message.
pub(crate) fn send(to: &mut impl Write, message: &impl Wire) -> io::Result<()> {
    let mut out = vec![0; 4];
    message.put(&mut out);
    let length = u32::try_from(out.len() - 4).map_err(|_| too_long())?;
    if length as usize > MESSAGE_MAX {
        return Err(too_long());
    }
    out[..4].copy_from_slice(&length.to_le_bytes());
    to.write_all(&out)
}

/// Receives one message; `None` when the other end is closed.
pub(crate) fn receive<T: Wire>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MESSAGE_MAX {
        return Err(too_long());
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    let mut rest = body.as_slice();
    match T::get(&mut rest) {
        Some(message) if rest.is_empty() => Ok(Some(message)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a message that makes no sense")),
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_and_cut_ones_are_refused() {
        let meta = Meta {
            mode: 0o4755,
            uid: 1,
            gid: u32::MAX,
            atime: Timestamp { seconds: -1, nanoseconds: 5 },
            mtime: Timestamp::default(),
            xattrs: vec![(b"user.x"[..].into(), None), (b"a"[..].into(), Some(b"b"[..].into()))],
        };
        let request = Request::MakeSymlink {
            mount: 3,
            path: b"etc/x"[..].into(),
            target: b"\xff"[..].into(),
            meta,
        };
        let mut sent = Vec::new();
        send(&mut sent, &request).unwrap();
        assert_eq!(receive(&mut sent.as_slice()).unwrap(), Some(request));
        for cut in 4..sent.len() {
            let mut short = sent[..cut].to_vec();
            short[..4].copy_from_slice(&((cut - 4) as u32).to_le_bytes());
            assert!(receive::<Request>(&mut short.as_slice()).is_err(), "{cut}");
        }
        assert!(receive::<Answer>(&mut &b"\xff\xff\xff\xff"[..]).is_err());
        assert_eq!(receive::<Answer>(&mut &b""[..]).unwrap(), None);
        // A list that says it is long and is not.
        let mut liar = vec![9, 0, 0, 0, 5];
        liar.extend_from_slice(&u64::MAX.to_le_bytes());
        assert!(receive::<Answer>(&mut liar.as_slice()).is_err());
    }
}
