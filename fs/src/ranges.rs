//! Sets of block or cluster numbers kept as runs: freeing a swap file of many gigabytes takes a few entries,
//! not one for each of its millions of blocks.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of block numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// One past the last by first; no two touch.
    runs: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Whether a block is in it.
    pub fn contains(&self, block: u64) -> bool {
        self.runs.range(..=block).next_back().is_some_and(|(_, &end)| block < end)
    }

    /// Adds the blocks of `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        if let Some((&first, &past)) = self.runs.range(..=start).next_back()
            && past >= start
        {
            start = first;
            end = end.max(past);
        }
        while let Some((&first, &past)) = self.runs.range(start..=end).next() {
            end = end.max(past);
            self.runs.remove(&first);
        }
        self.runs.insert(start, end);
    }

    /// The runs that have blocks in `range`, clipped to it, in order.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let before = self.runs.range(..range.start).next_back();
        before
            .into_iter()
            .chain(self.runs.range(range.clone()))
            .map(move |(&start, &end)| start.max(range.start)..end.min(range.end))
            .filter(|run| !run.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_and_clip() {
        let mut set = Ranges::default();
        assert!(set.runs.is_empty() && !set.contains(0));
        for range in [10..20, 30..40, 5..6, 20..25, 39..50, 6..6, 60..61] {
            set.insert(range);
        }
        assert_eq!(
            set.runs.iter().collect::<Vec<_>>(),
            [(&5, &6), (&10, &25), (&30, &50), (&60, &61)]
        );
        assert!(set.contains(24) && !set.contains(25) && set.contains(49) && !set.contains(9));
        assert_eq!(set.within(12..45).collect::<Vec<_>>(), [12..25, 30..45]);
        assert_eq!(set.within(25..30).count(), 0);
        assert_eq!(set.within(0..100).count(), 4);
        set.insert(0..100);
        assert_eq!(set.runs.iter().collect::<Vec<_>>(), [(&0, &100)]);
    }

    #[test]
    fn as_a_plain_set() {
        let mut set = Ranges::default();
        let mut plain = std::collections::BTreeSet::new();
        let mut state = 7u64;
        for _ in 0..500 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let start = (state >> 33) % 1000;
            let end = start + (state >> 60);
            set.insert(start..end);
            plain.extend(start..end);
        }
        for block in 0..1100 {
            assert_eq!(set.contains(block), plain.contains(&block), "{block}");
        }
        let joined: Vec<u64> = set.within(100..900).flatten().collect();
        assert_eq!(joined, plain.range(100..900).copied().collect::<Vec<_>>());
    }
}
