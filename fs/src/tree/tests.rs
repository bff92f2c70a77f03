use super::*;
use crate::filesystem::{Attributes, NodeId};
use crate::memory::MemoryFs;

const DIR: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };
const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

fn tree() -> Tree {
    let mut tree = Tree::new(Box::new(MemoryFs::new()));
    for dir in ["/etc", "/root", "/usr", "/dev", "/srv"] {
        tree.mkdir(dir, DIR).unwrap();
    }
    tree.write("/etc/passwd", b"root:x:0:0\n", FILE).unwrap();
    tree
}

fn text(tree: &Tree, path: &str) -> String {
    String::from_utf8(tree.read(path, 1 << 20).unwrap()).unwrap()
}

#[test]
fn links_stay_inside() {
    let mut tree = tree();
    tree.symlink("/up", b"../../../../../../etc/passwd", FILE).unwrap();
    tree.symlink("/abs", b"/etc", FILE).unwrap();
    tree.symlink("/srv/rel", b"../etc/../abs", FILE).unwrap();
    assert_eq!(text(&tree, "/up"), "root:x:0:0\n");
    assert_eq!(text(&tree, "/srv/rel/passwd"), "root:x:0:0\n");
    assert_eq!(text(&tree, "/../..//./abs/passwd"), "root:x:0:0\n");
    tree.write("/srv/rel/new", b"x", FILE).unwrap();
    assert_eq!(tree.changes().get("/etc/new"), Some(ChangeKind::Created));
    assert_eq!(tree.resolve("/srv/rel/new").unwrap().path, b"/etc/new");
}

#[test]
fn loops_and_lengths_end() {
    let mut tree = tree();
    tree.symlink("/a", b"b", FILE).unwrap();
    tree.symlink("/b", b"/a", FILE).unwrap();
    tree.symlink("/self", b"/../../../../self", FILE).unwrap();
    for path in ["/a", "/a/x", "/self/passwd"] {
        assert!(matches!(tree.read(path, 10), Err(Error::SymlinkLoop(_))), "{path}");
    }
    assert!(tree.lstat("/a").is_ok());
    assert!(matches!(tree.lstat("/a/"), Err(Error::SymlinkLoop(_))));
    let long = format!("/{}", "x/".repeat(2048));
    assert!(matches!(tree.stat(&long), Err(Error::NameTooLong(_))));
    let name = format!("/{}", "x".repeat(256));
    assert!(matches!(tree.stat(&name), Err(Error::NameTooLong(_))));
    for bad in ["", "etc", "/a\0b"] {
        assert!(matches!(tree.stat(bad), Err(Error::Invalid(_))), "{bad:?}");
    }
    // Forty links are followed, one more is not.
    tree.write("/l0", b"end", FILE).unwrap();
    for n in 1..=41 {
        tree.symlink(format!("/l{n}"), format!("l{}", n - 1).as_bytes(), FILE).unwrap();
    }
    assert_eq!(text(&tree, "/l40"), "end");
    assert!(matches!(tree.stat("/l41"), Err(Error::SymlinkLoop(_))));
}

#[test]
fn ends_of_paths() {
    let mut tree = tree();
    tree.symlink("/dir", b"etc/", FILE).unwrap();
    tree.symlink("/file", b"etc/passwd/", FILE).unwrap();
    tree.symlink("/dangling", b"/srv/made", FILE).unwrap();
    assert_eq!(tree.lstat("/dir").unwrap().file_type, FileType::Symlink);
    assert_eq!(tree.lstat("/dir/").unwrap().file_type, FileType::Directory);
    assert!(matches!(tree.stat("/etc/passwd/"), Err(Error::NotADirectory(_))));
    assert!(matches!(tree.stat("/etc/passwd/."), Err(Error::NotADirectory(_))));
    assert!(matches!(tree.stat("/file"), Err(Error::NotADirectory(_))));
    assert!(matches!(tree.write("/etc/new/", b"", FILE), Err(Error::IsADirectory(_))));
    assert!(matches!(tree.write("/etc", b"", FILE), Err(Error::IsADirectory(_))));
    assert!(!tree.exists("/dangling").unwrap());
    assert_eq!(tree.write("/dangling", b"x", FILE).unwrap(), Written::Created);
    assert_eq!(text(&tree, "/srv/made"), "x");
    let error = tree.read("/dir/none", 10).unwrap_err().to_string();
    assert_eq!(error, "/dir/none (which is /etc/none): no such file or directory");
    let error = tree.stat("/etc/passwd/x").unwrap_err().to_string();
    assert_eq!(error, "/etc/passwd: not a directory");
    assert!(matches!(tree.stat("/none/../etc"), Err(Error::NotFound(_))));
}

