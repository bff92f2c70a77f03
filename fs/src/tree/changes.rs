//! The record of what a run changed.

use std::collections::BTreeMap;

use crate::error::display_name;

/// The change of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// It has other content (and perhaps other attributes).
    Replaced,
    /// It is gone.
    Removed,
    /// Only mode, owner, times or extended attributes changed.
    Attributes,
}

impl ChangeKind {
    /// One word for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Replaced => "replaced",
            Self::Removed => "removed",
            Self::Attributes => "attributes",
        }
    }
}

/// One changed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The canonical guest path.
    pub path: Vec<u8>,
    /// The kind of change.
    pub kind: ChangeKind,
}

impl Change {
    /// The path as text, safe to print.
    pub fn display(&self) -> String {
        display_name(&self.path)
    }
}

/// All changed paths, each once, with what became of it in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    paths: BTreeMap<Vec<u8>, ChangeKind>,
}

impl Changes {
    /// The changes in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = Change> + '_ {
        self.paths.iter().map(|(path, kind)| Change { path: path.clone(), kind: *kind })
    }

    /// The change of one canonical path.
    pub fn get(&self, path: impl AsRef<[u8]>) -> Option<ChangeKind> {
        self.paths.get(path.as_ref()).copied()
    }

    /// How many paths changed.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    pub(super) fn record(&mut self, path: &[u8], kind: ChangeKind) {
        use ChangeKind::{Attributes, Created, Removed, Replaced};
        let merged = match (self.paths.get(path), kind) {
            (Some(Created), Removed) => {
                self.paths.remove(path);
                return;
            }
            (Some(Created), _) => Created,
            (Some(Removed), Created) => Replaced,
            (Some(Replaced), Attributes) => Replaced,
            (_, new) => new,
        };
        self.paths.insert(path.to_vec(), merged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_counts() {
        let mut changes = Changes::default();
        for (path, kind) in [
            ("/new", ChangeKind::Created),
            ("/new", ChangeKind::Attributes),
            ("/brief", ChangeKind::Created),
            ("/brief", ChangeKind::Removed),
            ("/again", ChangeKind::Removed),
            ("/again", ChangeKind::Created),
            ("/edited", ChangeKind::Attributes),
            ("/edited", ChangeKind::Replaced),
        ] {
            changes.record(path.as_bytes(), kind);
        }
        let list: Vec<_> = changes.iter().map(|c| (c.display(), c.kind)).collect();
        assert_eq!(
            list,
            [
                ("/again".into(), ChangeKind::Replaced),
                ("/edited".into(), ChangeKind::Replaced),
                ("/new".into(), ChangeKind::Created)
            ]
        );
    }
}
