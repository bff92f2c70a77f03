//! Images on web servers: read once from start to end, taken up again after a broken connection.

#[cfg(not(feature = "network"))]
use std::io::{self, Read};

#[cfg(not(feature = "network"))]
use crate::image::policy::Policy;

#[cfg(all(test, feature = "network"))]
pub(crate) use network::times;
#[cfg(feature = "network")]
pub use network::{HttpReader, open_small};

/// The answer of a build without the network.
#[cfg(not(feature = "network"))]
pub fn open_small(_url: &str, _policy: Policy) -> io::Result<Box<dyn Read + Send>> {
    Err(io::Error::other("this snf-image was built without the network feature"))
}

/// A build without the network has no reader.
#[cfg(not(feature = "network"))]
pub enum HttpReader {}

#[cfg(not(feature = "network"))]
impl HttpReader {
    /// The answer of a build without the network.
    pub fn open(_url: &str, _policy: Policy) -> io::Result<Self> {
        Err(io::Error::other("this snf-image was built without the network feature"))
    }

    /// Nothing to know.
    pub fn size(&self) -> Option<u64> {
        None
    }
}

#[cfg(not(feature = "network"))]
impl Read for HttpReader {
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }
}

#[cfg(feature = "network")]
mod network {
    use std::io::{self, Read};
    use std::time::Duration;

    use ureq::http::{HeaderMap, StatusCode};
    use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
    use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
    use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
    use ureq::{Agent, BodyReader};

    use crate::image::policy::{Policy, Refusal};
    use crate::limits::{CONNECT_SECONDS, REDIRECTS, SILENCE_SECONDS};
    use crate::node::allow::{Request, default_port};
    use crate::node::log;

