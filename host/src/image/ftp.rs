//! Small texts from FTP servers (RFC 959, 2428): one file, passive, in binary.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::pace::left;
use super::policy::{Policy, refused};
use crate::limits::{FTP_REPLY_BYTES, SILENCE_SECONDS};
use crate::node::allow::Request;
use crate::node::percent;

const TIMEOUT: Duration = Duration::from_secs(SILENCE_SECONDS);

/// The parts of `ftp://[USER[:PASSWORD]@]HOST[:PORT]/PATH`.
struct Url<'a> {
    user: String,
    password: String,
    host: &'a str,
    port: u16,
    path: String,
}

/// Opens the file that the URL names. All of it has to be here when the policy's patience ends.
///
/// # Errors
///
/// The server cannot be reached or may not be, or does not give the file.
pub fn open(url: &str, policy: &Policy) -> io::Result<impl Read + use<>> {
    let deadline = Instant::now() + policy.patience;
    let url = parse(url).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "it is not ftp://HOST/PATH of one file")
    })?;
    let mut control = Control::connect(&url, policy, deadline)?;
    control.expect(&[220])?;
    if control.command(&format!("USER {}", url.user), &[230, 331])? == 331 {
        control.command(&format!("PASS {}", url.password), &[230, 202])?;
    }
    control.command("TYPE I", &[200])?;
    let mut address = control.peer;
    address.set_port(control.passive()?);
    // The same host as before: it was checked.
    let data = Stream::connect(&address, deadline)?;
    control.command(&format!("RETR {}", url.path), &[125, 150])?;
    Ok(Download { data, control, ended: false })
}

fn parse(url: &str) -> Option<Url<'_>> {
    let rest = url.get(..6).filter(|s| s.eq_ignore_ascii_case("ftp://")).map(|_| &url[6..])?;
    let (authority, path) = rest.split_once('/')?;
    let (login, place) = match authority.rsplit_once('@') {
        Some((login, place)) => (login, place),
        None => ("anonymous:snf-image@", authority),
    };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(21), |port| port.parse().ok())?;
    let out = Url {
        user: percent::decode(user)?,
        password: percent::decode(password)?,
        host,
        port,
        path: percent::decode(path)?,
    };
    (!host.is_empty() && !out.path.is_empty() && !out.path.ends_with('/')).then_some(out)
}

/// A connection that ends at a deadline, however slowly the other side sends.
struct Stream {
    inner: TcpStream,
    deadline: Instant,
}

