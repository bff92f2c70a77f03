//! Reading tables that fdisk's and gdisk's tools made, and telling them from bare file systems.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common::{ImageDisk, run};
use snf_partition::{PartitionType, Role, Table, TableKind, read};

fn table(disk: &ImageDisk) -> Table {
    read(disk).unwrap().expect("a partition table")
}

/// `blkid -p` of the disk.
fn ptuuid(disk: &ImageDisk) -> String {
    run("blkid", &["-p", "-s", "PTUUID", "-o", "value", disk.str()], "").trim().to_owned()
}

#[test]
fn mbr_with_logical_partitions_and_gaps() {
    let disk = ImageDisk::new(200, 512);
    run(
        "sfdisk",
        &[disk.str()],
        "label: dos\nlabel-id: 0xdeadbeef\n\
         start=2048, size=20480, type=83, bootable\n\
         start=40960, size=200000, type=5\n\
         start=300000, size=10000, type=82\n\n\
         start=43008, size=2048, type=83\n\
         start=65536, size=4096, type=82\n\
         start=50000, size=100, type=7\n",
    );
    let table = table(&disk);
    assert_eq!(table.kind, TableKind::Mbr);
    assert_eq!(table.disk_id.as_deref(), Some("deadbeef"));
    assert_eq!(ptuuid(&disk), "deadbeef");
    let got: Vec<_> =
        table.partitions.iter().map(|p| (p.number, p.start, p.size, p.role, p.bootable)).collect();
    assert_eq!(
        got,
        [
            (1, 2048, 20480, Role::Primary, true),
            (2, 40960, 200_000, Role::Extended, false),
            (3, 300_000, 10000, Role::Primary, false),
            (5, 43008, 2048, Role::Logical, false),
            (6, 65536, 4096, Role::Logical, false),
            (7, 50000, 100, Role::Logical, false),
        ]
    );
    assert_eq!(table.partition(6).unwrap().partuuid.as_deref(), Some("deadbeef-06"));
    assert_eq!(table.partition(7).unwrap().partition_type, PartitionType::Mbr(7));
    assert_eq!(table.last_by_position().unwrap().number, 3);
}

#[test]
fn gpt_with_gaps_and_names() {
    let disk = ImageDisk::new(100, 512);
    run(
        "sgdisk",
        &[
            "-n",
            "14:2048:4095",
            "-t",
            "14:ef02",
            "-n",
            "15:4096:+20M",
            "-t",
            "15:ef00",
            "-n",
            "1:102400:0",
            "-c",
            "1:Wurzel ü",
            "-A",
            "1:set:2",
            "-u",
            "1:01234567-89AB-CDEF-0123-456789ABCDEF",
            disk.str(),
        ],
        "",
    );
    let table = table(&disk);
    assert_eq!(table.kind, TableKind::Gpt);
    assert_eq!(table.disk_id.as_deref(), Some(ptuuid(&disk).as_str()));
    assert_eq!(table.warnings, Vec::<String>::new());
    let numbers: Vec<_> = table.partitions.iter().map(|p| p.number).collect();
    assert_eq!(numbers, [1, 14, 15]);
    let root = table.partition(1).unwrap();
    assert_eq!(root.name, "Wurzel ü");
    assert_eq!(root.partuuid.as_deref(), Some("01234567-89ab-cdef-0123-456789abcdef"));
    assert_eq!(root.attributes, 4);
    assert!(root.bootable);
    assert_eq!(root.partition_type.name(), Some("Linux filesystem"));
    assert_eq!(table.partition(15).unwrap().partition_type.name(), Some("EFI system"));
    assert_eq!((root.start, root.end()), (102_400, 204_800 - 33));
    assert_eq!(table.byte_range(root).0, 52_428_800);
}

#[test]
fn gpt_of_4096_byte_sectors() {
    let disk = ImageDisk::new(100, 4096);
    run("fdisk", &["-b", "4096", disk.str()], "g\nn\n1\n\n+20M\nn\n2\n\n\nw\n");
    let table = table(&disk);
    assert_eq!((table.sector_size, table.partitions.len()), (4096, 2));
    // The same bytes in an image file, whose sector size nobody told.
    let other = ImageDisk::new(0, 512);
    run("cp", &[disk.str(), other.str()], "");
    let found = self::table(&other);
    assert_eq!(found.sector_size, 4096);
    assert_eq!(found.partitions, table.partitions);
}