    /// How often a connection is taken up again without a byte in between.
    const TRIES: u32 = 5;
    /// Longest silence of a server.
    const READ_TIMEOUT: Duration = Duration::from_secs(SILENCE_SECONDS);
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(CONNECT_SECONDS);
    /// The trusted certificates of the node on Debian, Red Hat and SUSE.
    const CERTIFICATES: [&str; 3] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
    ];

    /// Looks hosts up and gives only addresses that may be connected to. It is asked for every
    /// request, those of redirects included, and the connection goes to what it gives.
    #[derive(Debug)]
    struct Guard {
        policy: Policy,
        resolver: DefaultResolver,
    }

    impl Resolver for Guard {
        fn resolve(
            &self,
            uri: &ureq::http::Uri,
            config: &ureq::config::Config,
            timeout: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, ureq::Error> {
            let found = self.resolver.resolve(uri, config, timeout)?;
            let scheme = uri.scheme_str().unwrap_or_default();
            let request = Request {
                scheme,
                host: uri.host().unwrap_or_default(),
                port: uri.port_u16().or_else(|| default_port(scheme)).unwrap_or(0),
                path: uri.path(),
            };
            let good = self
                .policy
                .check(request, found.iter().copied())
                .map_err(|refusal| ureq::Error::Other(Box::new(refusal)))?;
            let mut out = self.empty();
            for address in good {
                out.push(address);
            }
            Ok(out)
        }
    }

    /// `whole` bounds the time of the whole answer.
    fn agent(https: bool, policy: Policy, whole: Option<Duration>) -> Agent {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(REDIRECTS)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .timeout_per_write(Some(READ_TIMEOUT))
            .max_idle_connections(0)
            .timeout_global(whole)
            // A proxy would look names up by itself, out of reach of the policy.
            .proxy(None)
            // Of what was asked for securely, nothing comes insecurely by a redirect.
            .https_only(https)
            .accept_encoding("identity")
            .user_agent(concat!("snf-image/", env!("CARGO_PKG_VERSION")));
        if https && let Some(roots) = node_certificates() {
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        let guard = Guard { policy, resolver: DefaultResolver::default() };
        Agent::with_parts(config.build(), DefaultConnector::default(), guard)
    }

    /// The longest silence, and the longest time to connect, for the test of the bounds.
    #[cfg(test)]
    pub(crate) fn times(policy: &Policy) -> (Duration, Duration) {
        let agent = agent(false, policy.clone(), None);
        let (times, silence) = (agent.config().timeouts(), agent.config().timeout_per_read());
        assert_eq!(times.resolve, times.connect);
        assert_eq!(silence, times.recv_response);
        (silence.unwrap_or(Duration::MAX), times.connect.unwrap_or(Duration::MAX))
    }

    /// The certificates that this node trusts, so that a site's own authority works; the built-in
    /// list where the node has none.
    fn node_certificates() -> Option<RootCerts> {
        let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
        let paths = named.into_iter().chain(CERTIFICATES.map(Into::into));
        let pem = paths.into_iter().find_map(|path| std::fs::read(path).ok())?;
        let certificates: Vec<Certificate<'static>> = ureq::tls::parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        (!certificates.is_empty()).then(|| RootCerts::new_with_certs(&certificates))
    }

    fn is_https(url: &str) -> bool {
        url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"))
    }

    fn io_error(error: ureq::Error) -> io::Error {
        match error {
            ureq::Error::Io(error) => error,
            ureq::Error::HostNotFound => io::Error::other("the host name cannot be resolved"),
            ureq::Error::Timeout(_) => {
                io::Error::new(io::ErrorKind::TimedOut, "the server does not answer")
            }
            ureq::Error::Other(inner) => match inner.downcast::<Refusal>() {
                Ok(refusal) => permanent(*refusal),
                Err(other) => io::Error::other(other),
            },
            other => io::Error::other(other),
        }
    }

    fn status_error(status: StatusCode) -> io::Error {
        let kind = match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => io::ErrorKind::NotFound,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, format!("the server answered {status}"))
    }

    fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
    }

    /// A small text: one request, no resuming.
    ///
    /// # Errors
    ///
    /// The server cannot be reached or may not be, or answers with anything but the text.
    pub fn open_small(url: &str, policy: Policy) -> io::Result<Box<dyn Read + Send>> {
        policy.check_network().map_err(permanent)?;
        let whole = Some(policy.patience);
        let response = agent(is_https(url), policy, whole).get(url).call().map_err(io_error)?;
        if response.status() != StatusCode::OK {
            return Err(status_error(response.status()));
        }
        Ok(Box::new(response.into_body().into_reader()))
    }

    /// A file on a web server, read from start to end.
    pub struct HttpReader {
        agent: Agent,
        url: String,
        body: Option<BodyReader<'static>>,
        position: u64,
        size: Option<u64>,
        /// The strong validator that proves a second answer to be of the same file.
        etag: Option<String>,
        modified: Option<String>,
        ranges: bool,
        failures: u32,
    }

    impl HttpReader {
        /// Asks for the file and reads the head of the answer.
        ///
        /// # Errors
        ///
        /// The server cannot be reached or may not be, or does not have the file.
        pub fn open(url: &str, policy: Policy) -> io::Result<Self> {
            policy.check_network().map_err(permanent)?;
            let mut reader = Self {
                agent: agent(is_https(url), policy, None),
                url: url.to_owned(),
                body: None,
                position: 0,
                size: None,
                etag: None,
                modified: None,
                ranges: false,
                failures: 0,
            };
            reader.request()?;
            Ok(reader)
        }

        /// Size in bytes, when the server said it.
        pub fn size(&self) -> Option<u64> {
            self.size
        }

        fn request(&mut self) -> io::Result<()> {
            let first = self.position == 0;
            let mut request = self.agent.get(&self.url);
            if !first {
                request = request.header("Range", format!("bytes={}-", self.position));
                if let Some(validator) = self.etag.as_ref().or(self.modified.as_ref()) {
                    request = request.header("If-Range", validator);
                }
            }
            let response = request.call().map_err(io_error)?;
            let (status, headers) = (response.status(), response.headers());
            let length = header(headers, "content-length").and_then(|n| n.parse::<u64>().ok());
            if first {
                if status != StatusCode::OK {
                    return Err(status_error(status));
                }
                if let Some(encoding) = header(headers, "content-encoding")
                    && !encoding.eq_ignore_ascii_case("identity")
                {
                    return Err(io::Error::other(format!(
                        "the server sends it in the transfer encoding {encoding:?}, which was not asked for"
                    )));
                }
                self.size = length;
                self.ranges = header(headers, "accept-ranges") == Some("bytes");
                self.etag =
                    header(headers, "etag").filter(|etag| etag.starts_with('"')).map(str::to_owned);
                self.modified = header(headers, "last-modified").map(str::to_owned);
            } else {
                let range = header(headers, "content-range").and_then(content_range);
                let same_etag = match (&self.etag, header(headers, "etag")) {
                    (Some(old), Some(new)) => old == new,
                    _ => true,
                };
                match (status, range) {
                    (StatusCode::PARTIAL_CONTENT, Some((start, total)))
                        if start == self.position
                            && same_etag
                            && (total.is_none() || self.size.is_none() || total == self.size) => {}
                    (StatusCode::PARTIAL_CONTENT | StatusCode::OK, _) => {
                        return Err(permanent(
                            "the connection broke and the file on the server is not the same any more, \
                             or the server cannot continue where it broke",
                        ));
                    }
                    (status, _) if status.is_client_error() => {
                        return Err(permanent(status_error(status).to_string().as_str()));
                    }
                    (status, _) => return Err(status_error(status)),
                }
            }
            self.body = Some(response.into_body().into_reader());
            Ok(())
        }

        /// A connection broke: the next read tries again, or this is the end.
        fn broken(&mut self, error: io::Error) -> io::Result<()> {
            self.body = None;
            self.failures += 1;
            if is_permanent(&error) || !self.ranges || self.failures > TRIES {
                return Err(error);
            }
            log::warning(&format!(
                "the connection to the image's server broke at byte {} ({error}); trying again",
                self.position
            ));
            std::thread::sleep(Duration::from_millis(200 << self.failures.min(5)));
            Ok(())
        }
    }

    impl Read for HttpReader {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if buf.is_empty() {
                return Ok(0);
            }
            loop {
                if self.size == Some(self.position) {
                    return Ok(0);
                }
                let Some(body) = &mut self.body else {
                    if let Err(error) = self.request() {
                        self.broken(error)?;
                    }
                    continue;
                };
                // More than was announced is the next answer's business, not ours.
                let room = self.size.map_or(u64::MAX, |size| size - self.position);
                let wanted = buf.len().min(usize::try_from(room).unwrap_or(usize::MAX));
                match body.read(&mut buf[..wanted]) {
                    Ok(0) if self.size.is_none() => return Ok(0),
                    Ok(0) => self.broken(io::ErrorKind::UnexpectedEof.into())?,
                    Ok(n) => {
                        self.position += n as u64;
                        self.failures = 0;
                        return Ok(n);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => self.broken(error)?,
                }
            }
        }
    }

    /// `bytes 10-99/100`: where it begins, and how large the whole is.
    fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let start = range.split_once('-')?.0.trim().parse().ok()?;
        Some((start, total.trim().parse().ok()))
    }

    /// Marks an error that trying again does not mend.
    #[derive(Debug, thiserror::Error)]
    enum Permanent {
        #[error("{0}")]
        Text(String),
        #[error(transparent)]
        Refused(Refusal),
    }

    impl From<Refusal> for Permanent {
        fn from(refusal: Refusal) -> Self {
            Self::Refused(refusal)
        }
    }

    impl From<&str> for Permanent {
        fn from(text: &str) -> Self {
            Self::Text(text.to_owned())
        }
    }

    fn permanent(why: impl Into<Permanent>) -> io::Error {
        io::Error::other(why.into())
    }

    fn is_permanent(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Permanent>())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn ranges() {
            assert_eq!(content_range("bytes 10-99/100"), Some((10, Some(100))));
            assert_eq!(content_range("bytes 10-99/*"), Some((10, None)));
            assert_eq!(content_range("bytes */100"), None);
            assert_eq!(content_range("lines 1-2/3"), None);
        }
    }
}
