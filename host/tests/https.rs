//! Images from a server with TLS: only from one that the node trusts, and never a step down.
#![cfg(feature = "network")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::common::node::{MARK_AT, Node, ended, noise};

/// An authority of the site's own, and a certificate of it for one name and one address.
const CERTIFICATES: &str = r#"
    new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "$@" 2>/dev/null; }
    new -x509 -keyout ca.key -out ca.pem -days 2 -subj /CN=authority
    new -keyout server.key -out server.csr -subj /CN=localhost
    echo subjectAltName=DNS:localhost,IP:127.0.0.1 >names
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem \
        -days 2 -extfile names 2>/dev/null
"#;

/// Serves the files of its directory; `/down` leads to the same server without TLS.
const SERVER: &str = r#"
import http.server, ssl
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path != '/down':
            return super().do_GET()
        self.send_response(302)
        self.send_header('Location', 'http://127.0.0.1:%d/image' % self.server.server_port)
        self.send_header('Content-Length', '0')
        self.end_headers()
server = http.server.ThreadingHTTPServer(('0.0.0.0', 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('server.pem', 'server.key')
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_port, flush=True)
server.serve_forever()
"#;

struct Server(Child, u16);

impl Server {
    fn new(node: &Node) -> Self {
        let images = node.path("images");
        let made = Command::new("sh").args(["-ec", CERTIFICATES]).current_dir(&images).status();
        assert!(made.unwrap().success(), "openssl must be installed");
        let mut child = Command::new("python3")
            .args(["-c", SERVER])
            .current_dir(&images)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 must be installed");
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self(child, port.trim().parse().expect("the server does not start"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn only_from_whom_the_node_trusts() {
    let node = Node::new();
    fs::write(node.path("images/image"), noise(1, 3 << 20)).unwrap();
    let server = Server::new(&node);
    let disk = node.path("disk");
    for (trusted, host, file, why) in [
        (true, "localhost", "image", None),
        (true, "127.0.0.1", "image", None),
        // Nobody vouches for it; it has another name; it sends us to where nobody can vouch.
        (false, "localhost", "image", Some("UnknownIssuer")),
        (true, "127.0.0.2", "image", Some("not valid for name")),
        (true, "localhost", "down", Some("https only")),
    ] {
        fs::write(&disk, vec![0xaa; 8 << 20]).unwrap();
        let id = format!("https://{host}:{}/{file}", server.1);
        let mut create = node.create("inst1", &id, &disk);
        if trusted {
            create.env("SSL_CERT_FILE", node.path("images/ca.pem"));
        }
        let log = ended(&create.output().unwrap(), Some(i32::from(why.is_some())));
        let bytes = fs::read(&disk).unwrap();
        match why {
            None => assert!(bytes[MARK_AT + 64..3 << 20] == noise(1, 3 << 20)[MARK_AT + 64..]),
            Some(why) => {
                assert!(log.lines().last().unwrap_or_default().contains(why), "{id}: {log}");
                assert!(bytes.iter().all(|byte| *byte == 0xaa), "{id}: the disk was touched");
            }
        }
        node.assert_nothing_left();
    }
}
