//! Images of other makers (vmdk, vhdx, vhd, vdi), which QEMU's storage daemon reads: for a person who
//! deploys an image of their own, and never for a tenant of a node.

use std::fs::File;
use std::io;

use snf_fs::BlockDevice;
use snf_storage::foreign::{self, Foreign, ForeignDisk};

use super::{ImageReader, Part, SourceError};
use crate::node::cancel::Cancel;

/// An open image.
pub struct ForeignImage {
    disk: ForeignDisk,
    /// The daemon has a lock of QEMU's kind, and this one ours.
    _file: File,
    name: String,
    position: u64,
}

impl ForeignImage {
    /// Opens the image in a file; `name` is for messages.
    ///
    /// # Errors
    ///
    /// The image is damaged or needs other files, or the storage daemon is not installed.
    pub fn new(
        file: File,
        format: Foreign,
        name: &str,
        cancel: &Cancel,
    ) -> Result<Self, SourceError> {
        let cancel = cancel.clone();
        let stop = move || cancel.check().map_err(io::Error::other);
        let disk = foreign::open(&file, format, false, stop)
            .map_err(|source| SourceError::Foreign { name: name.to_owned(), source })?;
        Ok(Self { disk, _file: file, name: name.to_owned(), position: 0 })
    }
}

impl ImageReader for ForeignImage {
    fn size(&self) -> Option<u64> {
        Some(self.disk.len())
    }

    fn next(&mut self, buf: &mut [u8]) -> Result<Part, SourceError> {
        let left = self.disk.len().saturating_sub(self.position);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        if length == 0 {
            return Ok(Part::End);
        }
        self.disk.read_at(self.position, &mut buf[..length]).map_err(|error| SourceError::Io {
            name: self.name.clone(),
            offset: Some(self.position),
            source: error.source,
        })?;
        self.position += length as u64;
        Ok(Part::Data(length))
    }
}

#[cfg(test)]
mod tests {
    use crate::image::source::id::ImageId;
    use crate::image::source::open;
    use crate::node::cancel::Cancel;
    use crate::node::config::Config;

    /// The daemon never sees an image that a tenant has chosen.
    #[test]
    fn tenants_do_not_deploy_them() {
        let image: ImageId = "file:///nowhere/x.vmdk".parse().unwrap();
        let said = |config: &Config| match open(&image, config, None, &Cancel::new()) {
            Ok(_) => panic!("it was opened"),
            Err(error) => error.to_string(),
        };
        let refused = said(&Config::default());
        assert!(refused.contains("vmdk images are not deployed to instances"), "{refused}");
        // A person gets as far as the file, which is not there.
        let own =
            Config { for_a_person: true, image_files: "/".parse().unwrap(), ..Config::default() };
        assert!(!said(&own).contains("not deployed to instances"));
    }
}
