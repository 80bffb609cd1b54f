//! HTTP/1 as the clients and applications of the corpus speak it: each character of a head is one byte (Latin-1).
//!
//! Independent of the core's. Whoever uses it believes what it reads.

/// One message, as far as it has arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// The request or status line.
    pub(super) start: String,
    /// Names in lower case.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) complete: bool,
}

impl Message {
    /// All values of a field, in one.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .fields
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(","))
    }

    /// The status of a response, 0 if it has none.
    pub(super) fn status(&self) -> u16 {
        let word = self.start.split(' ').nth(1);
        word.and_then(|word| word.parse().ok()).unwrap_or_default()
    }

    pub(super) fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    pub(super) fn target(&self) -> &str {
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
    Broken,
}

/// What the messages of one direction are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Requests,
    Responses,
    /// To HEAD, so without bodies.
    ResponsesToHead,
}

/// Messages of one direction of one connection.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    kind: Kind,
    state: State,
    line: Vec<u8>,
    messages: Vec<Message>,
}

impl Reader {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            state: State::Head,
            line: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// All messages so far; the last may be incomplete.
    pub(super) fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The first answer that is none of 1xx.
    pub(super) fn answer(&self) -> Option<&Message> {
        self.messages.iter().find(|m| m.status() >= 200)
    }

    /// Something was no HTTP/1.
    pub(super) fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let n = match self.state {
                State::Broken => return,
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
                State::Head
                | State::ChunkSize
                | State::Trailers
                | State::UntilEnd
                | State::Broken => {}
            }
        }
    }

    /// The other side finished its direction.
    pub(super) fn end(&mut self) {
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
                if self.line == b"\r\n" {
                    self.line.clear();
                } else if self.line.ends_with(b"\r\n\r\n") {
                    let head = latin1(&std::mem::take(&mut self.line));
                    self.head(&head);
                }
            }
            State::ChunkSize => {
                let line = latin1(&std::mem::take(&mut self.line));
                let size = line.trim();
                if size.is_empty() {
                    return;
                }
                self.state = match usize::from_str_radix(size, 16) {
                    Ok(0) => State::Trailers,
                    Ok(n) => State::Chunk(n),
                    Err(_) => State::Broken,
                };
            }
            State::Trailers => {
                if std::mem::take(&mut self.line) == b"\r\n" {
                    self.complete();
                }
            }
            State::Length(_) | State::Chunk(_) | State::UntilEnd | State::Broken => {}
        }
    }

    fn head(&mut self, head: &str) {
        let mut lines = head.split("\r\n");
        let mut message = Message {
            start: lines.next().unwrap_or_default().to_owned(),
            ..Message::default()
        };
        for line in lines.filter(|line| !line.is_empty()) {
            let Some((name, value)) = line.split_once(':') else {
                self.state = State::Broken;
                return;
            };
            let value = value.trim_matches([' ', '\t']).to_owned();
            message.fields.push((name.to_ascii_lowercase(), value));
        }
        if !message.start.contains("HTTP/1.") {
            self.state = State::Broken;
            return;
        }
        let chunked = message.field("transfer-encoding").as_deref() == Some("chunked");
        let length = message.field("content-length").map(|n| n.parse());
        let empty = match self.kind {
            Kind::Requests => false,
            Kind::ResponsesToHead => true,
            // RFC 9112 §6.3.
            Kind::Responses => message.status() < 200 || matches!(message.status(), 204 | 304),
        };
        self.state = match (chunked, length) {
            _ if empty => State::Length(0),
            (true, None) => State::ChunkSize,
            (false, Some(Ok(n))) => State::Length(n),
            (false, None) if self.kind == Kind::Requests => State::Length(0),
            (false, None) => State::UntilEnd,
            (true, Some(_)) | (false, Some(Err(_))) => State::Broken,
        };
        self.messages.push(message);
        if self.state == State::Length(0) {
            self.complete();
        }
    }
}

/// A text of which each byte is one character.
pub(super) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The bytes of such a text; `None`: a character is none of Latin-1.
pub(super) fn to_latin1(text: &str) -> Option<Vec<u8>> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, pieces: &[&[u8]]) -> Reader {
        let mut reader = Reader::new(kind);
        for piece in pieces {
            reader.push(piece);
        }
        reader
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let text = b"POST /\xe9 HTTP/1.1\r\nHost: x\r\nX: a\r\nx: \xfc \r\nTransfer-Encoding: chunked\r\n\r\n\
                     3\r\nabc\r\n0\r\n\r\nGET /b HTTP/1.0\r\n\r\nPUT /c HTTP/1.1\r\ncontent-length: 2\r\n\r\nab";
        let whole = read(Kind::Requests, &[text]);
        let told: Vec<_> = whole
            .messages()
            .iter()
            .map(|m| (m.method(), m.target(), m.body.as_slice(), m.complete))
            .collect();
        assert_eq!(
            told,
            [
                ("POST", "/\u{e9}", &b"abc"[..], true),
                ("GET", "/b", b"", true),
                ("PUT", "/c", b"ab", true)
            ]
        );
        assert_eq!(whole.messages()[0].field("x").as_deref(), Some("a,\u{fc}"));
        assert_eq!(to_latin1("/\u{e9}"), Some(b"/\xe9".to_vec()));
        assert_eq!(to_latin1("\u{20ac}"), None);
        for cut in 0..text.len() {
            let cut = read(Kind::Requests, &[&text[..cut], &text[cut..]]);
            assert_eq!(cut.messages(), whole.messages());
        }
    }

    #[test]
    fn an_answer_ends_where_its_kind_says() {
        let head =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\ncontent-length: 19\r\n\r\n";
        let answer = |kind| read(kind, &[head]).answer().cloned();
        let open = answer(Kind::Responses).expect("an answer");
        assert!(open.status() == 403 && !open.complete);
        assert!(answer(Kind::ResponsesToHead).is_some_and(|m| m.complete));
        let mut until_end = read(Kind::Responses, &[b"HTTP/1.1 200 OK\r\n\r\nab"]);
        assert!(!until_end.messages()[0].complete);
        until_end.end();
        assert!(until_end.messages()[0].complete);
        let none = read(Kind::Responses, &[b"HTTP/1.1 304 Not Modified\r\n\r\n"]);
        assert!(none.messages()[0].complete);
        assert!(read(Kind::Responses, &[b"220 ready\r\n\r\n"]).is_broken());
    }
}
