//! `DISK_n_URI`: the addresses of disks that only QEMU's block layer reaches, as Ganeti hands them
//! to `-drive file=`.

use serde_json::{Value, json};

use crate::node::percent;

/// The options of the block device that a URI names, as `--blockdev` takes them. The error says
/// what is wrong and what is valid.
pub fn blockdev(uri: &str) -> Result<Value, String> {
    let name = without_options(uri)?;
    let (scheme, rest) = name.split_once(':').ok_or_else(|| {
        "it has no scheme; valid are file:, nbd:, rbd:, gluster: and iscsi:".to_owned()
    })?;
    match scheme {
        "file" => file(rest),
        "nbd" if rest.starts_with("//") => nbd_url(rest, false),
        "nbd" => nbd(rest),
        "nbd+tcp" => nbd_url(rest, false),
        "nbd+unix" => nbd_url(rest, true),
        "rbd" => rbd(rest),
        "gluster" | "gluster+tcp" => gluster(rest, false),
        "gluster+unix" => gluster(rest, true),
        "iscsi" => iscsi(rest),
        other => Err(format!(
            "the scheme {other}: is not supported; valid are file:, nbd:, rbd:, gluster: and iscsi:"
        )),
    }
}

/// Ganeti puts the URI into an option list, so options may follow it after a comma, and a comma
/// within it is written twice.
fn without_options(uri: &str) -> Result<String, String> {
    if uri.chars().any(char::is_control) {
        return Err("it has control characters in it".into());
    }
    let marked = uri.replace(",,", "\u{1}");
    let mut parts = marked.split(',');
    let name = parts.next().unwrap_or_default().replace('\u{1}', ",");
    for option in parts {
        if option != "format=raw" {
            return Err(format!(
                "the option {:?} after it is not supported; only format=raw is",
                option.replace('\u{1}', ",")
            ));
        }
    }
    Ok(name)
}

fn file(rest: &str) -> Result<Value, String> {
    let path = match rest.strip_prefix("//") {
        Some(path) => path.strip_prefix("localhost").unwrap_or(path),
        None => rest,
    };
    if !path.starts_with('/') {
        return Err("file: needs an absolute path".into());
    }
    let device = std::fs::metadata(path)
        .is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_block_device(&found.file_type()));
    let driver = if device { "host_device" } else { "file" };
    Ok(json!({"driver": driver, "filename": path, "discard": "unmap"}))
}

/// The older form: `nbd:HOST:PORT[:exportname=NAME]` or `nbd:unix:PATH[:exportname=NAME]`.
fn nbd(rest: &str) -> Result<Value, String> {
    let wrong = || "nbd: is nbd:HOST:PORT or nbd:unix:PATH, :exportname=NAME after it".to_owned();
    let (place, export) = rest.split_once(":exportname=").unwrap_or((rest, ""));
    let server = match place.strip_prefix("unix:") {
        Some(path) if path.starts_with('/') => json!({"type": "unix", "path": path}),
        Some(_) => return Err(wrong()),
        None => inet(place, None).ok_or_else(wrong)?,
    };
    Ok(json!({"driver": "nbd", "server": server, "export": export}))
}

/// `nbd://HOST[:PORT]/EXPORT` or `nbd+unix:///EXPORT?socket=PATH`.
fn nbd_url(rest: &str, unix: bool) -> Result<Value, String> {
    let (authority, path, query) = url(rest)?;
    let server = if unix {
        let path = query.iter().find(|(key, _)| key == "socket").map(|(_, value)| value);
        match path.filter(|path| path.starts_with('/') && authority.is_empty()) {
            Some(path) => json!({"type": "unix", "path": path}),
            None => return Err("nbd+unix: is nbd+unix:///EXPORT?socket=PATH".into()),
        }
    } else {
        inet(&authority, Some("10809"))
            .ok_or_else(|| "nbd: is nbd://HOST:PORT/EXPORT".to_owned())?
    };
    Ok(json!({"driver": "nbd", "server": server, "export": path}))
}

/// `rbd:POOL[/NAMESPACE]/IMAGE[:id=USER][:conf=PATH]`. Keys do not belong into an address.
fn rbd(rest: &str) -> Result<Value, String> {
    let mut parts = rest.split(':');
    let place = parts.next().unwrap_or_default();
    let names: Vec<&str> = place.split('/').collect();
    let mut out = match names.as_slice() {
        [pool, image] => json!({"driver": "rbd", "pool": pool, "image": image}),
        [pool, space, image] => {
            json!({"driver": "rbd", "pool": pool, "namespace": space, "image": image})
        }
        _ => return Err("rbd: is rbd:POOL/IMAGE".into()),
    };
    if names.iter().any(|name| name.is_empty() || name.contains('@')) {
        return Err("rbd: is rbd:POOL/IMAGE, without a snapshot".into());
    }
    for option in parts {
        match option.split_once('=') {
            Some(("id", user)) => out["user"] = user.into(),
            Some(("conf", path)) => out["conf"] = path.into(),
            _ => {
                let name = option.split('=').next().unwrap_or_default();
                return Err(format!(
                    "rbd: with the option {name:?} is not supported; id= and conf= are, and what else \
                     belongs into ceph.conf"
                ));
            }
        }
    }
    Ok(out)
}

