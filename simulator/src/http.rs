//! HTTP/1.1 as scripted peers speak it: complete enough to say what arrived, and independent of the core's.
//!
//! A peer believes what it reads: it is no server that somebody attacks.

/// One message, as far as it has arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The request or status line.
    pub start: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub complete: bool,
}

impl Message {
    /// The value of the first field `name`, in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(n, _)| n == name)?;
        Some(&found.1)
    }

    /// The status of a response, 0 if there is none.
    pub fn status(&self) -> u16 {
        self.start
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or_default()
    }

    /// The target of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length(usize),
    ChunkSize,
    Chunk(usize),
    Trailers,
    UntilEnd,
}

/// Messages of one direction of one connection.
#[derive(Clone, Debug)]
pub struct Reader {
    responses: bool,
    state: State,
    line: Vec<u8>,
    messages: Vec<Message>,
    broken: bool,
}

impl Reader {
    pub fn of_requests() -> Self {
        Self::new(false)
    }

    pub fn of_responses() -> Self {
        Self::new(true)
    }

    fn new(responses: bool) -> Self {
        Self {
            responses,
            state: State::Head,
            line: Vec::new(),
            messages: Vec::new(),
            broken: false,
        }
    }

    /// All messages so far; the last may be incomplete.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Something was no HTTP/1.1.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Takes the next bytes, however they are cut.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.broken {
            let n = match self.state {
                State::Length(left) | State::Chunk(left) => left.min(bytes.len()),
                State::UntilEnd => bytes.len(),
                State::Head | State::ChunkSize | State::Trailers => {
                    let line = bytes.iter().position(|b| *b == b'\n');
                    let n = line.map_or(bytes.len(), |at| at + 1);
                    self.line.extend_from_slice(&bytes[..n]);
                    bytes = &bytes[n..];
                    if line.is_some() {
                        self.end_of_line();
                    }
                    continue;
                }
            };
            if let Some(message) = self.messages.last_mut() {
                message.body.extend_from_slice(&bytes[..n]);
            }
            bytes = &bytes[n..];
            match &mut self.state {
                State::Length(left) => {
                    *left -= n;
                    if *left == 0 {
                        self.complete();
                    }
                }
                State::Chunk(left) => {
                    *left -= n;
                    if *left == 0 {
                        self.state = State::ChunkSize;
                    }
                }
                State::Head | State::ChunkSize | State::Trailers | State::UntilEnd => {}
            }
        }
    }

    /// The other side finished its direction.
    pub fn end(&mut self) {
        if self.state == State::UntilEnd {
            self.complete();
        }
    }

    fn complete(&mut self) {
        self.state = State::Head;
        if let Some(message) = self.messages.last_mut() {
            message.complete = true;
        }
    }

    fn end_of_line(&mut self) {
        match self.state {
            State::Head => {
                // The head is kept whole until its empty line.
                let head = &self.line;
                if head == b"\r\n" {
                    self.line.clear();
                } else if head.ends_with(b"\r\n\r\n") {
                    let head =
                        String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                    self.head(&head);
                }
            }
            State::ChunkSize => {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                let size = line.trim();
                if size.is_empty() {
                    return;
                }
                match usize::from_str_radix(size, 16) {
                    Ok(0) => self.state = State::Trailers,
                    Ok(n) => self.state = State::Chunk(n),
                    Err(_) => self.broken = true,
                }
            }
            State::Trailers => {
                let line = std::mem::take(&mut self.line);
                if line == b"\r\n" {
                    self.complete();
                }
            }
            State::Length(_) | State::Chunk(_) | State::UntilEnd => {}
        }
    }

    fn head(&mut self, head: &str) {
        let mut lines = head.split("\r\n");
        let mut message = Message {
            start: lines.next().unwrap_or_default().to_owned(),
            ..Message::default()
        };
        for line in lines.filter(|l| !l.is_empty()) {
            let Some((name, value)) = line.split_once(':') else {
                self.broken = true;
                return;
            };
            let value = value.trim().to_owned();
            message.fields.push((name.to_ascii_lowercase(), value));
        }
        if !message.start.contains("HTTP/1.1") {
            self.broken = true;
            return;
        }
        let chunked = message.field("transfer-encoding") == Some("chunked");
        let length = message.field("content-length").map(str::parse);
        self.state = match (chunked, length) {
            (true, None) => State::ChunkSize,
            (false, Some(Ok(n))) => State::Length(n),
            (false, None) if self.responses => State::UntilEnd,
            (false, None) => State::Length(0),
            (true, Some(_)) | (false, Some(Err(_))) => {
                self.broken = true;
                return;
            }
        };
        self.messages.push(message);
        if self.state == State::Length(0) {
            self.complete();
        }
    }
}

/// A body cut into chunks at `cuts`.
pub fn chunked(body: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    for cut in cuts.iter().copied().chain([body.len()]) {
        let piece = &body[at..cut.clamp(at, body.len())];
        at += piece.len();
        if !piece.is_empty() {
            out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let mut text =
            b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        text.extend(chunked(b"hello world", &[3, 3, 9]));
        text.extend(b"GET /b HTTP/1.1\r\n\r\nPUT /c HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc");
        let whole = {
            let mut reader = Reader::of_requests();
            reader.push(&text);
            reader
        };
        assert!(!whole.is_broken());
        let bodies: Vec<_> = whole
            .messages()
            .iter()
            .map(|m| (m.target(), &m.body[..]))
            .collect();
        assert_eq!(
            bodies,
            [("/a", &b"hello world"[..]), ("/b", b""), ("/c", b"abc")]
        );
        assert!(whole.messages().iter().all(|m| m.complete));
        for cut in 0..text.len() {
            let mut reader = Reader::of_requests();
            reader.push(&text[..cut]);
            reader.push(&text[cut..]);
            assert_eq!(reader.messages(), whole.messages(), "cut at {cut}");
        }
    }

    #[test]
    fn a_response_without_length_ends_with_its_connection() {
        let mut reader = Reader::of_responses();
        reader.push(b"HTTP/1.1 200 OK\r\n\r\nab");
        assert!(!reader.messages()[0].complete);
        reader.end();
        assert!(reader.messages()[0].complete);
        assert_eq!(reader.messages()[0].body, b"ab");
    }
}
