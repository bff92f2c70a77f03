//! New users and groups: free numbers, and lines of `passwd`, `group`, their shadows and `subuid`.

use std::collections::BTreeSet;

use super::login_defs::{Range, SubRange};
use super::passwd::{self, EditError};

/// The first free number: ordinary ones count up from the highest that is used, those of the system
/// down from the lowest, as useradd counts. Numbers of gaps come last.
pub fn free_number(used: &BTreeSet<u32>, range: &Range, system: bool) -> Option<u32> {
    let (min, max) = (*range.start(), *range.end());
    if min > max {
        return None;
    }
    let free = |number: &u32| !used.contains(number);
    let mut inside = used.range(range.clone());
    if system {
        let start = inside.next().map_or(max, |lowest| lowest.saturating_sub(1));
        let start = if start < min { max } else { start };
        return (min..=start).rev().find(free).or_else(|| (start..=max).rev().find(free));
    }
    let start = inside.next_back().map_or(min, |highest| highest.saturating_add(1));
    let start = if start > max { min } else { start };
    (start..=max).find(free).or_else(|| (min..=start).find(free))
}

/// `subuid` or `subgid` with a range for one more user: the first gap that is large enough. `None`
/// where the user has one, or there is no room.
pub fn add_sub_range(content: &[u8], name: &str, rules: &SubRange) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(content);
    let mut taken = Vec::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let (Some(owner), Some(start), Some(count)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if owner == name {
            return None;
        }
        if let (Ok(start), Ok(count)) = (start.parse::<u64>(), count.trim().parse::<u64>()) {
            taken.push((start, count));
        }
    }
    taken.sort_unstable();
    let (mut low, max) = (u64::from(*rules.range.start()), u64::from(*rules.range.end()));
    let wanted = u64::from(rules.count);
    for (start, count) in taken {
        if start >= low.saturating_add(wanted) {
            break;
        }
        low = low.max(start.saturating_add(count));
    }
    if wanted == 0 || low.saturating_add(wanted) > max.saturating_add(1) {
        return None;
    }
    Some(with_line(content, format!("{name}:{low}:{wanted}").as_bytes()))
}

/// A file with one more line: after the last entry, before what NIS adds.
pub fn with_line(content: &[u8], line: &[u8]) -> Vec<u8> {
    let all: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
    let at = all.iter().position(|line| line.starts_with(b"+")).unwrap_or(all.len());
    let mut out = all[..at].concat();
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.push(b'\n');
    }
    out.extend_from_slice(line);
    out.push(b'\n');
    out.extend_from_slice(&all[at..].concat());
    out
}

/// `group` or `gshadow` with one more member of a group.
///
/// # Errors
/// [`EditError::NoSuchUser`] where there is no such group.
pub fn add_member(content: &[u8], group: &str, user: &str) -> Result<Vec<u8>, EditError> {
    passwd::edit_line(content, group.as_bytes(), |fields| {
        let members = fields.get_mut(3).ok_or(EditError::Malformed)?;
        if members.split(|byte| *byte == b',').any(|member| member == user.as_bytes()) {
            return Ok(());
        }
        if !members.is_empty() {
            members.push(b',');
        }
        members.extend_from_slice(user.as_bytes());
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_chosen_as_useradd_does() {
        let used = BTreeSet::from([0, 100, 101, 999, 1000, 1005, 65_534]);
        assert_eq!(free_number(&used, &(1000..=60_000), false), Some(1006));
        assert_eq!(free_number(&used, &(101..=999), true), Some(998));
        assert_eq!(free_number(&used, &(201..=999), true), Some(998));
        let used = BTreeSet::from([999, 998, 500]);
        assert_eq!(free_number(&used, &(201..=999), true), Some(499));
        let used = BTreeSet::from([1000, 1002]);
        assert_eq!(free_number(&used, &(1000..=1002), false), Some(1001));
        assert_eq!(free_number(&BTreeSet::from([5]), &(5..=5), true), None);
        #[allow(clippy::reversed_empty_ranges)]
        let empty = 9..=5;
        assert_eq!(free_number(&BTreeSet::new(), &empty, false), None);
    }

    #[test]
    fn subordinate_ranges_fill_gaps() {
        let rules = SubRange { range: 100_000..=600_100_000, count: 65_536 };
        let add = |text: &str| {
            add_sub_range(text.as_bytes(), "ann", &rules).map(|out| String::from_utf8(out).unwrap())
        };
        assert_eq!(add("").unwrap(), "ann:100000:65536\n");
        assert_eq!(add("bob:100000:65536").unwrap(), "bob:100000:65536\nann:165536:65536\n");
        assert!(
            add("bob:231072:65536\ncat:100000:65536\n").unwrap().ends_with("ann:165536:65536\n")
        );
        assert_eq!(add("ann:1:1\n"), None);
        assert_eq!(add("bob:100000:600000001\n"), None);
        assert!(add("bob:18446744073709551615:9\nx\n").is_some());
    }

    #[test]
    fn lines_and_members() {
        assert_eq!(with_line(b"a\n+::\n", b"b"), b"a\nb\n+::\n");
        assert_eq!(with_line(b"a", b"b"), b"a\nb\n");
        let group = b"adm:x:4:\nsudo:x:27:bob\n";
        assert_eq!(add_member(group, "adm", "ann").unwrap(), b"adm:x:4:ann\nsudo:x:27:bob\n");
        assert_eq!(add_member(group, "sudo", "ann").unwrap(), b"adm:x:4:\nsudo:x:27:bob,ann\n");
        assert_eq!(add_member(group, "sudo", "bob").unwrap(), group);
        assert_eq!(add_member(group, "none", "bob"), Err(EditError::NoSuchUser));
    }
}
