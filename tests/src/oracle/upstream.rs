//! The application behind both proxies: it says what it received.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Marks an answer as the application's.
pub const MARK: &str = "x-oracle-upstream";

/// Bytes of a request that the application looks at.
const HEAD_MAX: usize = 256 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts an application that answers every request with 200 and the head that it received, and every other sender with its
/// own bytes. It ends with the process.
pub fn start() -> io::Result<SocketAddr> {
    let door = TcpListener::bind(("127.0.0.1", 0))?;
    let address = door.local_addr()?;
    thread::spawn(move || {
        for stream in door.incoming().flatten() {
            thread::spawn(move || {
                // A proxy that hangs up is no matter of the application.
                let _ = serve(stream);
            });
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        let Some(end) = end_of_head(&bytes) else {
            let count = stream.read(&mut chunk)?;
            if count == 0 || bytes.len() > HEAD_MAX {
                return Ok(());
            }
            bytes.extend_from_slice(&chunk[..count]);
            if !is_http(&bytes) {
                stream.write_all(&bytes)?;
                bytes.clear();
            }
            continue;
        };
        let head: Vec<u8> = bytes.drain(..end).collect();
        let mut body = Vec::new();
        for line in head.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            body.extend_from_slice(line);
            body.push(b'\n');
        }
        let (length, is_head) = (content_length(&head), head.starts_with(b"HEAD "));
        while bytes.len() < length {
            let count = stream.read(&mut chunk)?;
            if count == 0 {
                return Ok(());
            }
            bytes.extend_from_slice(&chunk[..count]);
        }
        bytes.drain(..length);
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\n{MARK}: 1\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        if !is_head {
            answer.extend_from_slice(&body);
        }
        stream.write_all(&answer)?;
    }
}

fn is_http(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next();
    let Some(line) = line.filter(|_| bytes.contains(&b'\n')) else {
        // An unfinished line begins with a method, or is none.
        return bytes.first().is_some_and(u8::is_ascii_uppercase);
    };
    line.strip_suffix(b"\r")
        .unwrap_or(line)
        .ends_with(b" HTTP/1.1")
}

pub(super) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(at + 4)
}

pub(super) fn content_length(head: &[u8]) -> usize {
    let text = String::from_utf8_lossy(head);
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}
