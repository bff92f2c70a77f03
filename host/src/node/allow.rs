//! IMAGE_FILES and IMAGE_HOSTS: what a tenant's URLs may lead to.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Prefixes of paths (IMAGE_FILES). None: no file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(Vec<PathBuf>);

impl FromStr for Files {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = |word: &str| match word.starts_with('/') && !word.contains('\0') {
            true => Ok(PathBuf::from(word)),
            false => Err(format!("{word:?} is not an absolute path")),
        };
        text.split_whitespace().map(path).collect::<Result<_, _>>().map(Self)
    }
}

impl Files {
    /// The listed place that a path lies in, and the rest of the path (empty for the place itself).
    /// The text only: the caller must resolve the rest so that it cannot leave the place.
    pub fn find<'a>(&'a self, path: &'a Path) -> Option<(&'a Path, &'a Path)> {
        let within = |place: &'a PathBuf| Some((place.as_path(), path.strip_prefix(place).ok()?));
        // The longest one leaves least to resolve.
        self.0.iter().filter_map(within).min_by_key(|(_, rest)| rest.as_os_str().len())
    }

    /// Whether no file may be read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<String> = self.0.iter().map(|place| place.display().to_string()).collect();
        f.write_str(&all.join(" "))
    }
}

/// One entry of IMAGE_HOSTS.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// `images.example.org`.
    Name(String),
    /// `*.example.org`: whatever ends in `.example.org`.
    Below(String),
    /// `10.1.2.0/24`, `fd00::/8`, or one address.
    Network(IpAddr, u8),
    /// `http://images.internal/public/`: whatever begins like that.
    Prefix { scheme: String, host: String, port: u16, path: String },
}

/// Places of the network that are allowed although their address is special (IMAGE_HOSTS).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    entries: Vec<Host>,
    /// As the admin wrote it.
    text: String,
}

impl std::fmt::Display for Hosts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// A request before it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `http`, `https` or `ftp`.
    pub scheme: &'a str,
    /// Name or address, an IPv6 address with or without brackets.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// The path, with the slash it begins with.
    pub path: &'a str,
}

/// The port of a scheme that is not followed by one.
pub fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        "ftp" => Some(21),
        _ => None,
    }
}

impl FromStr for Hosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let entries = text.split_whitespace().map(host).collect::<Result<_, _>>()?;
        Ok(Self { entries, text: text.split_whitespace().collect::<Vec<_>>().join(" ") })
    }
}

fn host(word: &str) -> Result<Host, String> {
    let wrong = || {
        format!(
            "{word:?} is none of a host name, *.DOMAIN, an address, a network (10.0.0.0/8) and the \
             beginning of a URL (http://HOST/PATH/)"
        )
    };
    if word.contains("://") {
        return prefix(word).ok_or_else(wrong);
    }
    if let Ok(address) = bare(word).parse::<IpAddr>() {
        return Ok(Host::Network(address, bits(address)));
    }
    if let Some((address, length)) = word.split_once('/') {
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let length: u8 = length.parse().map_err(|_| wrong())?;
        return match length <= bits(address) {
            true => Ok(Host::Network(address, length)),
            false => Err(wrong()),
        };
    }
    let (domain, below) = match word.strip_prefix("*.") {
        Some(domain) => (domain, true),
        None => (word, false),
    };
    let plain = domain.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if domain.is_empty() || !plain {
        return Err(wrong());
    }
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    Ok(if below { Host::Below(format!(".{domain}")) } else { Host::Name(domain) })
}