#[test]
fn replaced_files_keep_what_they_are() {
    let mut tree = tree();
    tree.write("/etc/shadow", b"old", Attributes { mode: 0o640, uid: 0, gid: 42 }).unwrap();
    tree.set_xattr("/etc/shadow", b"security.selinux", Some(b"shadow_t\0")).unwrap();
    let before = tree.stat("/etc/shadow").unwrap();
    tree.commit().unwrap();
    assert_eq!(tree.write("/etc/shadow", b"new", FILE).unwrap(), Written::Replaced);
    assert_eq!(tree.write("/etc/shadow", b"new", FILE).unwrap(), Written::Unchanged);
    let after = tree.stat("/etc/shadow").unwrap();
    assert_eq!((after.node, after.mode, after.uid, after.gid), (before.node, 0o640, 0, 42));
    let label = tree.xattr("/etc/shadow", b"security.selinux").unwrap();
    assert_eq!(label.as_deref(), Some(&b"shadow_t\0"[..]));
    assert!(matches!(tree.read("/etc/shadow", 2), Err(Error::Invalid(_))));
}

#[test]
fn mounts_are_crossed_both_ways() {
    let mut tree = tree();
    tree.mkdir("/var", DIR).unwrap();
    tree.write("/var/hidden", b"", FILE).unwrap();
    tree.mount("/var", Box::new(MemoryFs::new()), None).unwrap();
    tree.mkdir("/var/log", DIR).unwrap();
    tree.mount("/var/log", Box::new(MemoryFs::new()), Some("it is a snapshot".into())).unwrap();
    assert!(!tree.exists("/var/hidden").unwrap());
    assert_eq!(text(&tree, "/var/log/../../etc/passwd"), "root:x:0:0\n");
    tree.symlink("/var/etc", b"/etc", FILE).unwrap();
    assert!(tree.exists("/var/etc/passwd").unwrap());
    let error = tree.write("/var/log/x", b"", FILE).unwrap_err().to_string();
    assert_eq!(error, "the file system is read-only: /var/log/x: it is a snapshot");
    assert!(matches!(tree.rename("/etc/passwd", "/var/p"), Err(Error::Invalid(_))));
    assert!(matches!(tree.rmdir("/var"), Err(Error::Invalid(_))));
    assert!(matches!(tree.rmdir("/"), Err(Error::Invalid(_))));
    assert!(matches!(
        tree.mount("/etc/passwd", Box::new(MemoryFs::new()), None),
        Err(Error::NotADirectory(_))
    ));
    let order: Vec<_> = tree.commit().unwrap().into_iter().map(|(path, _)| path).collect();
    assert_eq!(order, ["/var", "/"]);
    assert!(!tree.is_dirty());
}

#[test]
fn parents_are_made_inside() {
    let mut tree = tree();
    tree.symlink("/opt", b"/usr/opt", FILE).unwrap();
    assert_eq!(tree.mkdir_all("/opt/a/b", Attributes { mode: 0o750, uid: 7, gid: 8 }).unwrap(), 3);
    let stat = tree.stat("/usr/opt/a").unwrap();
    assert_eq!((stat.mode, stat.uid, stat.gid), (0o750, 7, 8));
    assert_eq!(tree.mkdir_all("/usr/opt/a/", DIR).unwrap(), 0);
    let error = tree.mkdir_all("/etc/passwd/x", DIR).unwrap_err().to_string();
    assert_eq!(error, "/etc/passwd: not a directory");
    assert!(matches!(tree.mkdir_all("/etc/passwd", DIR), Err(Error::NotADirectory(_))));
    assert!(matches!(tree.mkdir_all("/n/../../x", DIR), Err(Error::NotFound(_))));
}

#[test]
fn labels_come_from_the_directory_or_the_policy() {
    let mut tree = tree();
    tree.write("/root/plain", b"", FILE).unwrap();
    assert_eq!(tree.xattrs("/root/plain").unwrap(), []);
    tree.set_xattr("/root", b"security.selinux", Some(b"admin_home_t\0")).unwrap();
    tree.mkdir("/root/.ssh", DIR).unwrap();
    tree.set_labeler(Box::new(|path, _| path.ends_with(b"keys").then(|| b"ssh_home_t\0".to_vec())));
    tree.write("/root/.ssh/keys", b"", FILE).unwrap();
    let label = |path: &str| tree.xattr(path, b"security.selinux").unwrap().unwrap();
    assert_eq!(label("/root/.ssh"), b"admin_home_t\0");
    assert_eq!(label("/root/.ssh/keys"), b"ssh_home_t\0");
}

#[test]
fn a_failed_commit_says_how_far_it_came() {
    let mut root = MemoryFs::new();
    let var = root.mkdir(NodeId(2), b"var", DIR).unwrap();
    root.fail_commit();
    let mut tree = Tree::new(Box::new(root));
    tree.mount("/var", Box::new(MemoryFs::new()), None).unwrap();
    tree.write("/var/a", b"", FILE).unwrap();
    let error = tree.commit().unwrap_err().to_string();
    assert!(error.ends_with("file system at / (already written: /var)"), "{error}");
    assert_eq!(var, NodeId(11));
}

#[test]
fn blocked_directories_say_why() {
    let mut tree = tree();
    tree.mkdir_all("/boot/efi", DIR).unwrap();
    tree.block("/boot/efi", "a vfat file system belongs here").unwrap();
    let error = tree.write("/boot/efi/x", b"", FILE).unwrap_err().to_string();
    assert_eq!(error, "/boot/efi: a vfat file system belongs here");
    assert!(tree.read_dir("/boot").is_ok());
}
