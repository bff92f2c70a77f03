//! Edits of one list that undo each other, of which one would be ignored.

use super::Edit;

/// Kinds whose last edit leaves nothing of those before it.
const ONCE: [&str; 4] = ["timezone", "locale", "keymap", "default-target"];
/// Kinds that make something, which can be made once.
const MAKE: [&str; 2] = ["add-user", "add-group"];
/// Kinds that contradict each other for one subject.
const OPPOSITE: [(&str, &str); 4] =
    [("enable", "disable"), ("enable", "mask"), ("mask", "unmask"), ("lock-user", "unlock-user")];

/// The first two edits of a list that cannot both be meant, as a sentence.
pub fn clash(edits: &[Edit]) -> Option<String> {
    let opposite = |kind: &str| OPPOSITE.iter().any(|(a, b)| *a == kind || *b == kind);
    let mut seen: Vec<(&Edit, &'static str, String)> = Vec::new();
    for edit in edits {
        let (kind, subject) = (edit.action.name(), edit.action.subject());
        if !ONCE.contains(&kind) && !MAKE.contains(&kind) && !opposite(kind) {
            continue;
        }
        for (before, other, of) in &seen {
            let same = subject == *of;
            if kind == *other && same && (MAKE.contains(&kind) || ONCE.contains(&kind)) {
                return Some(format!("{} is given twice", edit.origin));
            }
            let two = format!("{} and {}", before.origin, edit.origin);
            if kind == *other && ONCE.contains(&kind) {
                return Some(format!("{two} set the same thing; leave one of them out"));
            }
            let pair =
                |(a, b): &(&str, &str)| (*a == kind && b == other) || (*b == kind && a == other);
            if same && OPPOSITE.iter().any(pair) {
                return Some(format!("{two} contradict each other; leave one of them out"));
            }
        }
        seen.push((edit, kind, subject));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::testing::parse;
    use super::*;

    fn of(edits: &[(&str, &str)]) -> Option<String> {
        let edits: Vec<Edit> = edits
            .iter()
            .map(|(verb, text)| Edit::of_option(verb, parse(verb, text).unwrap()))
            .collect();
        clash(&edits)
    }

    #[test]
    fn two_of_a_kind() {
        for (edits, expected) in [
            (
                [("timezone", "Asia/Tokyo"), ("timezone", "UTC")],
                "--timezone Asia/Tokyo and --timezone UTC set the same thing; leave one of them out",
            ),
            ([("locale", "C"), ("locale", "C")], "--locale C is given twice"),
            ([("add-user", "web"), ("add-user", "web")], "--add-user web is given twice"),
            (
                [("enable", "ssh.service"), ("disable", "ssh")],
                "--enable ssh.service and --disable ssh.service contradict each other; leave one of \
                 them out",
            ),
            (
                [("unlock-user", "ann"), ("lock-user", "ann")],
                "--unlock-user ann and --lock-user ann contradict each other; leave one of them out",
            ),
        ] {
            assert_eq!(of(&edits).as_deref(), Some(expected));
        }
        for edits in [
            [("enable", "ssh"), ("enable", "ssh")],
            [("enable", "ssh"), ("disable", "cron")],
            [("disable", "ssh"), ("mask", "ssh")],
            [("unmask", "ssh"), ("enable", "ssh")],
            [("add-user", "web"), ("add-group", "web")],
            [("mkdir", "/a"), ("mkdir", "/a")],
        ] {
            assert_eq!(of(&edits), None, "{edits:?}");
        }
    }
}
