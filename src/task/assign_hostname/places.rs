//! The places besides the host name's own file that hold the old name: `/etc/hosts`, mail, DHCP.

use snf_fs::{Attributes, FileType};

use super::super::{Guest, TaskError};

const CONFIG: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
const HOSTS: &str = "/etc/hosts";

/// Files with settings that name the host, and the settings; an empty list means every line.
const SETTINGS: [(&str, &[&str]); 6] = [
    ("/etc/mailname", &[]),
    ("/etc/postfix/main.cf", &["myhostname", "mydestination", "myorigin"]),
    ("/etc/exim4/update-exim4.conf.conf", &["dc_other_hostnames", "dc_readhost"]),
    ("/etc/dhcp/dhclient.conf", &["send host-name", "send fqdn.fqdn"]),
    ("/etc/dhclient.conf", &["send host-name"]),
    ("/etc/dhcpcd.conf", &["hostname"]),
];

/// The first part of a name.
pub(super) fn short(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// The old and the new name of a host.
pub(super) struct Renaming<'a> {
    old: Option<&'a str>,
    new: &'a str,
}

impl<'a> Renaming<'a> {
    /// `localhost` is nobody's name: it would be replaced where it means this machine.
    pub(super) fn new(old: Option<&'a str>, new: &'a str) -> Self {
        Self { old: old.filter(|old| short(old) != "localhost" && !old.is_empty()), new }
    }

    /// The new form of a word that is the old name, with or without a domain. A domain stays, unless
    /// the new name brings its own.
    fn renamed(&self, word: &str) -> Option<String> {
        let old = self.old?;
        let (host, domain) = match word.split_once('.') {
            Some((host, domain)) => (host, Some(domain)),
            None => (word, None),
        };
        if !host.eq_ignore_ascii_case(short(old)) {
            return None;
        }
        // Another host of the same first part in another domain is another host.
        if let (Some(domain), Some((_, own))) = (domain, old.split_once('.'))
            && !domain.eq_ignore_ascii_case(own)
        {
            return None;
        }
        Some(match domain {
            None => short(self.new).to_owned(),
            Some(domain) if !self.new.contains('.') => format!("{}.{domain}", self.new),
            Some(_) => self.new.to_owned(),
        })
    }

