//! Properties of every kind, and everything that is wrong with them.

use super::*;
use crate::ask::task_id::TaskId;

fn parse(json: &str) -> Properties {
    Properties::parse(json, "img_properties").unwrap()
}

#[test]
fn values_of_every_kind() {
    let properties =
        parse(r#"{"OsFamily": "linux", "NUM": 5, "big": 1.5, "F": true, "G": false, "N": null}"#);
    assert_eq!(properties.get("osfamily"), Some("linux"));
    assert_eq!(properties.get("num"), Some("5"));
    assert_eq!(properties.get("BIG"), Some("1.5"));
    assert_eq!(properties.get("F"), Some("yes"));
    assert_eq!(properties.boolean("g"), Ok(false));
    assert_eq!(properties.get("n"), None);
    assert!(parse(" ").is_empty());
}

#[test]
fn one_property_has_one_value() {
    for json in [
        r#"{"users": "a", "USERS": "b"}"#,
        r#"{"users": "a", "users": "b"}"#,
        r#"{"users": "a", "USERS": null}"#,
    ] {
        let error = Properties::parse(json, "img_properties").unwrap_err().to_string();
        assert!(error.starts_with("property USERS is given twice in img_properties"), "{error}");
    }
    assert_eq!(parse(r#"{"users": "a", "USERS": "a"}"#).get("USERS"), Some("a"));
}

#[test]
fn names_of_nothing_are_told() {
    let properties = parse(
        r#"{"EXCLUDE_TASK_AssignHostnam": "yes", "EXCLUDE_TASK_AddSwap": 1, "EXCLUDE_ALL": 1,
            "OSFAMILY": "linux", "COLOUR": "red", "SWAP": "b"}"#,
    );
    let told: Vec<String> = properties
        .misspelt_exclusions()
        .chain(properties.unknown())
        .map(|error| crate::craft::sentence::sentence(&error))
        .collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("there is no property EXCLUDE_ALL; tasks are excluded by"));
    assert!(told[1].starts_with(
        "property EXCLUDE_TASK_ASSIGNHOSTNAM excludes nothing: there is no task \"ASSIGNHOSTNAM\""
    ));
    assert_eq!(told[2], "there is no property COLOUR; it has no effect");
    assert_eq!(properties.of_task(TaskId::AddSwap).collect::<Vec<_>>(), ["SWAP"]);
}

#[test]
fn what_is_not_an_object_of_scalars_is_refused() {
    for (json, part) in [
        ("[1]", "img_properties is not a JSON object"),
        ("{", "img_properties is not a JSON object"),
        ("\"x\"", "img_properties is not a JSON object"),
        ("{} x", "img_properties is not a JSON object"),
        (r#"{"a": []}"#, "property A in img_properties is a list"),
        (r#"{"a": {}}"#, "property A in img_properties is an object"),
    ] {
        let error = Properties::parse(json, "img_properties").unwrap_err().to_string();
        assert!(error.contains(part), "{json}: {error}");
    }
}

#[test]
fn deep_nesting_is_an_error_and_not_a_crash() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Properties::parse(&deep, "img_properties").is_err());
}

#[test]
fn the_instance_overrides_the_image() {
    let mut properties = parse(r#"{"USERS": "root", "OSFAMILY": "linux"}"#);
    properties.merge(parse(r#"{"users": "user"}"#));
    assert_eq!(properties.get("USERS"), Some("user"));
    assert_eq!(properties.get("OSFAMILY"), Some("linux"));
}

#[test]
fn booleans() {
    for (text, value) in [
        ("yes", true),
        ("TRUE", true),
        ("1", true),
        ("On", true),
        ("set", true),
        ("no", false),
        ("False", false),
        ("0", false),
        ("off", false),
        ("unset", false),
        ("", false),
    ] {
        let mut properties = Properties::default();
        properties.set("do_sync", text);
        assert_eq!(properties.boolean("DO_SYNC"), Ok(value), "{text}");
    }
    let mut properties = Properties::default();
    assert_eq!(properties.boolean("DO_SYNC"), Ok(false));
    properties.set("DO_SYNC", "maybe");
    let error = properties.boolean("do_sync").unwrap_err().to_string();
    assert!(error.contains("property DO_SYNC is 'maybe'"), "{error}");
}

#[test]
fn typed_values() {
    let properties = parse(
        r#"{"OSFAMILY": "Windows-Legacy", "ROOT_PARTITION": 2, "PASSWD_HASHING_METHOD": "SHA512",
            "USERS": " root  user ", "SWAP": "2:512"}"#,
    );
    assert_eq!(properties.os_family(), Ok(Some(OsFamily::WindowsLegacy)));
    assert_eq!(properties.root_partition(), Ok(Some(RootVolume::Partition(2))));
    assert_eq!(properties.hashing_method(), Ok(Some(Method::Sha512)));
    assert_eq!(properties.users(), Ok(Some(vec!["root", "user"])));
    assert_eq!(properties.swap(), Ok(Some(Swap::Partition { number: 2, mebibytes: 512 })));
    assert_eq!(parse(r#"{"SWAP": "c"}"#).swap(), Ok(Some(Swap::Disk('c'))));
    assert!(properties.problems().is_empty());
    assert!(parse("{}").problems().is_empty());
}

#[test]
fn every_problem_is_named() {
    let properties = parse(
        r#"{"OSFAMILY": "beos", "ROOT_PARTITION": "0", "PASSWD_HASHING_METHOD": "rot13",
            "USERS": "a:b", "SWAP": "512", "CLOUD_INIT": "2", "EXCLUDE_TASK_AddSwap": "x"}"#,
    );
    let text: String = properties.problems().iter().map(|problem| format!("{problem}\n")).collect();
    for name in [
        "OSFAMILY",
        "ROOT_PARTITION",
        "PASSWD_HASHING_METHOD",
        "USERS",
        "SWAP",
        "CLOUD_INIT",
        "EXCLUDE_TASK_ADDSWAP",
    ] {
        assert!(text.contains(&format!("property {name} is ")), "{name}: {text}");
    }
}

#[test]
fn exclusions() {
    use TaskId::{AddSwap, ChangePassword, FilesystemResizeAfterUmount, FixPartitionTable};
    let excluded = |json: &str, task| parse(json).excluded(task).unwrap();
    assert!(excluded(r#"{"EXCLUDE_ALL_TASKS": "yes"}"#, FixPartitionTable));
    assert!(excluded(r#"{"EXCLUDE_MOUNTED_TASKS": 1}"#, AddSwap));
    assert!(!excluded(r#"{"EXCLUDE_MOUNTED_TASKS": 1}"#, FixPartitionTable));
    let resize = r#"{"EXCLUDE_FILESYSTEMRESIZE_TASKS": true}"#;
    assert!(excluded(resize, FilesystemResizeAfterUmount));
    assert!(!excluded(resize, AddSwap));
    let one = r#"{"exclude_task_addswap": "yes", "EXCLUDE_TASK_ChangePassword": "no"}"#;
    assert!(excluded(one, AddSwap));
    assert!(!excluded(one, ChangePassword));
    assert!(parse(r#"{"EXCLUDE_ALL_TASKS": "perhaps"}"#).excluded(AddSwap).is_err());
}
