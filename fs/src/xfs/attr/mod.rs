//! Extended attributes: in the inode, in leaves, or with values in blocks of their own.
//!
//! Writing makes all attributes of an inode anew, in blocks that were free: the log then only has the
//! inode.

mod acl;
mod leaf;
mod store;

use super::da::Place;
use super::inode::{Fork, Format, Inode};
use super::volume::Volume;
use crate::error::{Error, Result, display_name};
use crate::ext::xattr::acl::Acl;

/// Bits of an attribute's flags.
mod flag {
    pub(super) const LOCAL: u8 = 0x01;
    pub(super) const ROOT: u8 = 0x02;
    pub(super) const SECURE: u8 = 0x04;
    pub(super) const PARENT: u8 = 0x08;
    pub(super) const INCOMPLETE: u8 = 0x80;
    /// Of what the names of two attributes must differ in, too.
    pub(super) const SPACE: u8 = ROOT | SECURE;
}

/// Names of ACLs among the attributes of root.
const ACL_ACCESS: &[u8] = b"SGI_ACL_FILE";
const ACL_DEFAULT: &[u8] = b"SGI_ACL_DEFAULT";
const VALUE_ACCESS: &[u8] = b"system.posix_acl_access";
const VALUE_DEFAULT: &[u8] = b"system.posix_acl_default";
/// The largest value.
const MOST_VALUE: usize = 65_536;
/// The most bytes of all attributes of one inode that are held in memory.
const MOST_BYTES: usize = 16 << 20;

/// An attribute as it is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attr {
    /// `ROOT`, `SECURE` or neither.
    space: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// Space and name on disk of a full name.
fn split(full: &[u8]) -> Result<(u8, &[u8])> {
    if full == VALUE_ACCESS {
        return Ok((flag::ROOT, ACL_ACCESS));
    }
    if full == VALUE_DEFAULT {
        return Ok((flag::ROOT, ACL_DEFAULT));
    }
    let spaces: [(u8, &[u8]); 3] =
        [(0, b"user."), (flag::ROOT, b"trusted."), (flag::SECURE, b"security.")];
    for (space, prefix) in spaces {
        let Some(rest) = full.strip_prefix(prefix) else { continue };
        if rest.is_empty() || rest.contains(&0) {
            return Err(Error::Invalid(format!(
                "extended attribute `{}`: there is no name after the prefix",
                display_name(full)
            )));
        }
        if rest.len() > 255 {
            return Err(Error::NameTooLong(display_name(full)));
        }
        return Ok((space, rest));
    }
    Err(Error::Invalid(format!(
        "extended attribute `{}`: its name must begin with user., trusted. or security., or be \
         system.posix_acl_access or system.posix_acl_default",
        display_name(full)
    )))
}

