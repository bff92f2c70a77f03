//! The word in the place of DISK: with `-d`, a command line has no DISK, and what follows it moves up.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

/// The command line with a word in the place of DISK, where `-d DOMAIN` says which disks are meant.
/// The commands keep one order of words, with a domain or without.
pub(crate) fn with_place_for_the_disk(cli: &Command, words: Vec<OsString>) -> Vec<OsString> {
    let command = words.get(1).and_then(|word| word.to_str()).and_then(|word| {
        cli.get_subcommands().find(|c| c.get_all_aliases().chain([c.get_name()]).any(|n| n == word))
    });
    let Some(command) = command else { return words };
    // deploy has a TARGET there, which is new.
    if command.get_name() == "deploy" {
        return words;
    }
    let Some(domain) = command.get_arguments().find(|arg| arg.get_long() == Some("domain")) else {
        return words;
    };
    let Some(name) = value_of(command, domain, words.get(2..).unwrap_or_default()) else {
        return words;
    };
    let mut out = words;
    let mut place = OsString::from("domain ");
    place.push(name);
    out.insert(2, place);
    out
}

/// The value of an option, if it is among the words.
fn value_of(command: &Command, wanted: &Arg, words: &[OsString]) -> Option<OsString> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let bytes = word.as_encoded_bytes();
        if bytes == b"--" {
            return None;
        }
        let Some(text) = word.to_str().filter(|text| text.len() > 1) else { continue };
        if let Some(long) = text.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            let Some(arg) = command.get_arguments().find(|arg| arg.get_long() == Some(name)) else {
                continue;
            };
            let value = match value {
                Some(value) => Some(OsString::from(value)),
                None if takes_the_next(arg) => words.next().cloned(),
                None => None,
            };
            if arg.get_id() == wanted.get_id() {
                return value;
            }
        } else if let Some(cluster) = text.strip_prefix('-') {
            for (at, letter) in cluster.char_indices() {
                let arg = command.get_arguments().find(|arg| arg.get_short() == Some(letter));
                let Some(arg) = arg.filter(|arg| takes_the_next(arg)) else { continue };
                let rest = &cluster[at + letter.len_utf8()..];
                let value = match rest.strip_prefix('=').unwrap_or(rest) {
                    "" => words.next().cloned(),
                    rest => Some(OsStr::new(rest).to_owned()),
                };
                if arg.get_id() == wanted.get_id() {
                    return value;
                }
                break;
            }
        }
    }
    None
}

/// Whether the word after an option is its value.
fn takes_the_next(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    fn settled(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        let mut cli = Cli::command();
        cli.build();
        let words = with_place_for_the_disk(&cli, words);
        words.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn a_domain_takes_the_place_of_the_disk() {
        for (line, expected) in [
            ("x apply -d web1 --hostname a", "x apply domain web1 -d web1 --hostname a"),
            ("x apply --hostname a -dweb1", "x apply domain web1 --hostname a -dweb1"),
            ("x apply --domain=web1", "x apply domain web1 --domain=web1"),
            ("x ls -lR --domain web1 /etc", "x ls domain web1 -lR --domain web1 /etc"),
            ("x cat -d web1 /etc/fstab", "x cat domain web1 -d web1 /etc/fstab"),
            ("x inspect --domain web1", "x inspect domain web1 --domain web1"),
            ("x copy-out -d web1 /a b", "x copy-out domain web1 -d web1 /a b"),
        ] {
            assert_eq!(settled(line), expected);
        }
        for line in [
            "x apply disk --hostname -d",
            "x sysprep disk --operations -dhcp-client-state",
            "x apply disk --sysprep -dhcp-client-state,all --hostname a",
            "x ls disk -ld /etc",
            "x cat disk -- -d web1",
            "x diff a b -d c",
            "x deploy image -d web1",
            "x --list-tasks",
            "x",
        ] {
            assert_eq!(settled(line), line);
        }
    }
}
