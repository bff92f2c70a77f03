//! The guest's `sshd_config`, evaluated as sshd does: `Include`, the first value of a keyword, and
//! `Match` for one user. It gives where the keys of a user lie and what keeps the user out.
//!
//! sshd reads its configuration twice. The first pass takes what stands outside of `Match` or
//! under `Match all`. The second is for a connection: it takes what stands under the conditions
//! that hold, and these values are stronger. See sshd_config(5).

mod keys_file;
mod login;
mod pattern;
mod settings;
mod words;

use snf_fs::error::display_name;
use snf_fs::{Result, Tree};

use self::pattern::{InList, Truth};
use self::settings::LineProblem;
use super::glob;
use crate::limits::{CONFIG_BYTES, HOST_KEYS, SSHD_FILES, SSHD_LEVELS};

pub use self::keys_file::PatternError;
pub use self::login::{Finding, Login, Obstacle, Reach, unsafe_place};
pub use self::settings::{RootLogin, Settings};

/// The configuration; SUSE has its own in the second place, for guests without the first.
const PLACES: [&str; 2] = ["/etc/ssh/sshd_config", "/usr/etc/ssh/sshd_config"];

/// A configuration that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshdConfig {
    /// Whether there is an `sshd_config` at all.
    pub present: bool,
    /// `HostKey`: all of them.
    pub host_keys: Vec<Vec<u8>>,
    /// `HostCertificate`: all of them.
    pub host_certificates: Vec<Vec<u8>>,
    /// The first line that keeps sshd from starting, in words.
    pub broken: Option<String>,
    items: Vec<Item>,
}

/// The user of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// Login name.
    pub name: Vec<u8>,
    /// The names of all groups that the user is in.
    pub groups: Vec<Vec<u8>>,
}

/// A line, or the lines that it takes in.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Set { keyword: String, values: Vec<Vec<u8>>, place: Place },
    Match(Vec<Condition>),
    Include(Vec<Item>),
}

/// A condition of `Match`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    All,
    User(Vec<u8>),
    Group(Vec<u8>),
    /// The address, the host, the port: what only the running guest knows.
    Other,
}

/// The place of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    path: Vec<u8>,
    line: usize,
}

impl Place {
    fn problem(&self, problem: LineProblem) -> String {
        format!("line {} of {} {problem}", self.line, display_name(&self.path))
    }
}

impl SshdConfig {
    /// Reads the guest's configuration; a guest without one gives the defaults.
    ///
    /// # Errors
    /// When a file cannot be read, or there are more files, bytes or host keys than allowed.
    pub fn read(tree: &Tree) -> Result<Self> {
        let mut reader = Reader { tree, broken: None, files: 0, left: CONFIG_BYTES };
        let mut config = Self::default();
        for place in PLACES {
            if tree.is_file(place)? {
                config.present = true;
                config.items = reader.file(place.as_bytes(), 0)?;
                break;
            }
        }
        let (global, problem) = config.global();
        if global.host_keys.len() > HOST_KEYS {
            return Err(snf_fs::Error::Invalid(format!(
                "sshd_config names more than {HOST_KEYS} host keys"
            )));
        }
        config.broken = reader.broken.or(problem).or_else(|| {
            let user = global.authorized_keys_command_user.is_some();
            if global.authorized_keys_command().is_some() && !user {
                return Some(
                    "AuthorizedKeysCommand is set without AuthorizedKeysCommandUser".into(),
                );
            }
            let off = !global.methods_are_on();
            off.then(|| "AuthenticationMethods asks for methods that are switched off".to_owned())
        });
        config.host_keys = global.host_keys;
        config.host_certificates = global.host_certificates;
        Ok(config)
    }

    /// The settings for every connection, and the first line that may not stand where it does.
    fn global(&self) -> (Settings, Option<String>) {
        let mut pass =
            Pass { who: None, open: false, settings: Settings::default(), problem: None };
        pass.walk(&self.items, &mut true, Inclusion::Plain);
        (pass.settings, pass.problem)
    }

