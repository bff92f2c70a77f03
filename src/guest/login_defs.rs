//! The guest's rules for new users and groups: `login.defs` and `/etc/default/useradd`, as the tools
//! of shadow read them.

use std::ops::RangeInclusive;

use snf_fs::Result;

use super::{Guest, distro, glob};

/// The defaults of useradd, apart from the rules.
const USERADD: &str = "/etc/default/useradd";
/// The rules; a distribution with a read-only `/usr` keeps its own below it.
const LOGIN_DEFS: [&str; 2] = ["/etc/login.defs", "/usr/etc/login.defs"];
/// Rules that come after.
const MORE: &[u8] = b"/etc/login.defs.d/*.defs";

/// Numbers of users and groups.
pub type Range = RangeInclusive<u32>;

/// Ranges of subordinate numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubRange {
    /// From where to where they lie.
    pub range: Range,
    /// How many a user gets; none when it is 0.
    pub count: u32,
}

/// The rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Numbers of ordinary users.
    pub uids: Range,
    /// Numbers of system users.
    pub system_uids: Range,
    /// Numbers of ordinary groups.
    pub gids: Range,
    /// Numbers of system groups.
    pub system_gids: Range,
    /// Subordinate numbers of users.
    pub sub_uids: SubRange,
    /// Subordinate numbers of groups.
    pub sub_gids: SubRange,
    /// Whether a user gets a group of the same name.
    pub own_group: bool,
    /// The group of users who get none of their own.
    pub group: String,
    /// The login shell, if the rules name one.
    pub shell: Option<String>,
    /// The directory of the home directories.
    pub home: String,
    /// The directory whose content a new home gets.
    pub skeleton: String,
    /// Permission bits of a new home.
    pub home_mode: u16,
    /// The ageing fields of `shadow`: days between changes, until the next one, of warning, of grace, and
    /// the day of expiry.
    pub ageing: [String; 5],
    /// The directory of the mail boxes, where new users get one.
    pub mail: Option<String>,
}

impl Rules {
    /// The rules of a guest.
    ///
    /// # Errors
    /// Errors of the tree.
    pub fn of(guest: &Guest) -> Result<Self> {
        let mut defs = None;
        for path in LOGIN_DEFS {
            if defs.is_none() {
                defs = guest.config(path)?;
            }
        }
        if defs.is_some() {
            for path in glob::expand(&guest.tree, MORE)? {
                let text = guest.tree.read_optional(&path, super::CONFIG_MAX)?.unwrap_or_default();
                defs.get_or_insert_default().extend([b"\n".as_slice(), &text].concat());
            }
        }
        let useradd = guest.config(USERADD)?.unwrap_or_default();
        let defs = defs.map(|text| String::from_utf8_lossy(&text).into_owned());
        Ok(Self::parse(defs.as_deref(), &String::from_utf8_lossy(&useradd)))
    }

    /// The rules of these texts.
    fn parse(defs: Option<&str>, useradd: &str) -> Self {
        let text = defs.unwrap_or_default();
        let get = |key: &str| value(text, key);
        let number = |key: &str, default: u32| get(key).and_then(integer).unwrap_or(default);
        let range = |kind: &str, sub: bool| {
            let (min, max) = if sub { (100_000, 600_100_000) } else { (1000, 60_000) };
            number(&format!("{kind}_MIN"), min)..=number(&format!("{kind}_MAX"), max)
        };
        let below = |kind: &str, ordinary: &Range| {
            let max = ordinary.start().saturating_sub(1);
            number(&format!("SYS_{kind}_MIN"), 101)..=number(&format!("SYS_{kind}_MAX"), max)
        };
        let sub = |kind: &str| SubRange {
            range: range(&format!("SUB_{kind}"), true),
            count: number(&format!("SUB_{kind}_COUNT"), 65_536),
        };
        let (uids, gids) = (range("UID", false), range("GID", false));
        let umask = number("UMASK", 0o22);
        let home_mode = number("HOME_MODE", 0o777 & !umask) & 0o7777;
        // Without rules (BusyBox) there are those of its adduser.
        let days = |key: &str, default: &str| match defs {
            None => default.to_owned(),
            Some(_) => days(get(key)),
        };
        let own = |key: &str| distro::value(useradd, key).filter(|value| !value.is_empty());
        let mail = own("CREATE_MAIL_SPOOL").is_some_and(|value| value.eq_ignore_ascii_case("yes"));
        Self {
            system_uids: below("UID", &uids),
            system_gids: below("GID", &gids),
            uids,
            gids,
            sub_uids: sub("UID"),
            sub_gids: sub("GID"),
            own_group: defs.is_none()
                || get("USERGROUPS_ENAB").is_some_and(|value| value.eq_ignore_ascii_case("yes")),
            group: own("GROUP").unwrap_or_else(|| "100".into()),
            shell: own("SHELL"),
            home: own("HOME").unwrap_or_else(|| "/home".into()),
            skeleton: own("SKEL").unwrap_or_else(|| "/etc/skel".into()),
            home_mode: u16::try_from(home_mode).unwrap_or(0o755),
            ageing: [
                days("PASS_MIN_DAYS", "0"),
                days("PASS_MAX_DAYS", "99999"),
                days("PASS_WARN_AGE", "7"),
                self::days(own("INACTIVE")),
                String::new(),
            ],
            mail: mail.then(|| get("MAIL_DIR").unwrap_or("/var/mail").to_owned()),
        }
    }
}

