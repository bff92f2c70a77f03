//! Settings, good and bad.

use super::*;

fn apply(text: &str) -> Result<Config, String> {
    let mut config = Config::default();
    config.apply(Path::new("/etc/x"), text).map_err(|e| crate::node::log::chain(&e))?;
    Ok(config)
}

#[test]
fn settings() {
    let config = apply(
        "IMAGE_DIR=\"/srv/images\"\nHELPER_SOFT_TIMEOUT=\"2m\"\nHELPER_HARD_TIMEOUT=7\n\
         HELPER_MEMORY=512\nPROGRESS_MONITOR=\"\"\nDHCP_TAGS=\"a b\"\nDEFAULT_NIC_CONFIG=dhcp+slaac\n\
         HELPER_ACCEL=tcg\nIMG_FORMAT=diskdump\nIMG_PASSWD='$ecret'\nHELPER_URL=http://x\nFOO=1\nhelper_user=x\nWIPE_REST=yes\n",
    )
    .unwrap();
    assert_eq!(config.image_dir, Path::new("/srv/images"));
    assert_eq!(config.helper_soft_timeout, Duration::from_secs(120));
    assert_eq!(config.helper_memory, Some(512));
    assert_eq!(config.helper_accel, Acceleration::Tcg);
    assert_eq!((config.rest, Config::default().rest), (Rest::Everything, Rest::Labels));
    assert_eq!(config.parameters["img_passwd"].expose(), b"$ecret");
    assert_eq!(
        config.warnings,
        [
            "/etc/x, line 11: HELPER_URL is not used any more: the helper is built from this node's kernel",
            "/etc/x, line 12: FOO is not a known setting and is ignored",
            "/etc/x, line 13: helper_user is not a known setting and is ignored",
        ]
    );
    assert!(!format!("{config:?}").contains("$ecret"));
}

#[test]
fn wrong_values_name_file_line_and_key() {
    for (text, error) in [
        ("IMAGE_DIR=x", "IMAGE_DIR: \"x\" is not an absolute path"),
        ("IMAGE_DEBUG=maybe", "IMAGE_DEBUG: \"maybe\" is neither yes nor no"),
        ("HELPER_SOFT_TIMEOUT=", "HELPER_SOFT_TIMEOUT: \"\" is not a time"),
        ("HELPER_SOFT_TIMEOUT=-1", "HELPER_SOFT_TIMEOUT: \"-1\" is not a time"),
        ("HELPER_SOFT_TIMEOUT=0", "HELPER_SOFT_TIMEOUT: \"0\" is out of range"),
        ("HELPER_SOFT_TIMEOUT=99999999999999999999d", "HELPER_SOFT_TIMEOUT: "),
        ("HELPER_MEMORY=1G", "HELPER_MEMORY: \"1G\" is not a number of MiB"),
        ("HELPER_USER=root", "HELPER_USER: the helper must not run as root"),
        ("HELPER_USER=00", "HELPER_USER: the helper must not run as root"),
        ("HELPER_UID_RANGE=0-9", "HELPER_UID_RANGE: the helper must not run as root"),
        ("HELPER_UID_RANGE=9-8", "HELPER_UID_RANGE: \"9-8\" is not a range"),
        ("HELPER_UID_RANGE=9", "HELPER_UID_RANGE: \"9\" is not a range"),
        ("HELPER_USER=a,b", "HELPER_USER: \"a,b\" is not the name"),
        ("HELPER_ACCEL=hax", "HELPER_ACCEL: \"hax\" is none of"),
        ("NIC_DNS=ns.example.org", "NIC_DNS: \"ns.example.org\" is not the address"),
        ("DEFAULT_NIC_CONFIG=dhcp+dhcp", "DEFAULT_NIC_CONFIG: \"dhcp+dhcp\" is none of"),
        ("PROGRESS_MONITOR=mon", "PROGRESS_MONITOR: \"mon\" is not an absolute path"),
        ("WINDOWS_TIMEZONE=", "WINDOWS_TIMEZONE: it is empty"),
    ] {
        let found = apply(&format!("\n{text}\n")).unwrap_err();
        assert!(found.starts_with(&format!("/etc/x, line 2, {error}")), "{text}: {found}");
    }
    let found = apply("A=`x`").unwrap_err();
    let start = "the configuration /etc/x is no list of assignments: line 1, A: ";
    assert!(found.starts_with(start), "{found}");
}

#[test]
fn the_variant_comes_after_and_a_named_file_must_exist() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("default");
    std::fs::write(&main, "IMG_ID=one\nIMG_FORMAT=extdump\n").unwrap();
    std::fs::create_dir(dir.path().join("variants")).unwrap();
    std::fs::write(dir.path().join("variants/v.conf"), "IMG_ID=two\n").unwrap();
    let config = Config::load(Some(&main), Some("v")).unwrap();
    assert_eq!(config.parameters["img_id"].expose(), b"two");
    assert_eq!(config.parameters["img_format"].expose(), b"extdump");
    assert!(Config::load(Some(&main), Some("none")).is_ok());
    let error = Config::load(Some(&dir.path().join("no")), None).unwrap_err().to_string();
    assert!(error.contains("cannot read the configuration"), "{error}");
}

#[test]
fn a_file_that_others_may_change_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("default");
    std::fs::write(&main, "IMG_ID=one\n").unwrap();
    std::fs::set_permissions(&main, std::fs::Permissions::from_mode(0o666)).unwrap();
    let error = crate::node::log::chain(&Config::load(Some(&main), None).unwrap_err());
    assert!(error.contains("is refused: others than root may change it"), "{error}");
    std::fs::set_permissions(&main, std::fs::Permissions::from_mode(0o644)).unwrap();
    Config::load(Some(&main), None).unwrap();
}