    /// The settings for a user. `open` decides what only the running guest knows: whether the
    /// conditions hold that ask for an address, a host or a port.
    pub fn settings(&self, who: &Who, open: bool) -> Settings {
        let (global, _) = self.global();
        let mut pass = Pass { who: Some(who), open, settings: Settings::default(), problem: None };
        pass.walk(&self.items, &mut false, Inclusion::OnlyMatch);
        global.overridden_by(pass.settings)
    }
}

/// How the lines of a file that was taken in count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inclusion {
    /// Like all others.
    Plain,
    /// In the second pass, before the first `Match`.
    OnlyMatch,
    /// Under a `Match` that does not hold.
    Never,
}

/// One pass through the configuration.
struct Pass<'a> {
    who: Option<&'a Who>,
    open: bool,
    settings: Settings,
    problem: Option<String>,
}

impl Pass<'_> {
    fn walk(&mut self, items: &[Item], active: &mut bool, mut inclusion: Inclusion) {
        for item in items {
            match item {
                Item::Set { keyword, values, .. } if *active => {
                    // The reader has checked the values.
                    let _ = self.settings.set(keyword, values);
                }
                Item::Set { keyword, place, .. } => {
                    let wrong = self.who.is_none() && settings::is_global(keyword);
                    if wrong && self.problem.is_none() {
                        self.problem = Some(place.problem(LineProblem::UnderMatch));
                    }
                }
                Item::Match(conditions) => {
                    *active = inclusion != Inclusion::Never && self.holds(conditions);
                    if inclusion == Inclusion::OnlyMatch {
                        inclusion = Inclusion::Plain;
                    }
                }
                Item::Include(items) => {
                    // A Match in the file ends with the file.
                    let mut inner = *active;
                    let how = match inclusion {
                        Inclusion::OnlyMatch => Inclusion::OnlyMatch,
                        _ if *active => Inclusion::Plain,
                        _ => Inclusion::Never,
                    };
                    self.walk(items, &mut inner, how);
                }
            }
        }
    }

    fn holds(&self, conditions: &[Condition]) -> bool {
        let mut truth = Truth::Yes;
        for condition in conditions {
            truth = truth.and(match (condition, self.who) {
                (Condition::All, _) => Truth::Yes,
                (_, None) => Truth::No,
                (Condition::Other, _) => Truth::Open,
                (Condition::User(list), Some(who)) => {
                    Truth::of(pattern::in_list(list, &who.name) == InList::Yes)
                }
                (Condition::Group(list), Some(who)) => {
                    Truth::of(pattern::groups_in_list(list, &who.groups))
                }
            });
        }
        truth.settle(self.open)
    }
}

struct Reader<'a> {
    tree: &'a Tree,
    broken: Option<String>,
    files: usize,
    /// Bytes that all further files together may have.
    left: u64,
}

impl Reader<'_> {
    fn file(&mut self, path: &[u8], depth: usize) -> Result<Vec<Item>> {
        self.files += 1;
        let text = self.tree.read(path, self.left)?;
        self.left = self.left.saturating_sub(text.len() as u64);
        let mut items = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let place = || Place { path: path.to_vec(), line: index + 1 };
            match self.line(line, &place, depth) {
                Ok(item) => items.extend(item),
                Err(LineError::Fs(error)) => return Err(error),
                Err(LineError::Problem(problem)) => {
                    self.broken.get_or_insert_with(|| place().problem(problem));
                }
            }
        }
        Ok(items)
    }

    fn line(
        &mut self,
        line: &[u8],
        place: &dyn Fn() -> Place,
        depth: usize,
    ) -> std::result::Result<Option<Item>, LineError> {
        let Some(line) = words::keyword(line) else { return Ok(None) };
        let (keyword, rest) = line.map_err(|_| LineProblem::NoPartner)?;
        match keyword.as_str() {
            "match" => return Ok(Some(Item::Match(conditions(rest)?))),
            "include" => {
                let patterns = words::values(rest).map_err(|_| LineProblem::NoPartner)?;
                return Ok(Some(Item::Include(self.include(&patterns, depth)?)));
            }
            known if settings::is_known(known) => {}
            _ => return Ok(None),
        }
        let mut values = words::values(rest).map_err(|_| LineProblem::NoPartner)?;
        if keyword == "authorizedkeyscommand" && !values.is_empty() {
            // A command line: all of it counts, quotes and comments included.
            values = vec![rest.to_vec()];
        }
        settings::check(&keyword, &values)?;
        Ok(Some(Item::Set { keyword, values, place: place() }))
    }

    fn include(
        &mut self,
        patterns: &[Vec<u8>],
        depth: usize,
    ) -> std::result::Result<Vec<Item>, LineError> {
        let mut items = Vec::new();
        for pattern in patterns {
            let pattern = match pattern.first() {
                Some(b'/') => pattern.clone(),
                // sshd does not expand it here.
                Some(b'~') => continue,
                _ => [b"/etc/ssh/".as_slice(), pattern].concat(),
            };
            for path in glob::expand(self.tree, &pattern)? {
                if depth + 1 >= SSHD_LEVELS || self.files >= SSHD_FILES {
                    return Err(LineError::Fs(snf_fs::Error::Invalid(format!(
                        "{}: Include goes deeper than {SSHD_LEVELS} levels or names more than \
                         {SSHD_FILES} files",
                        display_name(&path)
                    ))));
                }
                if self.tree.is_file(&path)? {
                    // Each file by itself: a Match in it ends with it.
                    items.push(Item::Include(self.file(&path, depth + 1)?));
                }
            }
        }
        Ok(items)
    }
}