    /// A line with the new name in place of the old one, wherever it is a word.
    fn line(&self, line: &str) -> String {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let mut out = String::with_capacity(line.len() + 16);
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let trimmed = word.trim_end_matches('.');
            match self.renamed(trimmed) {
                Some(new) => out.push_str(&format!("{new}{}", &word[trimmed.len()..])),
                None => out.push_str(word),
            }
            let gap = after.find(is_part).unwrap_or(after.len());
            out.push_str(&after[..gap]);
            rest = &after[gap..];
        }
        out
    }

    /// Writes the new name into every file that names the host.
    pub(super) fn settings(&self, guest: &mut Guest) -> Result<(), TaskError> {
        if self.old.is_none() {
            return Ok(());
        }
        for (path, keys) in SETTINGS {
            let is_file =
                guest.tree.lstat(path).is_ok_and(|stat| stat.file_type == FileType::Regular);
            if !is_file {
                continue;
            }
            let Some(old) = guest.config(path)? else { continue };
            let text = decode(&old);
            let new: String = text
                .split_inclusive('\n')
                .map(|line| {
                    let start = line.trim_start();
                    let named = keys.is_empty() || keys.iter().any(|key| start.starts_with(key));
                    if named && !start.starts_with('#') { self.line(line) } else { line.to_owned() }
                })
                .collect();
            let new = encode(&new);
            if new != old {
                guest.tree.write(path, &new, CONFIG)?;
            }
        }
        Ok(())
    }

    /// Writes the new name into `/etc/hosts`: on every line of the loopback, and on a new one where
    /// otherwise nothing would resolve it.
    pub(super) fn hosts(&self, guest: &mut Guest) -> Result<(), TaskError> {
        let Some(old) = guest.config(HOSTS)? else { return Ok(()) };
        let text = decode(&old);
        let mut lines: Vec<String> = text
            .split_inclusive('\n')
            .map(|line| self.hosts_line(line).unwrap_or_else(|| line.to_owned()))
            .collect();
        let resolves = lines.iter().any(|line| {
            let body = line.split('#').next().unwrap_or_default();
            let mut names = body.split_whitespace().skip(1);
            names.any(|name| name.eq_ignore_ascii_case(self.new))
        });
        if !resolves && !resolves_by_itself(guest)? {
            if let Some(last) = lines.last_mut().filter(|line| !line.ends_with('\n')) {
                last.push('\n');
            }
            let at = lines.iter().rposition(|line| line.trim_start().starts_with("127."));
            let short = short(self.new);
            let names =
                if short == self.new { short.to_owned() } else { format!("{} {short}", self.new) };
            lines.insert(at.map_or(lines.len(), |at| at + 1), format!("127.0.1.1\t{names}\n"));
        }
        let new = encode(&lines.concat());
        if new != old {
            guest.tree.write(HOSTS, &new, CONFIG)?;
        }
        Ok(())
    }

    /// A line of the loopback with the new name, or `None` for every other line. Other aliases stay.
    pub(super) fn hosts_line(&self, line: &str) -> Option<String> {
        let (body, comment) = match line.find('#') {
            Some(at) => line.split_at(at),
            None => line.split_at(line.trim_end_matches(['\n', '\r']).len()),
        };
        let mut words = body.split_whitespace();
        let address = words.next()?;
        if !address.starts_with("127.") && address != "::1" {
            return None;
        }
        if address != "127.0.1.1" {
            let new = format!("{}{comment}", self.line(body));
            return (new != line).then_some(new);
        }
        let names: Vec<&str> = words.collect();
        // Without a host name to go by, the first name of the line is the host's.
        let host = short(self.old.or(names.first().copied()).unwrap_or_default());
        let is_host = |candidate: &&str| short(candidate).eq_ignore_ascii_case(host);
        let domain =
            names.iter().filter(|n| is_host(n)).find_map(|n| n.split_once('.')).map(|n| n.1);
        let full = match domain {
            Some(domain) if !self.new.contains('.') => format!("{}.{domain}", self.new),
            _ => self.new.to_owned(),
        };
        let mut new = vec![full.as_str()];
        if short(self.new) != full {
            new.push(short(self.new));
        }
        let others = |n: &&str| !is_host(n) && *n != full && *n != short(self.new);
        new.extend(names.iter().copied().filter(others));
        let gap = if body.contains('\t') { "\t" } else { " " };
        let tail =
            if comment.starts_with('#') { format!(" {comment}") } else { comment.to_owned() };
        Some(format!("127.0.1.1{gap}{}{tail}", new.join(" ")))
    }
}

/// Whether the C library finds the machine's own name without `/etc/hosts`.
fn resolves_by_itself(guest: &Guest) -> Result<bool, TaskError> {
    for path in
        ["/etc/nsswitch.conf", "/usr/etc/nsswitch.conf", "/usr/share/factory/etc/nsswitch.conf"]
    {
        let Some(text) = guest.config(path)? else { continue };
        let text = String::from_utf8_lossy(&text).into_owned();
        return Ok(text.lines().any(|line| {
            let line = line.split('#').next().unwrap_or_default();
            line.trim_start().strip_prefix("hosts:").is_some_and(|sources| {
                sources.split_whitespace().any(|source| source == "myhostname")
            })
        }));
    }
    Ok(false)
}

