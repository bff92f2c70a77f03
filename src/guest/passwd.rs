//! `passwd`, `group` and `shadow`: one field of one line changes, everything else stays byte for
//! byte, whatever it holds.

use snf_fs::error::display_name;

/// A line of `passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: Vec<u8>,
    /// The password field: `x` when the hash is in `shadow`.
    pub password: Vec<u8>,
    /// User number.
    pub uid: u32,
    /// Number of the user's group.
    pub gid: u32,
    /// Home directory.
    pub home: Vec<u8>,
    /// Login shell.
    pub shell: Vec<u8>,
}

/// Why a line could not be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditError {
    /// No line has that name.
    NoSuchUser,
    /// The line has no second field.
    Malformed,
    /// The new value would break the file's lines or fields.
    BadValue,
}

/// The lines without their ends.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split(|byte| *byte == b'\n')
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// The users that `passwd` lists. Lines that are no user (comments, NIS markers, broken ones) are
/// passed over, as the C library does.
pub fn users(content: &[u8]) -> impl Iterator<Item = User> {
    lines(content).filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let [name, password, uid, gid, _, home, shell] = fields.as_slice() else { return None };
        if name.is_empty() || matches!(name.first(), Some(b'+' | b'-' | b'#')) {
            return None;
        }
        Some(User {
            name: name.to_vec(),
            password: password.to_vec(),
            uid: number(uid)?,
            gid: number(gid)?,
            home: home.to_vec(),
            shell: shell.to_vec(),
        })
    })
}

/// The first user of exactly that name.
pub fn find_user(content: &[u8], name: &[u8]) -> Option<User> {
    users(content).find(|user| user.name == name)
}

/// The name and number of each group that `group` lists.
pub fn groups(content: &[u8]) -> impl Iterator<Item = (&[u8], u32)> {
    lines(content).filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with(b"+"))?;
        Some((name, number(fields.nth(1)?)?))
    })
}

/// The number of the first group of exactly that name.
pub fn find_group(content: &[u8], name: &[u8]) -> Option<u32> {
    lines(content).find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        if fields.next() != Some(name) {
            return None;
        }
        number(fields.nth(1)?)
    })
}

/// The names of all groups that a user is in: the one of number `gid`, and those that list the name.
pub fn groups_of(content: &[u8], name: &[u8], gid: u32) -> Vec<Vec<u8>> {
    let mut own = true;
    let groups = lines(content).filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let [group, _, this, members, ..] = fields.as_slice() else { return None };
        // Of several groups with one number the first gives the name.
        let is_own = own && number(this) == Some(gid);
        own &= !is_own;
        let lists = members.split(|byte| *byte == b',').any(|member| member.trim_ascii() == name);
        (is_own || lists).then(|| group.to_vec())
    });
    groups.collect()
}

/// The names of at most `limit` users, for a message.
pub fn list_users(content: &[u8], limit: usize) -> String {
    let names: Vec<String> =
        users(content).take(limit + 1).map(|user| display_name(&user.name)).collect();
    match names.len() {
        0 => "nobody".into(),
        n if n > limit => format!("{} and others", names[..limit].join(", ")),
        _ => names.join(", "),
    }
}

/// The password field of the first line of exactly that name, in `passwd` or `shadow`.
pub fn password_of<'a>(content: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    field_of(content, name, 1)
}

/// The day after 1970 on which the account of that name expires, from `shadow`.
pub fn expiry_of(content: &[u8], name: &[u8]) -> Option<i64> {
    std::str::from_utf8(field_of(content, name, 7)?).ok()?.parse().ok().filter(|day| *day >= 0)
}

fn field_of<'a>(content: &'a [u8], name: &[u8], index: usize) -> Option<&'a [u8]> {
    lines(content).find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        if fields.next() == Some(name) { fields.nth(index - 1) } else { None }
    })
}