impl Stream {
    fn connect(address: &SocketAddr, deadline: Instant) -> io::Result<Self> {
        let inner = TcpStream::connect_timeout(address, left(deadline)?.min(TIMEOUT))?;
        Ok(Self { inner, deadline })
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.set_read_timeout(Some(left(self.deadline)?.min(TIMEOUT)))?;
        self.inner.read(buf)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.inner.set_write_timeout(Some(left(self.deadline)?.min(TIMEOUT)))?;
        self.inner.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Control {
    stream: BufReader<Stream>,
    peer: SocketAddr,
}

impl Control {
    fn connect(url: &Url<'_>, policy: &Policy, deadline: Instant) -> io::Result<Self> {
        policy.check_network().map_err(refused)?;
        let path = format!("/{}", url.path);
        let request = Request { scheme: "ftp", host: url.host, port: url.port, path: &path };
        let found = (url.host, url.port).to_socket_addrs()?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name cannot be resolved");
        for address in policy.check(request, found).map_err(refused)? {
            match Stream::connect(&address, deadline) {
                Ok(stream) => return Ok(Self { stream: BufReader::new(stream), peer: address }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends a line and gives the code of its reply, which must be one of `good`.
    fn command(&mut self, line: &str, good: &[u16]) -> io::Result<u16> {
        self.send(line)?;
        self.expect(good).map(|(code, _)| code)
    }

    fn send(&mut self, line: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes())
    }

    /// One reply: several lines if a hyphen follows its code.
    fn expect(&mut self, good: &[u16]) -> io::Result<(u16, String)> {
        let mut limited = (&mut self.stream).take(FTP_REPLY_BYTES);
        let mut first = String::new();
        loop {
            let mut line = Vec::new();
            limited.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                return Err(io::Error::other("the server's reply is cut short"));
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if first.is_empty() {
                first.clone_from(&line);
            }
            let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
            match (code, line.as_bytes().get(3)) {
                (Some(code), None | Some(b' ')) if line.get(..3) == first.get(..3) => {
                    if good.contains(&code) {
                        return Ok((code, line));
                    }
                    let kind = match code {
                        550 => io::ErrorKind::NotFound,
                        530 => io::ErrorKind::PermissionDenied,
                        _ => io::ErrorKind::Other,
                    };
                    return Err(io::Error::new(kind, format!("the server answered {line:?}")));
                }
                _ => {}
            }
        }
    }

    /// The port for the data: by the newer command, else by the older one. The address in its
    /// answer is not believed: it could be any host's.
    fn passive(&mut self) -> io::Result<u16> {
        let wrong = || io::Error::other("the server gives no port for the data");
        self.send("EPSV")?;
        if let Ok((_, line)) = self.expect(&[229]) {
            let port = line.rsplit_once("|||").and_then(|(_, rest)| rest.split('|').next());
            return port.and_then(|port| port.parse().ok()).ok_or_else(wrong);
        }
        self.send("PASV")?;
        let (_, line) = self.expect(&[227])?;
        let list = line.split_once('(').and_then(|(_, rest)| rest.split(')').next());
        let numbers: Option<Vec<u8>> =
            list.map(|list| list.split(',').filter_map(|n| n.trim().parse().ok()).collect());
        match numbers.as_deref() {
            Some([_, _, _, _, high, low]) => Ok(u16::from_be_bytes([*high, *low])),
            _ => Err(wrong()),
        }
    }
}

/// The data, whole only when the server says so.
struct Download {
    data: Stream,
    control: Control,
    ended: bool,
}

impl Read for Download {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.data.read(buf)?;
        if n == 0 && !buf.is_empty() && !self.ended {
            self.ended = true;
            self.control.expect(&[226, 250])?;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server that knows one file, and one way to open the data connection.
    fn serve(extended: bool, whole: bool) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut out = stream.try_clone().unwrap();
            let data = TcpListener::bind("127.0.0.1:0").unwrap();
            let at = data.local_addr().unwrap().port();
            let mut say = |text: &str| out.write_all(format!("{text}\r\n").as_bytes()).unwrap();
            say("220-hello\r\n220-220 times\r\n220 ready");
            for line in BufReader::new(stream).lines() {
                let line = line.unwrap();
                match line.split(' ').next().unwrap() {
                    "USER" => say(if line == "USER anonymous" { "230 in" } else { "331 who" }),
                    "PASS" => say(if line == "PASS p@ss" { "230 in" } else { "530 out" }),
                    "TYPE" => say("200 ok"),
                    "EPSV" if extended => say(&format!("229 Entering (|||{at}|)")),
                    "EPSV" => say("500 what"),
                    "PASV" => say(&format!("227 Entering (10,0,0,1,{},{})", at >> 8, at & 255)),
                    "RETR" if line == "RETR dir/a b" => {
                        say("150 here");
                        data.accept().unwrap().0.write_all(b"the file").unwrap();
                        say(if whole { "226 done" } else { "426 broken" });
                    }
                    _ => say("550 no such file"),
                }
            }
        });
        port
    }

    fn policy(hosts: &str) -> Policy {
        let config = crate::node::config::Config {
            image_hosts: hosts.parse().unwrap(),
            fetch_timeout: Duration::from_secs(2),
            backends_dir: "/nonexistent".into(),
            ..Default::default()
        };
        Policy::of(&config).unwrap()
    }

    fn read(login: &str, port: u16, path: &str) -> io::Result<String> {
        let mut text = String::new();
        open(&format!("ftp://{login}127.0.0.1:{port}/{path}"), &policy("127.0.0.1"))?
            .read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn files_and_errors() {
        for extended in [true, false] {
            assert_eq!(read("", serve(extended, true), "dir/a%20b").unwrap(), "the file");
        }
        assert_eq!(read("me:p%40ss@", serve(true, true), "dir/a%20b").unwrap(), "the file");
        let error = |result: io::Result<String>| result.unwrap_err().to_string();
        assert!(error(read("me:no@", serve(true, true), "x")).contains("530 out"));
        assert!(error(read("", serve(true, true), "x")).contains("550 no such file"));
        assert!(error(read("", serve(true, false), "dir/a%20b")).contains("426 broken"));
        for url in
            ["ftp://", "ftp://h", "ftp://h/", "ftp://h/a/", "ftp://h:x/a", "ftp://h/a%0aDELE"]
        {
            assert!(open(url, &policy("127.0.0.1")).is_err(), "{url}");
        }
    }

    #[test]
    fn where_it_may_go_and_how_long() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ftp://127.0.0.1:{}/x", listener.local_addr().unwrap().port());
        let error = open(&url, &policy("")).map(drop).unwrap_err().to_string();
        assert!(error.contains("loopback address 127.0.0.1, and IMAGE_HOSTS"), "{error}");
        assert!(listener.set_nonblocking(true).is_ok() && listener.accept().is_err());
        listener.set_nonblocking(false).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(b"2").is_ok() {
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        let started = Instant::now();
        assert!(open(&url, &policy("127.0.0.0/8")).is_err());
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
}
