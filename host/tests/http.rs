//! Images from a web server that behaves well, and from ones that do not.
#![cfg(feature = "network")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use snf_image_host::image::fetch;
use snf_image_host::image::policy::Policy;
use snf_image_host::image::source::http::HttpReader;
use snf_image_host::node::config::Config;
use snf_image_host::node::log;

#[derive(Clone, Copy, Default)]
struct Manner {
    /// Close the connection after this many bytes of a body.
    cut: Option<usize>,
    no_ranges: bool,
    no_length: bool,
    /// The file changes after the first answer.
    changes: bool,
    redirect: bool,
    status: Option<&'static str>,
    encoding: bool,
}

struct Server {
    address: String,
    requests: Arc<AtomicUsize>,
}

fn body() -> Vec<u8> {
    (0..1_000_000u32).map(|n| (n / 7 % 251) as u8).collect()
}

fn serve(manner: Manner) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let n = count.fetch_add(1, Ordering::SeqCst);
            // A client that went away is its own business.
            let _ = stream.and_then(|stream| answer(stream, manner, n));
        }
    });
    Server { address, requests }
}

fn answer(mut stream: TcpStream, manner: Manner, n: usize) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(());
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).to_lowercase();
    if let Some(status) = manner.status {
        return stream
            .write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
    }
    if manner.redirect && request.starts_with("get /start") {
        return stream.write_all(
            b"HTTP/1.1 302 Found\r\nLocation: /image\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    }
    let body = body();
    let range = request
        .lines()
        .find_map(|line| line.strip_prefix("range: bytes="))
        .and_then(|range| range.trim_end_matches('-').parse::<usize>().ok())
        .filter(|_| !manner.no_ranges);
    let etag = if manner.changes && n > 0 { "\"two\"" } else { "\"one\"" };
    let (status, start) = match range {
        // If-Range names the old file: a server that has another one sends all of it.
        Some(_) if manner.changes => ("200 OK", 0),
        Some(start) => ("206 Partial Content", start),
        None => ("200 OK", 0),
    };
    let part = &body[start..];
    let mut head = format!("HTTP/1.1 {status}\r\netag: {etag}\r\nConnection: close\r\n");
    if !manner.no_length {
        // Lower case, as servers behind HTTP/2 gateways write it.
        head += &format!("content-length: {}\r\n", part.len());
    }
    if !manner.no_ranges {
        head += "accept-ranges: bytes\r\n";
    }
    if manner.encoding {
        head += "content-encoding: gzip\r\n";
    }
    if status.starts_with("206") {
        head += &format!("content-range: bytes {start}-{}/{}\r\n", body.len() - 1, body.len());
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    let length = manner.cut.map_or(part.len(), |cut| cut.min(part.len()));
    stream.write_all(&part[..length])
}

/// The addresses of the servers of these tests.
const HERE: &str = "127.0.0.1 http://localhost";

fn policy(hosts: &str) -> Policy {
    let config = Config {
        image_hosts: hosts.parse().unwrap(),
        fetch_timeout: Duration::from_secs(5),
        backends_dir: "/nonexistent".into(),
        ..Config::default()
    };
    Policy::of(&config).unwrap()
}

fn read(server: &Server, path: &str) -> std::io::Result<Vec<u8>> {
    let mut reader = HttpReader::open(&format!("http://{}/{path}", server.address), policy(HERE))?;
    let mut out = Vec::new();
    reader.read_to_end(&mut out)?;
    Ok(out)
}

#[test]
fn plain_and_redirected() {
    let server = serve(Manner::default());
    let url = format!("http://{}/image", server.address);
    assert_eq!(HttpReader::open(&url, policy(HERE)).unwrap().size(), Some(1_000_000));
    assert!(read(&server, "image").unwrap() == body());
    assert!(
        read(&serve(Manner { redirect: true, ..Manner::default() }), "start").unwrap() == body()
    );
    assert_eq!(fetch::small(&url, &policy(HERE)).unwrap().expose().len(), 1_000_000);
    let server = serve(Manner { no_length: true, ..Manner::default() });
    assert!(read(&server, "image").unwrap() == body());
}

#[test]
fn a_broken_connection_is_taken_up_again() {
    let server = serve(Manner { cut: Some(300_000), ..Manner::default() });
    assert!(read(&server, "image").unwrap() == body());
    assert_eq!(server.requests.load(Ordering::SeqCst), 4);
}

#[test]
fn what_cannot_be_taken_up_is_an_error() {
    let cut = Some(300_000);
    let server = serve(Manner { cut, no_ranges: true, ..Manner::default() });
    assert!(read(&server, "image").is_err());
    let server = serve(Manner { cut, changes: true, ..Manner::default() });
    let error = read(&server, "image").unwrap_err().to_string();
    assert!(error.contains("not the same any more"), "{error}");
    let server = serve(Manner { cut: Some(0), ..Manner::default() });
    assert!(read(&server, "image").is_err(), "a server that never sends a byte");
}

#[test]
fn errors_of_the_server() {
    let open = |manner: Manner| {
        let server = serve(manner);
        HttpReader::open(&format!("http://{}/image", server.address), policy(HERE))
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    let status = |status| open(Manner { status: Some(status), ..Manner::default() });
    assert!(status("404 Not Found").contains("404"));
    assert!(status("500 Oops").contains("500"));
    assert!(open(Manner { encoding: true, ..Manner::default() }).contains("encoding"));
    // Nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(HttpReader::open(&format!("http://127.0.0.1:{port}/x"), policy(HERE)).is_err());
    assert!(HttpReader::open("http://nonexistent.invalid/x", policy(HERE)).is_err());
}

/// Answers every request with a redirect. Tells how many came.
fn redirects_to(place: &str) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let requests = Arc::new(AtomicUsize::new(0));
    let (count, place) = (requests.clone(), place.to_owned());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 4096]);
            let head =
                format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
        }
    });
    Server { address, requests }
}

