//! Reading: tree blocks with all their checks, and data from whichever copy is right.

use std::cell::RefCell;
use std::sync::Arc;

use super::chunk::ChunkMap;
use super::layout::{Header, Key, split};
use super::node::Node;
use super::superblock::{Super, clean};
use super::units::{Logical, TreeId};
use crate::cache::Cache;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};

/// Bytes of tree blocks kept.
const CACHE_BYTES: usize = 16 << 20;

/// The facts that a pointer states about its block.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Its place.
    pub at: Logical,
    /// Its level.
    pub level: u8,
    /// The transaction that wrote it.
    pub generation: u64,
    /// The tree that is walked.
    pub tree: TreeId,
    /// Its first key; roots have none.
    pub first: Option<Key>,
    /// The key that all of its own are below, where there is one.
    pub below: Option<Key>,
}

/// The device and what is known of it.
pub struct Store {
    device: Arc<dyn BlockDevice>,
    /// The superblock as it is on the device.
    pub sb: Super,
    /// The chunks.
    pub chunks: ChunkMap,
    cache: RefCell<Cache<Node>>,
}

impl Store {
    /// A store that knows the system chunks.
    pub fn new(device: Arc<dyn BlockDevice>, sb: Super) -> Result<Self> {
        let chunks = ChunkMap::from_super(&sb)?;
        let blocks = (CACHE_BYTES / to_usize(sb.node_size)).max(64);
        Ok(Self { device, sb, chunks, cache: RefCell::new(Cache::new(blocks)) })
    }

    /// The device below.
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    /// Forgets what was read, after blocks were written.
    pub fn forget(&self) {
        self.cache.borrow_mut().retain(|_| false);
    }

    /// The tree block that a pointer leads to.
    pub fn block(&self, expected: &Expected) -> Result<Node> {
        let cached = self.cache.borrow_mut().get(expected.at.0);
        let node = match cached {
            Some(node) => node,
            None => {
                let node = self.load(expected.at)?;
                self.cache.borrow_mut().insert(expected.at.0, node.clone());
                node
            }
        };
        self.check(&node, expected)?;
        Ok(node)
    }

    /// Reads a block from the first copy that is right.
    fn load(&self, at: Logical) -> Result<Node> {
        let size = to_usize(self.sb.node_size);
        if !at.0.is_multiple_of(u64::from(self.sb.sector_size)) {
            return Err(corrupt(at, "it is not aligned to sectors"));
        }
        let mut first = None;
        for copy in self.chunks.map(at, to_u64(size))? {
            let mut bytes = vec![0; size];
            let read = self.device.read_at(copy.0, &mut bytes).map_err(Error::from);
            match read.and_then(|()| self.verify(at, bytes)) {
                Ok(node) => return Ok(node),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| corrupt(at, "its chunk has no copies")))
    }

    fn verify(&self, at: Logical, bytes: Vec<u8>) -> Result<Node> {
        let Some((header, _)) = split::<Header>(&bytes) else {
            return Err(corrupt(at, "it is too short"));
        };
        let checksum = self.sb.checksum;
        if header.bytenr.get() != at.0 {
            return Err(corrupt(at, format!("it says that it is at {}", header.bytenr.get())));
        }
        if checksum.of(&bytes[32..]) != clean(&header.csum, checksum.size()) {
            return Err(corrupt(at, "its checksum is wrong"));
        }
        if header.fsid != self.sb.tree_uuid() {
            return Err(corrupt(at, "it has the UUID of another file system"));
        }
        Node::parse(at, bytes.into())
    }

    fn check(&self, node: &Node, expected: &Expected) -> Result<()> {
        let at = expected.at;
        if node.level() != expected.level {
            return Err(corrupt(
                at,
                format!("its level is {} instead of {}", node.level(), expected.level),
            ));
        }
        if node.generation() != expected.generation {
            return Err(corrupt(
                at,
                format!(
                    "its generation is {} instead of {}",
                    node.generation(),
                    expected.generation
                ),
            ));
        }
        // Subvolumes share blocks; all other trees have their own.
        let owner = node.owner();
        if owner != expected.tree && !(owner.is_subvolume() && expected.tree.is_subvolume()) {
            return Err(corrupt(at, format!("it belongs to {owner}, not to {}", expected.tree)));
        }
        if expected.first.is_some_and(|first| node.len() == 0 || node.key(0) != first) {
            return Err(corrupt(
                at,
                format!("it begins with {}, not with what leads to it", node.key(0)),
            ));
        }
        if let Some(below) = expected.below
            && node.len() > 0
            && node.key(node.len() - 1) >= below
        {
            return Err(corrupt(at, format!("its last key is not below {below}")));
        }
        Ok(())
    }

    /// Reads data. `sums` are its checksums, one a sector; without them the first copy that can
    /// be read is taken.
    pub fn data(&self, at: Logical, buf: &mut [u8], sums: Option<&[u8]>) -> Result<()> {
        let mut first = None;
        for copy in self.chunks.map(at, to_u64(buf.len()))? {
            let read = self.device.read_at(copy.0, buf).map_err(Error::from);
            match read.and_then(|()| self.verify_data(at, buf, sums)) {
                Ok(()) => return Ok(()),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| corrupt(at, "its chunk has no copies")))
    }

    fn verify_data(&self, at: Logical, buf: &[u8], sums: Option<&[u8]>) -> Result<()> {
        let Some(sums) = sums else { return Ok(()) };
        let (sector, size) = (to_usize(self.sb.sector_size), self.sb.checksum.size());
        for (index, bytes) in buf.chunks(sector).enumerate() {
            let wanted = sums.get(index * size..(index + 1) * size);
            if wanted != Some(&self.sb.checksum.of(bytes)[..size]) {
                let place = Logical(at.0 + to_u64(index * sector));
                return Err(Error::corrupt(
                    "file data",
                    place.to_string(),
                    "its checksum is wrong",
                ));
            }
        }
        Ok(())
    }
}

fn corrupt(at: Logical, detail: impl Into<String>) -> Error {
    Error::corrupt("tree block", at.to_string(), detail)
}
