//! Images from a web server that behaves well, and from ones that do not.
#![cfg(feature = "network")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use snf_image_host::image::fetch;
use snf_image_host::image::source::http::HttpReader;

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

fn read(server: &Server, path: &str) -> std::io::Result<Vec<u8>> {
    let mut reader = HttpReader::open(&format!("http://{}/{path}", server.address))?;
    let mut out = Vec::new();
    reader.read_to_end(&mut out)?;
    Ok(out)
}

#[test]
fn plain_and_redirected() {
    let server = serve(Manner::default());
    let url = format!("http://{}/image", server.address);
    assert_eq!(HttpReader::open(&url).unwrap().size(), Some(1_000_000));
    assert!(read(&server, "image").unwrap() == body());
    assert!(
        read(&serve(Manner { redirect: true, ..Manner::default() }), "start").unwrap() == body()
    );
    assert_eq!(fetch::small(&url).unwrap().expose().len(), 1_000_000);
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
        HttpReader::open(&format!("http://{}/image", server.address))
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
    assert!(HttpReader::open(&format!("http://127.0.0.1:{port}/x")).is_err());
    assert!(HttpReader::open("http://nonexistent.invalid/x").is_err());
}