fn prefix(word: &str) -> Option<Host> {
    let (scheme, rest) = word.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let after_bracket = place.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match place.get(after_bracket..)?.rfind(':') {
        Some(colon) => {
            let colon = after_bracket + colon;
            (&place[..colon], place[colon + 1..].parse().ok()?)
        }
        None => (place, default_port(&scheme)?),
    };
    default_port(&scheme)?;
    if host.is_empty() || place.contains('@') {
        return None;
    }
    let path = if path.is_empty() { "/" } else { path }.to_owned();
    Some(Host::Prefix { scheme, host: bare(host).to_ascii_lowercase(), port, path })
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn in_network(address: IpAddr, network: IpAddr, length: u8) -> bool {
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    address.is_ipv4() == network.is_ipv4() && (number(address) ^ number(network)) & mask == 0
}

impl Hosts {
    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a request to this address is listed.
    pub fn allow(&self, request: Request<'_>, address: IpAddr) -> bool {
        let host = bare(request.host).trim_end_matches('.').to_ascii_lowercase();
        self.entries.iter().any(|entry| match entry {
            Host::Name(name) => host == *name,
            Host::Below(domain) => host.ends_with(domain.as_str()),
            Host::Network(network, length) => {
                in_network(address, *network, *length)
                    || in_network(address.to_canonical(), *network, *length)
            }
            Host::Prefix { scheme, host: listed, port, path } => {
                request.scheme.eq_ignore_ascii_case(scheme)
                    && host == *listed
                    && request.port == *port
                    && begins(request.path, path)
            }
        })
    }
}

/// Whether a path is below a prefix. A path that a server could read differently is not.
fn begins(path: &str, prefix: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let path_only = lower.split(['?', '#']).next().unwrap_or_default();
    // Servers of servlets take `..;x` for `..`, and some that stand in front of others decode twice.
    let climbs = path_only.split(['/', '\\']).any(|part| {
        let part = part.replace("%2e", ".").replace("%3b", ";");
        part.split(';').next() == Some("..")
    });
    let hidden = ["%2f", "%5c", "\\", "%252e", "%252f", "%255c"];
    let hidden = hidden.iter().any(|sign| path_only.contains(sign));
    let folder = prefix.strip_suffix('/').unwrap_or(prefix);
    let rest = path.strip_prefix(folder);
    !climbs && !hidden && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let files: Files = "/srv/images /srv/images/more\t/opt/one.raw".parse().unwrap();
        let find = |path: &'static str| {
            files.find(Path::new(path)).map(|(a, b)| (a.to_owned(), b.to_owned()))
        };
        let found = |a: &str, b: &str| Some((a.into(), b.into()));
        assert_eq!(find("/srv/images/a/b"), found("/srv/images", "a/b"));
        assert_eq!(find("/srv//images/more/x"), found("/srv/images/more", "x"));
        assert_eq!(find("/opt/one.raw"), found("/opt/one.raw", ""));
        assert_eq!(find("/srv/images/../x"), found("/srv/images", "../x"));
        assert_eq!(find("/srv/images-other/a"), None);
        assert_eq!(find("/etc/shadow"), None);
        assert!("srv".parse::<Files>().is_err() && "".parse::<Files>().unwrap().is_empty());
    }

    #[test]
    fn hosts() {
        let hosts: Hosts = "Images.example.org *.cloud.test 10.1.0.0/16 fd00::/8 192.168.1.7 \
                            http://web:8080/public/ https://[fe80::1]/x"
            .parse()
            .unwrap();
        let request = |url: &str, address: &str| {
            let (scheme, rest) = url.split_once("://").unwrap();
            let (place, path) = rest.split_at(rest.find('/').unwrap());
            let (host, port) = match place.rsplit_once(':').filter(|_| !place.ends_with(']')) {
                Some((host, port)) => (host, port.parse().unwrap()),
                None => (place, default_port(scheme).unwrap()),
            };
            hosts.allow(Request { scheme, host, port, path }, address.parse().unwrap())
        };
        for (url, address) in [
            ("http://images.EXAMPLE.org./a", "127.0.0.1"),
            ("ftp://a.b.cloud.test/a", "10.9.9.9"),
            ("http://x/", "10.1.2.3"),
            ("http://x/", "::ffff:10.1.2.3"),
            ("http://x/", "fdff::1"),
            ("http://x/", "192.168.1.7"),
            ("http://web:8080/public/a?b=/../", "10.9.9.9"),
            ("http://web:8080/public", "10.9.9.9"),
            ("https://[fe80::1]/x/y", "fe80::1"),
        ] {
            assert!(request(url, address), "{url} {address}");
        }
        for (url, address) in [
            ("http://cloud.test/a", "10.9.9.9"),
            ("http://evilcloud.test/a", "10.9.9.9"),
            ("http://x/", "10.2.0.1"),
            ("http://x/", "192.168.1.8"),
            ("http://web/public/a", "10.9.9.9"),
            ("https://web:8080/public/a", "10.9.9.9"),
            ("http://web:8080/publicly", "10.9.9.9"),
            ("http://web:8080/public/../secret", "10.9.9.9"),
            ("http://web:8080/public/%2e%2E/secret", "10.9.9.9"),
            ("http://web:8080/public/..%2fsecret", "10.9.9.9"),
            ("http://web:8080/public/..;/secret", "10.9.9.9"),
            ("http://web:8080/public/%2e.%3bx=1/secret", "10.9.9.9"),
            ("http://web:8080/public/%252e%252e/secret", "10.9.9.9"),
            ("http://web:8080/", "10.9.9.9"),
        ] {
            assert!(!request(url, address), "{url} {address}");
        }
        for wrong in ["a b/c", "10.0.0.0/33", "gopher://x/", "http://", "*.", "a,b", "http://u@h/"]
        {
            assert!(wrong.parse::<Hosts>().is_err(), "{wrong}");
        }
    }
}
