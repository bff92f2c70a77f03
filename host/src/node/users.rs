//! The node's users, as its passwd file has them.

use std::fs;
use std::io;

/// The user that the package makes for QEMU.
pub const PACKAGE_USER: &str = "snf-image";
/// The user where there is no such one. Others on the node may run as this one, too.
pub const SHARED_USER: &str = "nobody";

const PASSWD: &str = "/etc/passwd";

/// Whom QEMU runs as when nothing is configured.
pub fn default_user() -> &'static str {
    match find(PACKAGE_USER) {
        Ok(Some(_)) => PACKAGE_USER,
        _ => SHARED_USER,
    }
}

/// The numbers of a user and its group, by name or number.
///
/// # Errors
/// The passwd file cannot be read.
pub(crate) fn find(user: &str) -> io::Result<Option<(u32, u32)>> {
    Ok(find_in(&fs::read_to_string(PASSWD)?, user))
}

fn find_in(passwd: &str, user: &str) -> Option<(u32, u32)> {
    let number = |text: &str| text.parse().ok().filter(|&n: &u32| n != u32::MAX);
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?;
        if name != user && uid != user {
            return None;
        }
        Some((number(uid)?, number(fields.next()?)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_exact_name_or_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nnobody2:x:7:8::/:\nbad\nnobody:x:65534:65533:n:/:\n";
        assert_eq!(find_in(passwd, "nobody"), Some((65534, 65533)));
        assert_eq!(find_in(passwd, "65534"), Some((65534, 65533)));
        assert_eq!(find_in(passwd, "nobod"), None);
        assert_eq!(find_in(passwd, "bad"), None);
    }
}
