//! Names that a guest has for a logical volume.

use super::Id;

/// The name of the device-mapper device: `GROUP-VOLUME`, with every hyphen inside a name doubled.
pub fn dm_name(group: &str, volume: &str) -> String {
    format!("{}-{}", group.replace('-', "--"), volume.replace('-', "--"))
}

/// The UUID of the device-mapper device: `LVM-`, the group's and the volume's identifiers.
pub fn dm_uuid(group: &Id, volume: &Id) -> String {
    format!("LVM-{}{}", group.undashed(), volume.undashed())
}

/// Every path that names the volume in a guest, the usual one first.
pub fn guest_paths(group: (&str, &Id), volume: (&str, &Id)) -> [String; 4] {
    let name = dm_name(group.0, volume.0);
    [
        format!("/dev/mapper/{name}"),
        format!("/dev/{}/{}", group.0, volume.0),
        format!("/dev/disk/by-id/dm-name-{name}"),
        format!("/dev/disk/by-id/dm-uuid-{}", dm_uuid(group.1, volume.1)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyphens_are_doubled() {
        assert_eq!(dm_name("rl", "root"), "rl-root");
        assert_eq!(dm_name("ubuntu-vg", "ubuntu-lv"), "ubuntu--vg-ubuntu--lv");
        assert_eq!(dm_name("a-", "-b"), "a-----b");
    }

    #[test]
    fn paths() {
        let id = Id::parse(&"a".repeat(32)).unwrap();
        let paths = guest_paths(("rl", &id), ("root", &id));
        assert_eq!(paths[0], "/dev/mapper/rl-root");
        assert_eq!(paths[1], "/dev/rl/root");
        assert_eq!(paths[3], format!("/dev/disk/by-id/dm-uuid-LVM-{}", "a".repeat(64)));
    }
}