impl Volume {
    fn attr_place<'a>(&self, inode: &'a Inode, offset: u64) -> Place<'a> {
        Place { inode, fork: Fork::Attr, offset, count: 1 }
    }

    /// All attributes as they are on disk, parent pointers and unfinished ones left out.
    fn attrs(&self, inode: &Inode) -> Result<Vec<Attr>> {
        if !inode.has_fork(Fork::Attr) {
            return Ok(Vec::new());
        }
        if inode.format(Fork::Attr)? == Format::Local {
            return leaf::parse_short(inode);
        }
        if inode.extent_count(Fork::Attr) == 0 {
            return Ok(Vec::new());
        }
        let (leaves, _) = self.da_blocks(self.attr_place(inode, 0))?;
        let mut attrs = Vec::new();
        let mut bytes = 0;
        for offset in leaves {
            self.attr_leaf(inode, offset, &mut attrs, &mut bytes)?;
        }
        Ok(attrs)
    }

    /// All attributes by their full names.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`].
    pub(super) fn xattrs(&self, inode: &Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut list = Vec::new();
        for attr in self.attrs(inode)? {
            let acl = match (attr.space, &attr.name[..]) {
                (flag::ROOT, ACL_ACCESS) => Some(VALUE_ACCESS),
                (flag::ROOT, ACL_DEFAULT) => Some(VALUE_DEFAULT),
                _ => None,
            };
            if let Some(full) = acl {
                let value = acl::to_value(&attr.value).ok_or_else(|| {
                    Error::corrupt(
                        "ACL",
                        format!("inode {}", inode.ino),
                        "its length is impossible",
                    )
                })?;
                list.push((full.to_vec(), value));
                continue;
            }
            let prefix: &[u8] = match attr.space {
                0 => b"user.",
                flag::ROOT => b"trusted.",
                flag::SECURE => b"security.",
                _ => continue,
            };
            list.push(([prefix, &attr.name].concat(), attr.value));
        }
        Ok(list)
    }

    /// Sets or removes an attribute. The inode is the caller's to write.
    ///
    /// # Errors
    /// [`Error::Invalid`] for names and values that cannot be, [`Error::NoSpace`], and what reading
    /// gives.
    pub(super) fn set_xattr(
        &mut self,
        inode: &mut Inode,
        full: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        let (space, name) = split(full)?;
        let mut value = value.map(<[u8]>::to_vec);
        if let (Some(bytes), VALUE_ACCESS | VALUE_DEFAULT) = (&value, full) {
            let acl = Acl::from_value(bytes)?;
            if full == VALUE_ACCESS && !acl.is_empty() {
                let mode = inode.core.di_mode.get() & !0o777 | acl.mode();
                inode.core.di_mode.set(mode);
            }
            if full == VALUE_DEFAULT && !inode.is_dir() {
                return Err(Error::Invalid("only directories have a default ACL".into()));
            }
            // One that says no more than the mode is not kept.
            let same_as_mode = full == VALUE_ACCESS && acl.is_mode_only();
            let kept = !acl.is_empty() && !same_as_mode;
            value = kept.then(|| acl::to_disk(&acl.to_value()));
        }
        if value.as_ref().is_some_and(|value| value.len() > MOST_VALUE) {
            return Err(Error::Invalid(format!(
                "extended attribute `{}`: its value is larger than 64 KiB",
                display_name(full)
            )));
        }
        let mut attrs = self.attrs(inode)?;
        let at = attrs.iter().position(|attr| attr.space == space && attr.name == name);
        match (at, value) {
            (Some(at), Some(value)) if attrs[at].value == value => return Ok(()),
            (Some(at), Some(value)) => attrs[at].value = value,
            (Some(at), None) => {
                attrs.remove(at);
            }
            (None, Some(value)) => attrs.push(Attr { space, name: name.to_vec(), value }),
            (None, None) => return Ok(()),
        }
        self.store_attrs(inode, attrs)
    }

    /// An ACL of an inode, in the form of `getxattr(2)`.
    fn acl(&self, inode: &Inode, full: &[u8]) -> Result<Option<Acl>> {
        let list = self.xattrs(inode)?;
        let value = list.iter().find(|(name, _)| name == full);
        value.map(|(_, value)| Acl::from_value(value)).transpose()
    }

    /// Lets an access ACL follow the mode, as `chmod(2)` does.
    pub(super) fn acl_follow_mode(&mut self, inode: &mut Inode) -> Result<()> {
        if let Some(mut acl) = self.acl(inode, VALUE_ACCESS)? {
            acl.set_mode(inode.core.di_mode.get());
            self.set_xattr(inode, VALUE_ACCESS, Some(&acl.to_value()))?;
        }
        Ok(())
    }

    /// Gives a new inode what the default ACL of its directory says.
    pub(super) fn acl_inherit(&mut self, dir: &Inode, inode: &mut Inode) -> Result<()> {
        let Some(mut acl) = self.acl(dir, VALUE_DEFAULT)? else { return Ok(()) };
        if inode.is_dir() {
            self.set_xattr(inode, VALUE_DEFAULT, Some(&acl.to_value()))?;
        }
        acl.set_mode(inode.core.di_mode.get());
        self.set_xattr(inode, VALUE_ACCESS, Some(&acl.to_value()))
    }

    /// Gives the blocks of all attributes back.
    pub(super) fn drop_attrs(&mut self, inode: &mut Inode) -> Result<()> {
        if !inode.has_fork(Fork::Attr) {
            return Ok(());
        }
        if inode.format(Fork::Attr)? != Format::Local {
            for extent in self.extents(inode, Fork::Attr)? {
                self.free_extent(inode.ino, Fork::Attr, &extent);
            }
            self.set_extents(inode, Fork::Attr, &[])?;
        }
        inode.set_fork(Fork::Attr, &[]);
        inode.set_format(Fork::Attr, Format::Extents);
        Ok(())
    }
}
