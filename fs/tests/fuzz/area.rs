//! The parts of the engine that are tried by themselves, each on every kind of file system.

use std::sync::Arc;

use super::choices::Choices;
use super::corpus::{self, Corpus};
use super::device::Patched;
use super::exercise;
use super::fixup::Place;
use super::run::{Outcome, Target};

/// A part of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Open, walk all directories, read.
    Walk,
    /// Extended attributes: list, set, remove.
    Xattr,
    /// Indexed directories: look up, insert, remove, rename.
    Htree,
    /// Everything after open, and the commit.
    Edit,
    /// Enlarge.
    Grow,
}

impl Area {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Walk, Self::Xattr, Self::Htree, Self::Edit, Self::Grow];

    /// How much a structure matters to this part.
    fn weight(self, place: Place) -> usize {
        match (self, place) {
            (Self::Walk | Self::Edit, _) => 1,
            (Self::Xattr, Place::Xattr(_)) => 4,
            (Self::Xattr, Place::Inode(_)) => 1,
            (Self::Htree, Place::DirBlock(..)) => 2,
            (Self::Htree, Place::Inode(_) | Place::ExtentNode(..)) => 1,
            (Self::Grow, Place::Superblock | Place::Descriptor(_)) => 4,
            (Self::Grow, Place::BlockBitmap(..) | Place::InodeBitmap(..)) => 1,
            _ => 0,
        }
    }

    /// The byte of a structure from which on it is damaged: the attributes of an inode follow its fields.
    fn skip(self, place: Place, length: usize) -> usize {
        match (self, place) {
            (Self::Xattr, Place::Inode(_)) if length > 160 => 128,
            _ => 0,
        }
    }

    fn exercise(self, device: Arc<Patched>) -> usize {
        match self {
            Self::Walk => exercise::walk(device),
            Self::Xattr => exercise::attributes(device),
            Self::Htree => exercise::directories(device),
            Self::Edit => exercise::edit(device),
            Self::Grow => exercise::enlarge(device),
        }
    }
}

/// One part on one image.
pub struct AreaTarget {
    area: Area,
    corpus: Arc<Corpus>,
    places: Vec<Place>,
    /// The operations that the undamaged image refuses (no room for some attributes, say).
    refusals: usize,
}

impl AreaTarget {
    fn new(area: Area, corpus: Arc<Corpus>) -> Self {
        let weighed = |&place: &Place| std::iter::repeat_n(place, area.weight(place));
        let places = corpus.places.iter().flat_map(weighed).collect();
        let refusals = area.exercise(corpus.device());
        Self { area, corpus, places, refusals }
    }
}

impl Target for AreaTarget {
    fn name(&self) -> String {
        format!("{:?} {}", self.area, self.corpus.name)
    }

    fn round(&self, choices: &mut Choices<'_>) -> Outcome {
        let skip = |place, length| self.area.skip(place, length);
        let device = self.corpus.damaged(choices, &self.places, &skip);
        let refused = self.area.exercise(device.clone());
        Outcome { reads: device.reads(), noticed: refused != self.refusals }
    }

    fn cache(&self) -> usize {
        snf_fs::ext::internals::store::CACHE_BYTES
    }

    fn check_undamaged(&self) {
        assert!(self.refusals < 60, "{}: {} refusals", self.name(), self.refusals);
        assert!(!self.places.is_empty(), "{}", self.name());
    }
}

/// The given parts on every image.
pub fn targets(areas: &[Area]) -> Vec<Box<dyn Target>> {
    let corpora: Vec<Arc<Corpus>> = corpus::all().into_iter().map(Arc::new).collect();
    let mut out: Vec<Box<dyn Target>> = Vec::new();
    for &area in areas {
        for corpus in &corpora {
            out.push(Box::new(AreaTarget::new(area, corpus.clone())));
        }
    }
    out
}