/// Why a line was not taken.
enum LineError {
    Fs(snf_fs::Error),
    Problem(LineProblem),
}

impl From<snf_fs::Error> for LineError {
    fn from(error: snf_fs::Error) -> Self {
        Self::Fs(error)
    }
}

impl From<LineProblem> for LineError {
    fn from(problem: LineProblem) -> Self {
        Self::Problem(problem)
    }
}

/// The conditions of a `Match` line.
fn conditions(mut rest: &[u8]) -> std::result::Result<Vec<Condition>, LineProblem> {
    let mut conditions = Vec::new();
    while !rest.is_empty() {
        let (word, after) = words::first(rest).ok_or(LineProblem::NoPartner)?;
        if word.is_empty() || word.starts_with(b"#") {
            break;
        }
        rest = after;
        let word = String::from_utf8_lossy(&word).to_ascii_lowercase();
        if word == "all" {
            let ends = rest.is_empty() || rest.starts_with(b"#");
            if !ends || !conditions.is_empty() {
                return Err(LineProblem::BadMatch);
            }
            return Ok(vec![Condition::All]);
        }
        let (value, after) = words::first(rest).ok_or(LineProblem::NoPartner)?;
        if value.is_empty() || value.starts_with(b"#") {
            return Err(LineProblem::NoValue);
        }
        rest = after;
        conditions.push(match word.as_str() {
            "user" => Condition::User(value),
            "group" => Condition::Group(value),
            "host" | "address" | "localaddress" | "localport" | "rdomain" | "version"
            | "sessiontype" | "invalid-user" | "command" => Condition::Other,
            _ => return Err(LineProblem::BadMatch),
        });
    }
    if conditions.is_empty() { Err(LineProblem::NoValue) } else { Ok(conditions) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snf_fs::{Attributes, MemoryFs};

    const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        for (path, text) in files {
            let (dir, _) = path.rsplit_once('/').unwrap();
            tree.mkdir_all(dir, FILE).unwrap();
            tree.write(path, text.as_bytes(), FILE).unwrap();
        }
        tree
    }

    fn parse(text: &str) -> SshdConfig {
        SshdConfig::read(&tree(&[(PLACES[0], text)])).unwrap()
    }

    fn ann() -> Who {
        Who { name: b"ann".to_vec(), groups: vec![b"ann".to_vec(), b"sudo".to_vec()] }
    }

    #[test]
    fn lines() {
        let config = parse(
            "# AuthorizedKeysFile /no\n\
             authorizedkeysfile=\"/etc/ssh/keys of/%u\" .ssh/second # why\n\
             AuthorizedKeysFile /late\r\n\
             HOSTKEY = /etc/ssh/a\n\tHostKey\t/etc/ssh/b\nHostKey /etc/ssh/a\n\
             PermitRootLogin No\n",
        );
        assert_eq!(config.broken, None);
        assert_eq!(config.host_keys, [b"/etc/ssh/a".to_vec(), b"/etc/ssh/b".to_vec()]);
        let settings = config.settings(&ann(), false);
        assert_eq!(
            settings.authorized_keys_file(),
            [b"/etc/ssh/keys of/%u".to_vec(), b".ssh/second".to_vec()]
        );
        assert_eq!(settings.root_login(), RootLogin::No);
    }

    #[test]
    fn conditions_of_match() {
        let config = parse(
            "PermitRootLogin no\nAllowUsers bob\n\
             Match User a*,!bob Group sudo\nPermitRootLogin yes\nAllowUsers ann\n\
             Match Address 10.0.0.0/8\nPasswordAuthentication no\n\
             Match User bob\nPubkeyAuthentication no\n\
             Match all\nPubkeyAuthentication no\nPermitRootLogin prohibit-password\n",
        );
        let closed = config.settings(&ann(), false);
        assert_eq!(closed.root_login(), RootLogin::Yes);
        assert_eq!(closed.restrictions()[0], [b"ann".to_vec()]);
        assert!(!closed.pubkey() && closed.password());
        assert!(!config.settings(&ann(), true).password());
        let other = config.settings(&Who::default(), false);
        assert_eq!(other.root_login(), RootLogin::ProhibitPassword);
        assert_eq!(other.restrictions()[0], [b"bob".to_vec()]);
    }

    #[test]
    fn lines_that_keep_sshd_from_starting() {
        for (text, expected) in [
            ("\nPermitRootLogin maybe\n", "line 2 of /etc/ssh/sshd_config has a value"),
            ("UsePAM\n", "has no value"),
            ("UsePAM yes no\n", "more than one value"),
            ("Match User ann\nUsePAM yes\n", "line 2 of /etc/ssh/sshd_config is not valid under"),
            ("Match Colour red\n", "has a condition"),
            ("Match User ann all\n", "has a condition"),
            ("Match User\n", "has no value"),
            ("AuthorizedKeysCommand /x\n", "without AuthorizedKeysCommandUser"),
            ("AllowUsers \"ann\n", "quotation mark"),
        ] {
            let broken = parse(text).broken.unwrap();
            assert!(broken.contains(expected), "{text}: {broken}");
        }
        assert_eq!(parse("Match all # x\nUsePAM yes\n").broken, None);
    }

    #[test]
    fn includes_come_where_they_stand() {
        assert_eq!(SshdConfig::read(&tree(&[])).unwrap(), SshdConfig::default());
        let mut tree = tree(&[
            (
                PLACES[0],
                "Include sshd_config.d/*.conf /etc/none/*\nPermitRootLogin no\nHostKey /etc/ssh/k\n",
            ),
            ("/etc/ssh/sshd_config.d/1.conf", "PermitRootLogin yes\nMatch all\nHostKey /m\n"),
            ("/etc/ssh/sshd_config.d/2.conf", "PasswordAuthentication no\n"),
            ("/usr/etc/ssh/sshd_config", "PermitRootLogin forced-commands-only\n"),
        ]);
        tree.mkdir("/etc/ssh/sshd_config.d/3.conf", FILE).unwrap();
        let config = SshdConfig::read(&tree).unwrap();
        let settings = config.settings(&ann(), false);
        assert_eq!(settings.root_login(), RootLogin::Yes);
        assert!(!settings.password());
        assert_eq!(config.host_keys, [b"/m".to_vec(), b"/etc/ssh/k".to_vec()]);
        tree.write("/etc/ssh/sshd_config.d/0.conf", b"Include /etc/ssh/sshd_config\n", FILE)
            .unwrap();
        assert!(SshdConfig::read(&tree).unwrap_err().to_string().contains("Include goes deeper"));
        tree.unlink(PLACES[0]).unwrap();
        let settings = SshdConfig::read(&tree).unwrap().settings(&ann(), false);
        assert_eq!(settings.root_login(), RootLogin::ForcedCommandsOnly);
    }
}