/// `shadow` with a line for a user who has none: after the last user, before what NIS adds.
pub fn add_shadow(
    content: &[u8],
    name: &[u8],
    hash: &[u8],
    days: i64,
) -> Result<Vec<u8>, EditError> {
    let bad = |byte: &u8| matches!(byte, b':' | b'\n' | b'\r' | 0);
    if name.is_empty() || name.iter().chain(hash).any(bad) {
        return Err(EditError::BadValue);
    }
    let line = [name, b":", hash, format!(":{days}:0:99999:7:::").as_bytes()].concat();
    Ok(super::enroll::with_line(content, &line))
}

/// `shadow` with another hash for one user, changed `days` after 1970. The line keeps its place
/// and its other fields.
pub fn set_shadow(
    content: &[u8],
    name: &[u8],
    hash: &[u8],
    days: i64,
) -> Result<Vec<u8>, EditError> {
    let days = days.to_string();
    edit_line(content, name, |fields| {
        set(fields, 1, hash)?;
        if fields.len() == 2 {
            fields.push(days.as_bytes().to_vec());
            return Ok(());
        }
        set(fields, 2, days.as_bytes())
    })
}

/// `passwd` with another password field for one user.
pub fn set_passwd(content: &[u8], name: &[u8], password: &[u8]) -> Result<Vec<u8>, EditError> {
    edit_line(content, name, |fields| set(fields, 1, password))
}

fn set(fields: &mut [Vec<u8>], index: usize, value: &[u8]) -> Result<(), EditError> {
    if value.iter().any(|byte| matches!(byte, b':' | b'\n' | b'\r' | 0)) {
        return Err(EditError::BadValue);
    }
    *fields.get_mut(index).ok_or(EditError::Malformed)? = value.to_vec();
    Ok(())
}

/// A change of the password field that keeps the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// `!` before the hash: no password fits. As `passwd -l`.
    Lock,
    /// Without it. As `passwd -u`.
    Unlock,
    /// The day of the last change is 0: a new password is asked for at the next login. As `passwd -e`.
    Expire,
}

/// `shadow` with one user locked, unlocked or expired.
///
/// # Errors
/// [`EditError::BadValue`] for an unlocking that would leave no password.
pub fn lock_shadow(content: &[u8], name: &[u8], lock: Lock) -> Result<Vec<u8>, EditError> {
    edit_line(content, name, |fields| {
        let hash = fields.get(1).ok_or(EditError::Malformed)?.clone();
        match lock {
            Lock::Lock if hash.starts_with(b"!") => Ok(()),
            Lock::Lock => set(fields, 1, &[b"!".as_slice(), &hash].concat()),
            Lock::Unlock => match hash.strip_prefix(b"!") {
                None if hash.is_empty() || hash == b"*" => Err(EditError::BadValue),
                None => Ok(()),
                Some(rest) => {
                    let rest = rest.strip_prefix(b"!").unwrap_or(rest);
                    if rest.is_empty() || rest == b"*" {
                        return Err(EditError::BadValue);
                    }
                    let rest = rest.to_vec();
                    set(fields, 1, &rest)
                }
            },
            Lock::Expire => set(fields, 2, b"0"),
        }
    })
}

