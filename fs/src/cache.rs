//! A bounded cache with a second chance for what was used: the engines keep metadata in it.

use std::collections::{HashMap, VecDeque};

/// Values by number. When it is full, the value that was stored first goes, unless it was used
/// since it was stored or last spared: then it is spared once more.
#[derive(Debug)]
pub(crate) struct Cache<V> {
    most: usize,
    /// The value, and whether it was used.
    values: HashMap<u64, (V, bool)>,
    queue: VecDeque<u64>,
}

impl<V: Clone> Cache<V> {
    /// A cache of at most `most` values, and of one at least.
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), values: HashMap::new(), queue: VecDeque::new() }
    }

    /// The value with this number.
    pub(crate) fn get(&mut self, number: u64) -> Option<V> {
        let (value, used) = self.values.get_mut(&number)?;
        *used = true;
        Some(value.clone())
    }

    /// Keeps a value, in place of one with the same number.
    pub(crate) fn insert(&mut self, number: u64, value: V) {
        if let Some(entry) = self.values.get_mut(&number) {
            *entry = (value, true);
            return;
        }
        while self.values.len() >= self.most {
            let Some(oldest) = self.queue.pop_front() else { break };
            match self.values.get_mut(&oldest) {
                Some((_, used @ true)) => {
                    *used = false;
                    self.queue.push_back(oldest);
                }
                _ => {
                    self.values.remove(&oldest);
                }
            }
        }
        self.queue.push_back(number);
        self.values.insert(number, (value, false));
    }

    /// Forgets the values with these numbers.
    pub(crate) fn remove_range(&mut self, numbers: std::ops::Range<u64>) {
        // Seldom is one of them there.
        if numbers.clone().any(|number| self.values.contains_key(&number)) {
            self.retain(|number| !numbers.contains(&number));
        }
    }

    /// Forgets the values for which `keep` says no.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) {
        self.values.retain(|&number, _| keep(number));
        self.queue.retain(|number| self.values.contains_key(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_unless_it_was_used() {
        let mut cache = Cache::new(3);
        (1..=3).for_each(|number| cache.insert(number, number * 10));
        assert_eq!(cache.get(1), Some(10));
        cache.insert(4, 40);
        assert!(cache.values.contains_key(&1) && !cache.values.contains_key(&2));
        cache.insert(5, 50);
        cache.insert(6, 60);
        assert!(!cache.values.contains_key(&1), "spared once only");
        cache.insert(6, 61);
        assert_eq!((cache.get(6), cache.get(3)), (Some(61), None));
        cache.retain(|number| number != 6);
        assert_eq!((cache.get(6), cache.get(5)), (None, Some(50)));
        assert_eq!((cache.values.len(), cache.queue.len()), (2, 2));
        cache.remove_range(5..9);
        assert_eq!((cache.get(5), cache.values.len(), cache.queue.len()), (None, 1, 1));
    }
}
