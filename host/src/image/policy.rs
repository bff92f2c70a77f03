//! The rules for a tenant's URLs, for every fetch: images, `config_url`, `os_answer_file`.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::backend::{BackendError, Backends, Kind, Settings};
pub use crate::image::error::Refusal;
use crate::image::error::SourceError;
use crate::image::local;
use crate::node::address;
use crate::node::allow::{Files, Hosts, Request};
use crate::node::config::Config;

/// The places that may be fetched from, and the time it may take.
#[derive(Clone, Debug)]
pub struct Policy {
    files: Files,
    hosts: Hosts,
    file_disabled: bool,
    network_disabled: bool,
    /// All of a small text has to be here after this long.
    pub patience: Duration,
    /// Fewest bytes a second of an image.
    pub min_rate: u64,
    /// The most time that is spent waiting for all of an image.
    pub image_patience: Duration,
}

impl Policy {
    /// The policy of the configuration and of the `.disabled` files among the back-ends.
    ///
    /// # Errors
    ///
    /// The folder of the back-ends cannot be read.
    pub fn of(config: &Config) -> Result<Self, BackendError> {
        let backends = Backends::read(&Settings::of(config), Kind::Source)?;
        Ok(Self {
            files: config.image_files.clone(),
            hosts: config.image_hosts.clone(),
            file_disabled: backends.disabled.contains("file"),
            network_disabled: backends.disabled.contains("network"),
            patience: config.fetch_timeout,
            min_rate: config.fetch_min_rate,
            image_patience: config.fetch_image_timeout,
        })
    }

    /// Opens a file that a URL names, beneath a place that IMAGE_FILES lists. The kernel refuses
    /// every way out of that place, symbolic links included.
    ///
    /// # Errors
    ///
    /// [`Refusal`] as the source of an I/O error, or what the system said.
    pub fn open_file(&self, path: &Path) -> Result<File, SourceError> {
        let refused = |refusal: Refusal| SourceError::Refused(refusal);
        if self.file_disabled {
            return Err(refused(Refusal::Disabled("file")));
        }
        let Some((place, rest)) = self.files.find(path) else {
            return Err(refused(Refusal::File(path.to_owned())));
        };
        // The place itself is the admin's choice, and of all files all are.
        match rest.to_str().filter(|rest| !rest.is_empty() && place != Path::new("/")) {
            Some(rest) => local::open_below(place, rest, "the place that IMAGE_FILES lists"),
            None => local::open_file_url(path),
        }
    }

    /// Whether anything may be asked of the network at all.
    ///
    /// # Errors
    ///
    /// The back-end `network` is disabled.
    pub fn check_network(&self) -> Result<(), Refusal> {
        match self.network_disabled {
            true => Err(Refusal::Disabled("network")),
            false => Ok(()),
        }
    }

    /// The addresses of a host that may be connected to. A connection must use these, and not
    /// look the name up again.
    ///
    /// # Errors
    ///
    /// None of them may be, or the network is disabled.
    pub fn check(
        &self,
        request: Request<'_>,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, Refusal> {
        self.check_network()?;
        let mut good = Vec::new();
        let mut bad = None;
        for socket in addresses {
            let address = socket.ip();
            let own = || address::is_own(address).then_some("node's own");
            match address::special(address).or_else(own) {
                Some(kind) if !self.hosts.allow(request, address) => {
                    bad = Some(Refusal::Address { host: request.host.to_owned(), address, kind });
                }
                _ => good.push(socket),
            }
        }
        match bad {
            Some(bad) if good.is_empty() => Err(bad),
            _ => Ok(good),
        }
    }
}

/// A refusal as an I/O error that trying again does not mend.
pub(crate) fn refused(refusal: Refusal) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, refusal)
}
