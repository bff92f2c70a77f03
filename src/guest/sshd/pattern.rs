//! Patterns of sshd: `*` and `?`, lists with commas and `!`, `USER@HOST`.

/// Whether something holds for a connection of which only the user is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Yes,
    No,
    /// The address decides, or something else that only the running guest knows.
    Open,
}

impl Truth {
    pub(super) fn of(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }

    /// Both.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Open, _) | (_, Self::Open) => Self::Open,
            _ => Self::Yes,
        }
    }

    /// A yes or no; `open` takes the place of what is open.
    pub(super) fn settle(self, open: bool) -> bool {
        match self {
            Self::Yes => true,
            Self::No => false,
            Self::Open => open,
        }
    }
}

/// Whether `name` matches one pattern with `*` and `?`.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // On a mismatch the last star takes one byte more: no recursion, at most quadratic.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    p = *at + 1;
                    n = *taken;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The answer of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InList {
    Yes,
    No,
    /// A pattern with `!` matches, which is stronger than all others.
    Excluded,
}

/// Whether `name` is in a list of patterns with commas between them.
pub(super) fn in_list(list: &[u8], name: &[u8]) -> InList {
    let mut found = InList::No;
    for pattern in list.split(|byte| *byte == b',') {
        match pattern.strip_prefix(b"!") {
            Some(pattern) if matches(pattern, name) => return InList::Excluded,
            None if matches(pattern, name) => found = InList::Yes,
            _ => {}
        }
    }
    found
}

/// Whether one of a user's groups is in a list; an excluded group is stronger than the others.
pub(super) fn groups_in_list(list: &[u8], groups: &[Vec<u8>]) -> bool {
    let mut found = false;
    for group in groups {
        match in_list(list, group) {
            InList::Excluded => return false,
            InList::Yes => found = true,
            InList::No => {}
        }
    }
    found
}

/// Whether a pattern of `AllowUsers` or `DenyUsers` is this user's. With `@HOST` the address
/// decides, too.
pub(super) fn user(pattern: &[u8], name: &[u8]) -> Truth {
    match pattern.iter().position(|byte| *byte == b'@') {
        Some(at) if !matches(&pattern[..at], name) => Truth::No,
        Some(at) if &pattern[at..] == b"@*" => Truth::Yes,
        Some(_) => Truth::Open,
        None => Truth::of(matches(pattern, name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("a*", "ann", true),
            ("?nn", "ann", true),
            ("*", "", true),
            ("a", "ann", false),
            ("a*b*c", "abcbc", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern}");
        }
        assert!(!matches("a*".repeat(50).as_bytes(), &[b'b'; 200]));
        assert_eq!(in_list(b"a*,!ann", b"ann"), InList::Excluded);
        assert_eq!(in_list(b"!bob,a*", b"ann"), InList::Yes);
        assert_eq!(in_list(b"!bob", b"ann"), InList::No);
        let groups = [b"ann".to_vec(), b"sudo".to_vec()];
        assert!(groups_in_list(b"sudo", &groups) && !groups_in_list(b"sudo,!ann", &groups));
        assert_eq!(user(b"ann@10.*", b"ann"), Truth::Open);
        assert_eq!(user(b"bob@10.*", b"ann"), Truth::No);
        assert_eq!(user(b"a*@*", b"ann"), Truth::Yes);
    }
}
