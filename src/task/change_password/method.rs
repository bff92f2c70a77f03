//! The hashing method of the guest's own `passwd`.

use super::super::{Guest, Session, TaskError};
use crate::craft::crypt::Method;
use crate::guest::distro::{Distro, Family};

/// PAM's configuration of password changes, by distribution family.
const PAM: [&str; 4] = [
    "/etc/pam.d/common-password",
    "/etc/pam.d/system-auth",
    "/etc/pam.d/password-auth",
    "/etc/pam.d/passwd",
];

/// The method: what the request says, else what PAM, `login.defs` or the release of the guest say.
pub(super) fn choose(guest: &Guest, session: &Session<'_>) -> Result<Method, TaskError> {
    if let Some(method) = session.plan.properties.hashing_method()? {
        return Ok(method);
    }
    for path in PAM {
        if let Some(method) = guest.config(path)?.as_deref().and_then(of_pam) {
            return Ok(method);
        }
    }
    for path in ["/etc/login.defs", "/usr/etc/login.defs"] {
        if let Some(method) = guest.config(path)?.as_deref().and_then(of_login_defs) {
            return Ok(method);
        }
    }
    Ok(of_release(&guest.distro))
}

/// Methods that are strong enough today. A guest that asks for DES or MD5 gets SHA-512, which
/// every C library of the last fifteen years takes.
fn method(name: &str) -> Option<Method> {
    match name.to_ascii_lowercase().as_str() {
        "yescrypt" | "gost_yescrypt" => Some(Method::Yescrypt),
        "blowfish" | "bcrypt" => Some(Method::Blowfish),
        "sha256" => Some(Method::Sha256),
        "sha512" | "md5" | "des" | "bigcrypt" => Some(Method::Sha512),
        _ => None,
    }
}

fn of_pam(text: &[u8]) -> Option<Method> {
    let text = String::from_utf8_lossy(text);
    text.lines().map(str::trim).filter(|line| line.starts_with("password")).find_map(|line| {
        let (_, options) = line.split_once("pam_unix.so")?;
        options.split_whitespace().take_while(|word| !word.starts_with('#')).find_map(method)
    })
}

fn of_login_defs(text: &[u8]) -> Option<Method> {
    let text = String::from_utf8_lossy(text);
    text.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace();
        if words.next() != Some("ENCRYPT_METHOD") {
            return None;
        }
        method(words.next()?.trim_matches('"'))
    })
}

fn of_release(distro: &Distro) -> Method {
    let version = distro.version_number();
    let since = |first: (u32, u32)| version.is_none_or(|version| version >= first);
    let yescrypt = match distro.id.as_str() {
        "debian" => since((11, 0)),
        "ubuntu" => since((22, 4)),
        "fedora" => since((35, 0)),
        "kali" | "arch" | "archlinux" | "opensuse-tumbleweed" => true,
        _ => distro.family == Family::Arch,
    };
    if yescrypt { Method::Yescrypt } else { Method::Sha512 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pam_and_login_defs() {
        let debian = b"# x\npassword\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt\n";
        assert_eq!(of_pam(debian), Some(Method::Yescrypt));
        let rhel = b"auth sufficient pam_unix.so\npassword sufficient pam_unix.so sha512 shadow\n";
        assert_eq!(of_pam(rhel), Some(Method::Sha512));
        assert_eq!(of_pam(b"password required pam_unix.so # yescrypt\n"), None);
        assert_eq!(of_pam(b"password required pam_unix.so md5\n"), Some(Method::Sha512));
        let defs = b"#ENCRYPT_METHOD DES\nENCRYPT_METHOD YESCRYPT\n";
        assert_eq!(of_login_defs(defs), Some(Method::Yescrypt));
        assert_eq!(of_login_defs(b"ENCRYPT_METHOD\n"), None);
    }

    #[test]
    fn releases() {
        let of = |id: &str, version: &str| {
            let text = format!("ID={id}\nVERSION_ID={version}\n");
            of_release(&Distro::from_os_release(&text))
        };
        assert_eq!(of("debian", "12"), Method::Yescrypt);
        assert_eq!(of("debian", "10"), Method::Sha512);
        assert_eq!(of("debian", ""), Method::Yescrypt);
        assert_eq!(of("ubuntu", "22.04"), Method::Yescrypt);
        assert_eq!(of("ubuntu", "20.04"), Method::Sha512);
        assert_eq!(of("fedora", "34"), Method::Sha512);
        assert_eq!(of("rocky", "9.3"), Method::Sha512);
        assert_eq!(of_release(&Distro::default()), Method::Sha512);
    }
}
