//! `snf-customize fingerprints`.

use serde_json::json;
use snf_fs::error::display_name;
use snf_image::guest::host_keys::{KeyFile, public_keys};
use ssh_key::{HashAlg, PublicKey};

use super::args::Fingerprints;
use super::opened::Opened;
use crate::exit::{Exit, Failure};
use crate::output::{self, Document};

/// Shows the fingerprints of the public host keys.
pub(super) fn run(args: &Fingerprints) -> Result<Exit, Failure> {
    let opened = Opened::new(&args.source)?;
    let mut keys = Vec::new();
    opened.end(collect(&opened, &mut keys).map_err(Into::into))?;
    if args.json {
        let keys: Vec<_> = keys
            .iter()
            .map(|(path, key)| {
                json!({
                    "path": path,
                    "algorithm": key.algorithm().as_str(),
                    "fingerprint": key.fingerprint(HashAlg::Sha256).to_string(),
                    "comment": key.comment().as_str_lossy(),
                })
            })
            .collect();
        let mut document = Document::new("fingerprints", &args.source.disk);
        document.set("host_keys", keys);
        document.finish(Exit::Done, "");
        return Ok(Exit::Done);
    }
    if keys.is_empty() {
        return Err(Failure::new(Exit::Failed, "the guest has no SSH host keys in /etc/ssh"));
    }
    let mut text = String::new();
    for (_, key) in &keys {
        let comment = display_name(key.comment().as_bytes());
        let comment = if comment.is_empty() { "no comment".to_owned() } else { comment };
        let fingerprint = key.fingerprint(HashAlg::Sha256);
        text.push_str(&format!("{} {fingerprint} {comment} ({})\n", bits(key), name(key)));
    }
    output::print(&text);
    Ok(Exit::Done)
}

fn collect(opened: &Opened, keys: &mut Vec<(String, PublicKey)>) -> Result<(), snf_fs::Error> {
    for KeyFile { path, text } in public_keys(opened.tree())? {
        let key = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| PublicKey::from_openssh(text.trim()).ok());
        match key {
            Some(key) => keys.push((display_name(&path), key)),
            None => output::warning_line(&format!("{} is no public key", display_name(&path))),
        }
    }
    Ok(())
}

/// The size of a key, as `ssh-keygen -l` counts it.
fn bits(key: &PublicKey) -> u32 {
    use ssh_key::public::KeyData;
    match key.key_data() {
        KeyData::Rsa(rsa) => rsa.key_size(),
        KeyData::Ecdsa(ecdsa) => match ecdsa.curve() {
            ssh_key::EcdsaCurve::NistP256 => 256,
            ssh_key::EcdsaCurve::NistP384 => 384,
            ssh_key::EcdsaCurve::NistP521 => 521,
        },
        KeyData::Dsa(_) => 1024,
        _ => 256,
    }
}

/// The kind of a key, as `ssh-keygen -l` writes it.
fn name(key: &PublicKey) -> &'static str {
    use ssh_key::public::KeyData;
    match key.key_data() {
        KeyData::Rsa(_) => "RSA",
        KeyData::Ecdsa(_) => "ECDSA",
        KeyData::Ed25519(_) => "ED25519",
        KeyData::Dsa(_) => "DSA",
        KeyData::SkEcdsaSha2NistP256(_) => "ECDSA-SK",
        KeyData::SkEd25519(_) => "ED25519-SK",
        _ => "other",
    }
}