/// Bytes as characters, one for one, so that a text in any encoding stays what it is.
fn decode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn encode(text: &str) -> Vec<u8> {
    // Names are ASCII, and everything else came from `decode`.
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::testing::Guest;

    #[test]
    fn hosts_lines() {
        let line =
            |line: &str, old: &str, name: &str| Renaming::new(Some(old), name).hosts_line(line);
        assert_eq!(
            line("127.0.0.1 localhost image\n", "image", "vm").unwrap(),
            "127.0.0.1 localhost vm\n"
        );
        assert_eq!(line("127.0.0.1 localhost\n", "image", "vm"), None);
        assert_eq!(line("127.0.0.1 localhost\n", "localhost", "vm"), None);
        assert_eq!(
            line("::1 image.a.b image # x\n", "image", "vm.c").unwrap(),
            "::1 vm.c vm # x\n"
        );
        assert_eq!(line("192.0.2.5 image\n", "image", "vm"), None);
        assert_eq!(line("# 127.0.1.1 image\n", "image", "vm"), None);
        assert_eq!(line("127.0.1.1 image", "image", "vm").unwrap(), "127.0.1.1 vm");
        assert_eq!(
            line("  127.0.1.1\timage.a.b image db # x\r\n", "image", "vm").unwrap(),
            "127.0.1.1\tvm.a.b vm db # x\r\n"
        );
        assert_eq!(line("127.0.1.1 other\n", "image", "vm").unwrap(), "127.0.1.1 vm other\n");
        assert_eq!(line("127.0.1.1 other\n", "", "vm").unwrap(), "127.0.1.1 vm\n");
        assert_eq!(line("127.0.1.1\n", "image", "vm").unwrap(), "127.0.1.1 vm\n");
    }

    #[test]
    fn a_line_where_nothing_would_resolve_the_name() {
        let hosts = |hosts: &[u8], nsswitch: &str| {
            let mut guest = Guest::empty();
            guest.write("/etc/nsswitch.conf", nsswitch);
            guest.write("/etc/hostname", "image\n");
            guest.tree().write(HOSTS, hosts, CONFIG).unwrap();
            guest.plan.hostname = Some("vm.example.org".into());
            guest.run(&super::super::TASK).unwrap();
            guest.tree().read(HOSTS, 1 << 20).unwrap()
        };
        let plain = b"127.0.0.1\tlocalhost\n::1 localhost\n";
        assert_eq!(
            hosts(plain, "hosts: files dns\n"),
            b"127.0.0.1\tlocalhost\n127.0.1.1\tvm.example.org vm\n::1 localhost\n"
        );
        assert_eq!(hosts(plain, "hosts: files myhostname dns\n"), plain);
        // A comment in Latin-1 stays as it is.
        assert_eq!(
            hosts(b"# K\xf6ln\n127.0.1.1 image", "hosts: files\n"),
            b"# K\xf6ln\n127.0.1.1 vm.example.org vm"
        );
    }

    #[test]
    fn mail_and_dhcp() {
        let mut guest = Guest::debian();
        for (path, text) in [
            ("/etc/mailname", "image.example.org\n"),
            (
                "/etc/postfix/main.cf",
                "# image\nmyhostname = image.example.org\nmydestination = $myhostname, image, \
                 image-2, localhost\nother = image\n",
            ),
            ("/etc/dhcp/dhclient.conf", "send host-name \"image\";\n#send host-name \"image\";\n"),
        ] {
            guest.write(path, text);
        }
        guest.plan.hostname = Some("vm".into());
        guest.run(&super::super::TASK).unwrap();
        assert_eq!(guest.read("/etc/mailname"), "vm.example.org\n");
        assert_eq!(
            guest.read("/etc/postfix/main.cf"),
            "# image\nmyhostname = vm.example.org\nmydestination = $myhostname, vm, image-2, \
             localhost\nother = image\n"
        );
        let text = guest.read("/etc/dhcp/dhclient.conf");
        assert_eq!(text, "send host-name \"vm\";\n#send host-name \"image\";\n");
    }
}
