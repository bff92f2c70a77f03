//! Reading: what the kernel made, we see as the kernel sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::oracle::{Disk, compare, shell};

const SHAPES: &[(&str, &str)] = &[
    ("debian 12", "-t ext4 -O metadata_csum,64bit,^orphan_file,^metadata_csum_seed"),
    ("debian 13", "-t ext4 -O metadata_csum,64bit,orphan_file,metadata_csum_seed"),
    ("1k blocks", "-t ext4 -b 1024"),
    ("inline_data", "-t ext4 -O inline_data"),
    ("inline_data 1k inodes", "-t ext4 -O inline_data,ea_inode -I 1024"),
    ("ext3", "-t ext3 -I 128"),
    ("ext2 1k", "-t ext2 -b 1024"),
    ("bigalloc", "-t ext4 -O bigalloc -C 16384"),
];

#[test]
fn a_tree_of_everything() {
    for (name, args) in SHAPES {
        let disk = Disk::make(args, 64);
        let mount = disk.mount("user_xattr,acl");
        shell(
            &mount.at,
            r#"
            mkdir -p etc/deep/er many inline
            echo root:x:0:0 > etc/passwd; chmod 640 etc/passwd; chown 5:70000 etc/passwd
            head -c 200000 /dev/urandom > etc/big
            truncate -s 10M etc/sparse; echo end >> etc/sparse
            ln -s /etc/passwd short; ln -s "$(printf 'x%.0s' $(seq 200))" long
            ln -s "$(printf 'y%.0s' $(seq 59))" l59; ln -s "$(printf 'y%.0s' $(seq 60))" l60
            ln etc/passwd etc/hard
            mkfifo etc/fifo; mknod etc/null c 1 3; mknod etc/disk b 259 70000
            for i in $(seq 1500); do echo > "many/a name that is rather long, number $i"; done
            for i in 1 2 3 4 5 6; do echo $i > inline/n$i; done
            setfattr -n user.one -v value etc/passwd
            setfattr -n user.empty etc/passwd
            setfattr -n security.selinux -v system_u:object_r:shadow_t:s0 etc/passwd
            setfattr -n user.large -v "$(printf 'z%.0s' $(seq 700))" etc/passwd
            setfattr -n trusted.t -v 0s//8A etc/big
            setfacl -m u:1000:rw,g:7:r etc/passwd
            setfacl -d -m u:1000:rwx etc/deep
            touch etc/deep/inherits; mkdir etc/deep/dir
            touch -d '2040-01-01 12:00:00.123456789' etc/big
            "#,
        );
        drop(mount);
        compare(&disk, name);
    }
}