/// The last value of a key: `KEY  value`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().rev().find_map(|line| {
        let rest = line.trim_start().strip_prefix(key)?;
        if !rest.starts_with([' ', '\t', '"']) {
            return None;
        }
        Some(rest.trim().trim_matches('"').split_whitespace().next().unwrap_or_default())
    })
}

/// A number as C writes them: octal after a zero.
fn integer(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(text, 8).ok(),
        None => text.parse().ok(),
    }
}

/// A number of days; nothing where there is none, or a negative one.
fn days(text: Option<impl AsRef<str>>) -> String {
    let number = text.and_then(|text| integer(text.as_ref()));
    number.map(|number| number.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_distributions() {
        let debian = "# c\nUMASK\t\t022\nUID_MIN  1000\nUID_MAX 60000\n#SYS_UID_MIN 100\n\
            USERGROUPS_ENAB yes\nPASS_MAX_DAYS\t99999\nPASS_MIN_DAYS\t0\nPASS_WARN_AGE\t7\n\
            MAIL_DIR /var/mail\n#HOME_MODE 0700\n";
        let rules = Rules::parse(Some(debian), "SHELL=/bin/sh\n# GROUP=9\n");
        assert_eq!((rules.uids, rules.system_uids), (1000..=60_000, 101..=999));
        assert_eq!(rules.home_mode, 0o755);
        assert_eq!(rules.ageing.join(":"), "0:99999:7::");
        assert!(rules.own_group && rules.mail.is_none());
        assert_eq!(rules.shell.as_deref(), Some("/bin/sh"));
        let red_hat = "UID_MIN 1000\nSYS_UID_MIN 201\nSYS_UID_MAX 999\nHOME_MODE\t0700\nUMASK 022\n\
            MAIL_DIR\t/var/spool/mail\nSUB_UID_MIN 524288\n";
        let useradd = "GROUP=100\nHOME=/home\nINACTIVE=-1\nCREATE_MAIL_SPOOL=yes\nSKEL=/etc/skel\n";
        let rules = Rules::parse(Some(red_hat), useradd);
        assert_eq!(rules.home_mode, 0o700);
        assert_eq!(rules.system_uids, 201..=999);
        assert_eq!(*rules.sub_uids.range.start(), 524_288);
        assert_eq!(rules.mail.as_deref(), Some("/var/spool/mail"));
        assert_eq!(rules.ageing.join(":"), "::::");
        assert!(!rules.own_group);
        let busybox = Rules::parse(None, "");
        assert!(busybox.own_group);
        assert_eq!(busybox.ageing.join(":"), "0:99999:7::");
    }

    #[test]
    fn numbers() {
        for (text, expected) in
            [("022", Some(18)), ("0x10", Some(16)), ("7", Some(7)), ("-1", None), ("0", Some(0))]
        {
            assert_eq!(integer(text), expected, "{text}");
        }
        assert_eq!(value("UMASKX 1\nUMASK \"027\"\n", "UMASK"), Some("027"));
    }
}