#[test]
fn mbr_of_4096_byte_sectors() {
    let disk = ImageDisk::new(100, 4096);
    run("fdisk", &["-b", "4096", disk.str()], "o\nn\np\n1\n\n+20M\nn\ne\n2\n\n\nn\n\n+8M\nw\n");
    let table = table(&disk);
    let numbers: Vec<_> = table.partitions.iter().map(|p| p.number).collect();
    assert_eq!(numbers, [1, 2, 5]);
    assert_eq!(table.partition(1).unwrap().size, 20 << 8);
}

#[test]
fn damaged_primary_gpt_and_backup_in_mid_disk() {
    let disk = ImageDisk::new(100, 512);
    run("sgdisk", &["-n", "1:2048:100000", "-n", "3:110000:0", disk.str()], "");
    let whole = table(&disk);
    disk.resize(200);
    let grown = table(&disk);
    assert_eq!(grown.partitions, whole.partitions);
    assert!(grown.warnings[0].contains("not in the disk's last sector"), "{:?}", grown.warnings);
    let entries = disk.bytes(1024, 512);
    disk.put(1024, &[0; 512]);
    let from_backup = table(&disk);
    assert_eq!(from_backup.partitions, whole.partitions);
    assert!(from_backup.warnings[0].contains("primary GPT"), "{:?}", from_backup.warnings);
    disk.put(1024, &entries);
    let header = disk.bytes(512, 512);
    disk.put(512, &[0; 512]);
    assert_eq!(table(&disk).partitions, whole.partitions);
    disk.put((100 << 20) - 512, &[0; 512]);
    let error = read(&disk).unwrap_err().to_string();
    assert!(error.contains("corrupt GPT at sector 1") && error.contains("backup"), "{error}");
    disk.put(512, &header);
    let damaged_backup = table(&disk);
    assert!(damaged_backup.warnings[0].contains("damaged"), "{:?}", damaged_backup.warnings);
}

#[test]
fn bare_file_systems_are_no_tables() {
    let disk = ImageDisk::new(64, 512);
    assert!(read(&disk).unwrap().is_none());
    let cases: &[(&str, &[&str], &str)] = &[
        ("mke2fs", &["-q", "-F", "-t", "ext4"], "ext2/3/4"),
        ("mkfs.fat", &["-F", "16"], "FAT"),
        ("mkfs.fat", &["-F", "32"], "FAT"),
        ("mkntfs", &["-q", "-F", "-f"], "NTFS"),
        ("mkswap", &[], "swap"),
    ];
    for (tool, args, name) in cases {
        let disk = ImageDisk::new(64, 512);
        let mut args = args.to_vec();
        args.push(disk.str());
        run(tool, &args, "");
        assert_eq!(snf_partition::bare::file_system(&disk).unwrap(), Some(*name));
        assert!(read(&disk).unwrap().is_none(), "{tool} {args:?}");
        // With a boot sector that ends in 55 AA, and with boot code where records would be.
        disk.put(510, &[0x55, 0xaa]);
        assert!(read(&disk).unwrap().is_none(), "{tool} {args:?} with 55 AA");
        disk.put(446, b"BOOTMGR is missing");
        assert!(read(&disk).unwrap().is_none(), "{tool} {args:?} with boot code");
        disk.put(446, &[0; 64]);
        // A table written over it counts, although the old superblock may still be there.
        run("sfdisk", &["--wipe", "never", disk.str()], "label: dos\nstart=2048, type=83\n");
        assert_eq!(table(&disk).partitions.len(), 1, "{tool}");
    }
}

#[test]
fn an_empty_mbr_is_a_table() {
    let disk = ImageDisk::new(10, 512);
    run("sfdisk", &[disk.str()], "label: dos\n");
    assert_eq!(table(&disk).partitions.len(), 0);
    run("parted", &["-s", disk.str(), "mklabel", "gpt"], "");
    assert_eq!(table(&disk).kind, TableKind::Gpt);
}

#[test]
fn hybrid_mbr_is_a_gpt() {
    let disk = ImageDisk::new(50, 512);
    run("sgdisk", &["-n", "1:2048:40000", "-n", "2:50000:0", "-h", "1", disk.str()], "");
    let table = table(&disk);
    assert_eq!((table.kind, table.partitions.len()), (TableKind::Gpt, 2));
}