/// `gluster://HOST[:PORT]/VOLUME/PATH` or `gluster+unix:///VOLUME/PATH?socket=PATH`.
fn gluster(rest: &str, unix: bool) -> Result<Value, String> {
    let wrong = || "gluster: is gluster://HOST:PORT/VOLUME/PATH".to_owned();
    let (authority, path, query) = url(rest)?;
    let (volume, path) = path.split_once('/').ok_or_else(wrong)?;
    let server = if unix {
        let socket = query.iter().find(|(key, _)| key == "socket").map(|(_, value)| value);
        json!({"type": "unix", "path": socket.ok_or_else(wrong)?})
    } else {
        inet(&authority, Some("24007")).ok_or_else(wrong)?
    };
    if volume.is_empty() || path.is_empty() {
        return Err(wrong());
    }
    Ok(json!({"driver": "gluster", "volume": volume, "path": path, "server": [server]}))
}

/// `iscsi://HOST[:PORT]/TARGET/LUN`.
fn iscsi(rest: &str) -> Result<Value, String> {
    let wrong = || "iscsi: is iscsi://HOST:PORT/TARGET/LUN, without a password".to_owned();
    let (authority, path, _) = url(rest)?;
    let (target, lun) = path.rsplit_once('/').ok_or_else(wrong)?;
    let lun: u16 = lun.parse().map_err(|_| wrong())?;
    if authority.is_empty() || authority.contains('@') || target.is_empty() {
        return Err(wrong());
    }
    Ok(json!({
        "driver": "iscsi", "transport": "tcp", "portal": authority, "target": target, "lun": lun,
    }))
}

/// `HOST:PORT`, the host an IPv6 address in brackets if it is one.
fn inet(place: &str, default_port: Option<&str>) -> Option<Value> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, if rest.is_empty() { default_port? } else { rest.strip_prefix(':')? })
        }
        None => match place.rsplit_once(':') {
            Some((host, port)) => (host, port),
            None => (place, default_port?),
        },
    };
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let plain = !host.is_empty() && !host.contains(['/', '@']);
    plain.then(|| json!({"type": "inet", "host": host, "port": port.to_string()}))
}

type Url = (String, String, Vec<(String, String)>);

/// Authority, path without its first slash, and the query of what follows a scheme's colon.
fn url(rest: &str) -> Result<Url, String> {
    let decode = |text: &str| {
        percent::decode(text).ok_or_else(|| "it has a wrong % escape in it".to_owned())
    };
    let rest = rest.strip_prefix("//").ok_or_else(|| "the URL has no //".to_owned())?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let pairs = pairs
        .map(|(key, value)| Ok((key.to_owned(), decode(value)?)))
        .collect::<Result<_, String>>()?;
    Ok((decode(authority)?, decode(path)?, pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (uri, options) in [
            (
                "file:/srv/a,,b,format=raw",
                json!({"driver": "file", "filename": "/srv/a,b", "discard": "unmap"}),
            ),
            ("file:///srv/x", json!({"driver": "file", "filename": "/srv/x", "discard": "unmap"})),
            (
                "nbd:unix:/run/x:exportname=a b",
                json!({"driver": "nbd", "server": {"type": "unix", "path": "/run/x"}, "export": "a b"}),
            ),
            (
                "nbd:[::1]:10809",
                json!({"driver": "nbd", "server": {"type": "inet", "host": "::1", "port": "10809"}, "export": ""}),
            ),
            (
                "nbd://host/a%20b",
                json!({"driver": "nbd", "server": {"type": "inet", "host": "host", "port": "10809"}, "export": "a b"}),
            ),
            (
                "nbd+unix:///e?socket=/run/x",
                json!({"driver": "nbd", "server": {"type": "unix", "path": "/run/x"}, "export": "e"}),
            ),
            (
                "rbd:pool/space/image:id=ganeti:conf=/etc/ceph/x.conf",
                json!({"driver": "rbd", "pool": "pool", "namespace": "space", "image": "image",
                       "user": "ganeti", "conf": "/etc/ceph/x.conf"}),
            ),
            (
                "gluster://10.0.0.1:24007/vol/ganeti/a/b",
                json!({"driver": "gluster", "volume": "vol", "path": "ganeti/a/b",
                       "server": [{"type": "inet", "host": "10.0.0.1", "port": "24007"}]}),
            ),
            (
                "iscsi://portal:3260/iqn.2026-01.test:x/1",
                json!({"driver": "iscsi", "transport": "tcp", "portal": "portal:3260",
                       "target": "iqn.2026-01.test:x", "lun": 1}),
            ),
        ] {
            assert_eq!(blockdev(uri).unwrap(), options, "{uri}");
        }
    }

    #[test]
    fn refusals() {
        for (uri, why) in [
            ("x", "no scheme"),
            ("http://x/y", "the scheme http: is not supported"),
            ("json:{}", "the scheme json: is not supported"),
            ("file:x", "absolute path"),
            ("file:/x,format=qcow2", "the option \"format=qcow2\" after it"),
            ("file:/x\n", "control characters"),
            ("nbd:host", "nbd: is nbd:HOST:PORT"),
            ("nbd:unix:x", "nbd: is nbd:HOST:PORT"),
            ("nbd:host:0", "nbd: is nbd:HOST:PORT"),
            ("nbd+unix:///x", "socket=PATH"),
            ("nbd://h/%0", "wrong % escape"),
            ("nbd://h/%00", "wrong % escape"),
            ("rbd:x", "rbd:POOL/IMAGE"),
            ("rbd:p/i@snap", "without a snapshot"),
            ("rbd:p/i:key=SECRET", "with the option \"key\""),
            ("gluster://h/v", "gluster: is"),
            ("iscsi://u%25p@h/t/1", "without a password"),
            ("iscsi://h/t/x", "iscsi: is"),
        ] {
            let error = blockdev(uri).unwrap_err();
            assert!(error.contains(why) && !error.contains("SECRET"), "{uri}: {error}");
        }
    }
}
