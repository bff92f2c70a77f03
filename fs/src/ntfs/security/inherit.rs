//! The rights that a new file or directory inherits from its directory.

use super::descriptor::{
    Ace, Acl, DACL_AUTO_INHERITED, DACL_PRESENT, Descriptor, SACL_AUTO_INHERITED, SACL_PRESENT,
    SELF_RELATIVE, Sid,
};

/// OBJECT_INHERIT_ACE: files get it.
const OBJECT: u8 = 0x01;
/// CONTAINER_INHERIT_ACE: directories get it.
const CONTAINER: u8 = 0x02;
/// NO_PROPAGATE_INHERIT_ACE: those that get it do not pass it on.
const NO_PROPAGATE: u8 = 0x04;
/// INHERIT_ONLY_ACE: it says nothing about the directory itself.
const INHERIT_ONLY: u8 = 0x08;
/// INHERITED_ACE.
const INHERITED: u8 = 0x10;
const INHERITANCE: u8 = OBJECT | CONTAINER | NO_PROPAGATE | INHERIT_ONLY;

/// FILE_ALL_ACCESS.
pub const FILE_ALL_ACCESS: u32 = 0x001f_01ff;
/// The rights of a file that each generic one stands for: GENERIC_READ, _WRITE, _EXECUTE and _ALL.
const GENERIC: [(u32, u32); 4] = [
    (0x8000_0000, 0x0012_0089),
    (0x4000_0000, 0x0012_0116),
    (0x2000_0000, 0x0012_00a0),
    (0x1000_0000, FILE_ALL_ACCESS),
];

/// The descriptor of a file (or directory) that the local system makes in a directory with the
/// descriptor `parent`: the owner is the group Administrators, as for all that the system and
/// administrators make; what the parent passes on is passed on, and where it passes on nothing, the
/// system and the administrators may do all.
pub fn inherit(parent: &Descriptor, is_directory: bool) -> Descriptor {
    let (owner, group) = (Sid::administrators(), Sid::system());
    let mut control = SELF_RELATIVE | DACL_PRESENT;
    let mut dacl = from_list(parent.dacl.as_ref(), is_directory, &owner, &group);
    match &dacl {
        Some(_) => control |= DACL_AUTO_INHERITED,
        None => {
            let full = |sid: &Sid| Ace::new(0, 0, FILE_ALL_ACCESS, sid);
            dacl = Some(Acl { revision: 2, aces: vec![full(&group), full(&owner)] });
        }
    }
    let sacl = from_list(parent.sacl.as_ref(), is_directory, &owner, &group);
    if sacl.is_some() {
        control |= SACL_PRESENT | SACL_AUTO_INHERITED;
    }
    Descriptor { control, owner: Some(owner), group: Some(group), sacl, dacl }
}

fn from_list(list: Option<&Acl>, is_directory: bool, owner: &Sid, group: &Sid) -> Option<Acl> {
    let list = list?;
    let mut aces = Vec::new();
    for ace in &list.aces {
        if is_directory {
            to_directory(ace, owner, group, &mut aces);
        } else if ace.flags & OBJECT != 0 {
            aces.push(effective(ace, owner, group));
        }
    }
    (!aces.is_empty()).then_some(Acl { revision: list.revision, aces })
}

fn to_directory(ace: &Ace, owner: &Sid, group: &Sid, out: &mut Vec<Ace>) {
    let passes_on = ace.flags & NO_PROPAGATE == 0;
    if ace.flags & CONTAINER == 0 {
        // For files only, which may be made in the new directory.
        if ace.flags & OBJECT != 0 && passes_on {
            let flags = ace.flags & !INHERITANCE | OBJECT | INHERIT_ONLY | INHERITED;
            out.push(Ace { flags, ..ace.clone() });
        }
        return;
    }
    let own = effective(ace, owner, group);
    if !passes_on {
        out.push(own);
        return;
    }
    let keep = ace.flags & (OBJECT | CONTAINER);
    if own.body == ace.body {
        out.push(Ace { flags: own.flags | keep, ..own });
    } else {
        // Its meaning here, and its old form for those below.
        let flags = own.flags | keep | INHERIT_ONLY;
        out.push(own);
        out.push(Ace { flags, ..ace.clone() });
    }
}

/// The entry as it applies to the new file: generic rights and the creator made concrete.
fn effective(ace: &Ace, owner: &Sid, group: &Sid) -> Ace {
    let flags = ace.flags & !INHERITANCE | INHERITED;
    let ace = Ace { flags, ..ace.clone() };
    let Some(sid) = ace.sid() else { return ace };
    let mask = GENERIC.iter().fold(ace.mask(), |mask, (generic, rights)| {
        if mask & generic != 0 { mask & !generic | rights } else { mask }
    });
    let ace = ace.with_mask(mask);
    if sid == Sid::creator_owner() {
        ace.with_sid(owner)
    } else if sid == Sid::creator_group() {
        ace.with_sid(group)
    } else {
        ace
    }
}
