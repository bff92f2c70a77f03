//! The disks in a domain's document (libvirt's formatdomain, "Hard drives, floppy disks, CDROMs").

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// A domain has at most so many disks.
const DISKS_MAX: usize = 256;
/// Elements lie in one another at most so deep.
const DEPTH_MAX: usize = 64;

/// The place of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Source {
    /// A file or block device.
    Path(String),
    /// A volume of a storage pool.
    Volume {
        /// The name of the pool.
        pool: String,
        /// The name of the volume in it.
        volume: String,
    },
    /// A place of this type, which is no path.
    Elsewhere(String),
    /// An empty drive.
    #[default]
    Nothing,
}

/// A disk of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskEntry {
    /// Its name in the domain (`vda`).
    pub(super) target: String,
    /// The format, as QEMU names it.
    pub(super) format: Option<String>,
    pub(super) source: Source,
    pub(super) read_only: bool,
    /// Whether libvirt has a key for it.
    pub(super) encrypted: bool,
    /// Whether it is a part of a file.
    pub(super) sliced: bool,
    kind: String,
    device: String,
}

impl DiskEntry {
    fn new(element: &BytesStart<'_>) -> Result<Self, String> {
        Ok(Self {
            kind: attribute(element, "type")?.unwrap_or_else(|| "file".to_owned()),
            device: attribute(element, "device")?.unwrap_or_else(|| "disk".to_owned()),
            ..Self::default()
        })
    }

    /// Takes an element that lies in the disk's; `inner` is whether it lies in the source.
    fn take(&mut self, element: &BytesStart<'_>, name: &str, inner: bool) -> Result<(), String> {
        match (name, inner) {
            ("encryption", _) => self.encrypted = true,
            ("slices", true) => self.sliced = true,
            ("readonly", false) => self.read_only = true,
            ("driver", false) => self.format = attribute(element, "type")?,
            ("target", false) => self.target = attribute(element, "dev")?.unwrap_or_default(),
            ("source", false) => self.source = self.source_of(element)?,
            _ => {}
        }
        Ok(())
    }

    fn source_of(&self, element: &BytesStart<'_>) -> Result<Source, String> {
        let path =
            |name| Ok::<_, String>(attribute(element, name)?.map_or(Source::Nothing, Source::Path));
        match self.kind.as_str() {
            "file" => path("file"),
            "block" => path("dev"),
            "volume" => {
                let (pool, volume) = (attribute(element, "pool")?, attribute(element, "volume")?);
                Ok(match (pool, volume) {
                    (Some(pool), Some(volume)) => Source::Volume { pool, volume },
                    _ => Source::Nothing,
                })
            }
            "network" => {
                let protocol = attribute(element, "protocol")?.unwrap_or_default();
                Ok(Source::Elsewhere(format!("network ({protocol})")))
            }
            other => Ok(Source::Elsewhere(other.to_owned())),
        }
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    for found in element.attributes() {
        let found = found.map_err(|error| error.to_string())?;
        if found.key.as_ref() == name {
            let text = quick_xml::escape::unescape(&found.value);
            return Ok(Some(text.map_err(|error| error.to_string())?.into_owned()));
        }
    }
    Ok(None)
}

/// The hard disks of a domain, in the order of the document. The error says what is wrong with it.
pub(super) fn disks(document: &str) -> Result<Vec<DiskEntry>, String> {
    let mut reader = Reader::from_str(document);
    let mut above: Vec<String> = Vec::new();
    let mut disks = Vec::new();
    let mut open: Option<DiskEntry> = None;
    loop {
        let event = reader.read_event().map_err(|error| error.to_string())?;
        let (element, empty) = match &event {
            Event::Start(element) => (element, false),
            Event::Empty(element) => (element, true),
            Event::End(_) => {
                if above.len() == 3
                    && let Some(disk) = open.take()
                {
                    disks.push(disk);
                }
                above.pop();
                continue;
            }
            Event::Eof if above.is_empty() => break,
            Event::Eof => return Err("it ends in the middle".to_owned()),
            _ => continue,
        };
        let name = element.name().as_ref().to_owned();
        let path: Vec<&str> = above.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["domain", "devices"] if name == "disk" => {
                if disks.len() >= DISKS_MAX {
                    return Err(format!("it has more than {DISKS_MAX} disks"));
                }
                let disk = DiskEntry::new(element)?;
                match empty {
                    true => disks.push(disk),
                    false => open = Some(disk),
                }
            }
            ["domain", "devices", "disk"] => {
                if let Some(disk) = &mut open {
                    disk.take(element, &name, false)?;
                }
            }
            ["domain", "devices", "disk", "source"] => {
                if let Some(disk) = &mut open {
                    disk.take(element, &name, true)?;
                }
            }
            [] if name != "domain" => return Err(format!("it is a <{name}> and no <domain>")),
            _ => {}
        }
        if !empty {
            if above.len() >= DEPTH_MAX {
                return Err(format!("it has more than {DEPTH_MAX} levels"));
            }
            above.push(name);
        }
    }
    // CDs, floppy disks and passed-through LUNs of SCSI are none of the guest's disks.
    disks.retain(|disk: &DiskEntry| disk.device == "disk");
    Ok(disks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_of_every_kind() {
        let document = "<?xml version='1.0'?><domain type='kvm'><name>w</name><devices>
            <disk type='file' device='cdrom'><target dev='sda'/><readonly/></disk>
            <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
              <source file='/srv/a&amp;b.qcow2' index='1'/><backingStore type='file'>
              <format type='raw'/><source file='/srv/base'/></backingStore><target dev='vda'/></disk>
            <disk type='block'><source dev='/dev/vg/x'/><target dev='vdb'/><readonly/></disk>
            <disk type='network' device='disk'><source protocol='rbd' name='p/i'/><target dev='vdc'/></disk>
            <disk type='volume'><source pool='p' volume='v'/><target dev='vdd'/></disk>
            <disk type='file'><source file='/srv/e'><encryption format='luks'/><slices><slice/></slices></source>
              <target dev='vde'/></disk>
            </devices></domain>";
        let found = disks(document).unwrap();
        assert_eq!(found.len(), 5, "{found:?}");
        let targets: Vec<_> = found.iter().map(|disk| disk.target.as_str()).collect();
        assert_eq!(targets, ["vda", "vdb", "vdc", "vdd", "vde"]);
        assert_eq!(found[0].source, Source::Path("/srv/a&b.qcow2".to_owned()));
        assert_eq!(found[0].format.as_deref(), Some("qcow2"));
        assert_eq!(found[1].source, Source::Path("/dev/vg/x".to_owned()));
        assert!(found[1].read_only && found[1].format.is_none());
        assert_eq!(found[2].source, Source::Elsewhere("network (rbd)".to_owned()));
        let volume = Source::Volume { pool: "p".to_owned(), volume: "v".to_owned() };
        assert_eq!(found[3].source, volume);
        assert!(found[4].encrypted && found[4].sliced);
    }

    #[test]
    fn documents_that_are_none() {
        for (document, part) in [
            ("<domain>", "ends in the middle"),
            ("<network/>", "no <domain>"),
            (&"<domain>".repeat(65), "levels"),
            ("<domain></devices>", ""),
        ] {
            assert!(disks(document).unwrap_err().contains(part), "{document}");
        }
    }
}