#[test]
fn addresses_of_the_node_and_its_networks_are_refused() {
    let server = serve(Manner::default());
    let (_, port) = server.address.split_once(':').unwrap();
    // However the address is written, and whatever name leads to it.
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "localhost",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "169.254.169.254",
        "10.0.0.1",
        "[fd00::1]",
    ] {
        let url = format!("http://{host}:{port}/image");
        let image = HttpReader::open(&url, policy("")).map(drop).unwrap_err();
        let text = fetch::small(&url, &policy("")).map(drop).unwrap_err();
        for error in [log::chain(&image), log::chain(&text)] {
            assert!(error.contains("and IMAGE_HOSTS in"), "{host}: {error}");
        }
    }
    assert_eq!(server.requests.load(Ordering::SeqCst), 0);
    // Each kind of entry opens it.
    let prefix = format!("http://{}/ima", server.address);
    let whole = format!("http://{}/image", server.address);
    for hosts in ["127.0.0.1", "127.0.0.0/8", "0.0.0.0/0", &whole] {
        HttpReader::open(&whole, policy(hosts)).unwrap();
    }
    assert!(HttpReader::open(&whole, policy(&prefix)).is_err());
    let named = format!("http://localhost:{port}/image");
    HttpReader::open(&named, policy("localhost")).unwrap();
}

#[test]
fn a_redirect_leads_no_further_than_a_request() {
    let goal = serve(Manner::default());
    let (_, port) = goal.address.split_once(':').unwrap();
    for host in ["127.0.0.2", "169.254.169.254", "[::ffff:127.0.0.1]"] {
        let server = redirects_to(&format!("http://{host}:{port}/image"));
        let url = format!("http://{}/start", server.address);
        let open = || HttpReader::open(&url, policy(&url));
        let error = log::chain(&open().map(drop).unwrap_err());
        assert!(error.contains("and IMAGE_HOSTS in"), "{host}: {error}");
        assert_eq!(server.requests.load(Ordering::SeqCst), 1);
        // The same host at another path, where only a URL is listed.
        let server = redirects_to(&format!("http://{}/image", goal.address));
        let url = format!("http://{}/start", server.address);
        assert!(HttpReader::open(&url, policy(&url)).is_err());
    }
    assert_eq!(goal.requests.load(Ordering::SeqCst), 0);
}

#[test]
fn a_text_that_comes_byte_by_byte_has_an_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        while stream.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    let started = Instant::now();
    assert!(fetch::small(&url, &policy(HERE)).is_err());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let long = format!("http://127.0.0.1/{}", "x".repeat(5000));
    let error = log::chain(&fetch::small(&long, &policy(HERE)).unwrap_err());
    assert!(error.len() < 300, "{error}");
}
