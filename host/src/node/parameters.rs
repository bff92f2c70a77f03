//! The OS parameters by name.

/// Every OS parameter with the line that `gnt-os info` shows.
pub const PARAMETERS: &[(&str, &str)] = &[
    (
        "img_id",
        "Image: a name beneath IMAGE_DIR, local://NAME, file://PATH, http(s)://URL, or null to keep what is on the disk",
    ),
    (
        "img_format",
        "Format of the image: diskdump (a whole disk), extdump (a bare ext2/3/4 file system) or ntfsdump (a bare NTFS)",
    ),
    (
        "img_passwd",
        "Password to set for the users of the image (give it as a secret parameter); excludes img_passwd_hash",
    ),
    ("img_passwd_hash", "crypt(3) hash to set as it is (not for Windows); excludes img_passwd"),
    (
        "auth_keys",
        "Lines in authorized_keys format, appended for the users of the image (not for Windows)",
    ),
    (
        "img_properties",
        "Image properties as a JSON object, e.g. {\"OSFAMILY\": \"linux\", \"ROOT_PARTITION\": \"1\"}",
    ),
    (
        "inst_properties",
        "Instance properties as a JSON object; they override img_properties key by key",
    ),
    (
        "img_personality",
        "Files to write: a JSON list of {path, contents (base64), owner, group, mode}",
    ),
    (
        "img_edits",
        "Edits of the image's files: a JSON list such as [{\"mkdir\": {\"path\": \"/srv/www\"}}], in their order",
    ),
    ("config_url", "URL of a JSON object that holds any of these parameters"),
    ("os_product_key", "Windows product key: XXXXX-XXXXX-XXXXX-XXXXX-XXXXX"),
    ("os_answer_file", "URL of a Windows answer file (http, https, ftp, file)"),
    ("cloud_userdata", "user-data for cloud-init, base64"),
];

/// Whether there is an OS parameter of this (lower-case) name.
pub fn is_known(name: &str) -> bool {
    PARAMETERS.iter().any(|(known, _)| *known == name)
}

/// The text of `parameters.list`. Every line is a name, a blank and a description: Ganeti's
/// tools crash on anything else.
pub fn list() -> String {
    PARAMETERS.iter().map(|(name, text)| format!("{name} {text}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_has_a_name_and_a_description() {
        for line in list().lines() {
            let (name, text) = line.split_once(' ').unwrap();
            assert!(!text.trim().is_empty());
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        }
        assert_eq!(list().lines().count(), 13);
    }
}