/// Runs `edit` on the fields of the first line that is `name`'s.
pub(super) fn edit_line(
    content: &[u8],
    name: &[u8],
    edit: impl FnOnce(&mut Vec<Vec<u8>>) -> Result<(), EditError>,
) -> Result<Vec<u8>, EditError> {
    if name.is_empty() {
        return Err(EditError::NoSuchUser);
    }
    let mut start = 0;
    for line in lines(content) {
        let end = start + line.len();
        if line.split(|byte| *byte == b':').next() == Some(name) {
            let mut fields: Vec<Vec<u8>> =
                line.split(|byte| *byte == b':').map(<[u8]>::to_vec).collect();
            edit(&mut fields)?;
            let mut out = Vec::with_capacity(content.len() + 128);
            out.extend_from_slice(&content[..start]);
            out.extend_from_slice(&fields.join(&b':'));
            out.extend_from_slice(&content[end..]);
            return Ok(out);
        }
        start = end + 1;
    }
    Err(EditError::NoSuchUser)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\n# note\n+nis\nbad line\n\
        ro.t:x:5:6:\xff\xfe:/home/ro.t:/bin/sh\nroot:x:9:9::/:/bin/false";

    #[test]
    fn exact_names_only() {
        assert_eq!(find_user(PASSWD, b"root").unwrap().home, b"/root");
        assert_eq!(find_user(PASSWD, b"ro.t").unwrap().gid, 6);
        assert_eq!(find_user(PASSWD, b"roo"), None);
        assert_eq!(find_user(PASSWD, b"r..t"), None);
        assert_eq!(list_users(PASSWD, 10), "root, ro.t, root");
        assert_eq!(list_users(PASSWD, 1), "root and others");
        assert_eq!(find_group(b"staff:x:50:\nstaffer:x:51:a,b\n", b"staffer"), Some(51));
        assert_eq!(find_group(b"staff\nbad:x:abc:\n", b"bad"), None);
    }

    #[test]
    fn one_field_changes_and_nothing_else() {
        let long = "x".repeat(5000);
        let before = format!(
            "daemon:*:19000:0:99999:7:::\nroot:$6$old:19000:0:99999:7:5:20000:\n\
             rooter:!:1::::::\n{long}:*:1\r\n\nroot:second:1:::::"
        );
        let mut bytes = before.clone().into_bytes();
        bytes.extend_from_slice(b"\n\xff\xfe:broken");
        let after = set_shadow(&bytes, b"root", b"$y$new", 20000).unwrap();
        let expected = before.replacen("root:$6$old:19000:", "root:$y$new:20000:", 1);
        let mut expected = expected.into_bytes();
        expected.extend_from_slice(b"\n\xff\xfe:broken");
        assert_eq!(after, expected);
        assert_eq!(password_of(&after, b"root"), Some(&b"$y$new"[..]));
    }

    #[test]
    fn odd_lines() {
        assert_eq!(set_shadow(b"a:b\n", b"a", b"h", 7).unwrap(), b"a:h:7\n");
        assert_eq!(set_shadow(b"a\n", b"a", b"h", 7), Err(EditError::Malformed));
        assert_eq!(set_shadow(b"b:x:1\n", b"a", b"h", 7), Err(EditError::NoSuchUser));
        assert_eq!(set_shadow(b"\n:x:\n", b"", b"h", 7), Err(EditError::NoSuchUser));
        assert_eq!(set_shadow(b"a:b:c", b"a", b"h\nroot::0", 7), Err(EditError::BadValue));
        assert_eq!(
            add_shadow(b"r:x:1::::::\n+::::::::\n", b"a", b"h", 7).unwrap(),
            b"r:x:1::::::\na:h:7:0:99999:7:::\n+::::::::\n"
        );
        assert_eq!(add_shadow(b"r:x", b"a", b"h", 7).unwrap(), b"r:x\na:h:7:0:99999:7:::\n");
        assert_eq!(add_shadow(b"", b"a", b"h:", 7), Err(EditError::BadValue));
        assert_eq!(expiry_of(b"a:h:1:0:9:7::19000:\nb:h:1:0:9:7:::\n", b"a"), Some(19000));
        assert_eq!(expiry_of(b"a:h:1:0:9:7::19000:\nb:h:1:0:9:7:::\n", b"b"), None);
        let groups = b"ann:x:5:\nadm:x:4:bob,ann\nbob:x:6:anna\nfive:x:5:\n";
        assert_eq!(groups_of(groups, b"ann", 5), [b"ann".to_vec(), b"adm".to_vec()]);
        assert_eq!(set_passwd(b"a:old:1:1::/:/bin/sh", b"a", b"x").unwrap(), b"a:x:1:1::/:/bin/sh");
    }
}
