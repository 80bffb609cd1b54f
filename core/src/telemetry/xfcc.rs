//! The header `x-forwarded-client-cert` (S-325).
//!
//! Elements are separated by `,`, one for each proxy on the way; an element is pairs `key=value` separated by `;`. This
//! module writes our own element and reads a whole value. Whether a value that came in is kept (APPEND_FORWARD) or dropped
//! (SANITIZE_SET, or no mutual TLS) is not decided here.

/// Appends the element about one peer; after a value that stands in `out` already, with the `,` between.
///
/// `by` is our own identity, `sha256` the digest of the peer's certificate in DER, `subject` its subject as RFC 4514 prints it
/// (empty if it has none), `uri` its SPIFFE id, `dns` its DNS names.
///
/// What comes out is ASCII without control bytes, and [`parse`] finds exactly these pairs: a value that could be taken for
/// more than one is quoted.
pub fn element(
    by: &str,
    sha256: &[u8; 32],
    subject: &str,
    uri: &str,
    dns: &[String],
    out: &mut Vec<u8>,
) {
    if !out.is_empty() {
        out.push(b',');
    }
    out.extend_from_slice(b"By=");
    value(by, out);
    out.extend_from_slice(b";Hash=");
    for byte in sha256 {
        out.push(digit(byte >> 4, b"0123456789abcdef"));
        out.push(digit(*byte, b"0123456789abcdef"));
    }
    out.extend_from_slice(b";Subject=");
    quoted(subject, out);
    out.extend_from_slice(b";URI=");
    value(uri, out);
    for name in dns {
        out.extend_from_slice(b";DNS=");
        value(name, out);
    }
}

fn value(text: &str, out: &mut Vec<u8>) {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b',' | b';' | b'=' | b'"' | b'\\');
    if text.bytes().all(plain) {
        out.extend_from_slice(text.as_bytes());
    } else {
        quoted(text, out);
    }
}

/// In quotation marks. A backslash of RFC 4514 stays what it is; a `"` without one gets it, and a byte that may not stand in
/// a header becomes `\XX` (RFC 4514 §2.4).
fn quoted(text: &str, out: &mut Vec<u8>) {
    let mut escaped = false;
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' if !escaped => out.extend_from_slice(b"\\\""),
            b' '..=b'~' => out.push(byte),
            _ => {
                if !escaped {
                    out.push(b'\\');
                }
                out.push(digit(byte >> 4, b"0123456789ABCDEF"));
                out.push(digit(byte, b"0123456789ABCDEF"));
            }
        }
        escaped = byte == b'\\' && !escaped;
    }
    if escaped {
        out.push(b'\\');
    }
    out.push(b'"');
}

fn digit(nibble: u8, digits: &[u8; 16]) -> u8 {
    digits[usize::from(nibble & 15)]
}

/// What a pair says. Keys are read in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    By,
    Hash,
    Cert,
    Chain,
    Subject,
    Uri,
    Dns,
}

impl Key {
    const ALL: [(Self, &'static str); 7] = [
        (Self::By, "By"),
        (Self::Hash, "Hash"),
        (Self::Cert, "Cert"),
        (Self::Chain, "Chain"),
        (Self::Subject, "Subject"),
        (Self::Uri, "URI"),
        (Self::Dns, "DNS"),
    ];

    /// As the header spells it.
    pub fn name(self) -> &'static str {
        let own = Self::ALL.iter().find(|(key, _)| *key == self);
        own.map_or("", |(_, name)| name)
    }

    fn read(name: &str) -> Option<Self> {
        let known = Self::ALL
            .iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(name));
        known.map(|(key, _)| *key)
    }
}

/// What one proxy said about its peer: pairs in their order. `URI`, `DNS` and `By` may come more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    pub pairs: Vec<(Key, String)>,
}

impl Element {
    /// All values of a key.
    pub fn all(&self, key: Key) -> impl Iterator<Item = &str> {
        self.pairs
            .iter()
            .filter(move |(own, _)| *own == key)
            .map(|(_, value)| value.as_str())
    }
}

/// Why a value is no `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XfccError {
    #[error("no pair of key and value where one must stand")]
    Pair,
    #[error("unknown key")]
    Key,
    #[error("`=` or `\"` in a value without quotation marks")]
    Unquoted,
    #[error("quotation marks do not close a value")]
    Quotes,
}

/// Reads a header value, strictly: what could mean two things is an error. In a quoted value `\"` stands for `"`; other
/// backslashes stay. Blanks around elements are not part of them (RFC 9110 §5.6.1).
pub fn parse(text: &str) -> Result<Vec<Element>, XfccError> {
    let blank = |c: char| c == ' ' || c == '\t';
    let mut elements = Vec::new();
    let mut element = Element::default();
    let mut rest = text.trim_start_matches(blank);
    loop {
        let (name, after) = rest.split_once('=').ok_or(XfccError::Pair)?;
        if name.is_empty() || name.contains([',', ';', '"']) {
            return Err(XfccError::Pair);
        }
        let key = Key::read(name).ok_or(XfccError::Key)?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => read_quoted(quoted)?,
            None => {
                let end = after.find([',', ';']).unwrap_or(after.len());
                let (value, after) = after.split_at(end);
                if value.contains(['=', '"']) {
                    return Err(XfccError::Unquoted);
                }
                (value.trim_end_matches(blank).to_owned(), after)
            }
        };
        element.pairs.push((key, value));
        let after = after.trim_start_matches(blank);
        if let Some(next) = after.strip_prefix(';') {
            rest = next;
            continue;
        }
        elements.push(std::mem::take(&mut element));
        match after.strip_prefix(',') {
            Some(next) => rest = next.trim_start_matches(blank),
            None if after.is_empty() => return Ok(elements),
            None => return Err(XfccError::Quotes),
        }
    }
}

/// The value up to its closing mark, and what follows it.
fn read_quoted(text: &str) -> Result<(String, &str), XfccError> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => match chars.next() {
                Some((_, '"')) => value.push('"'),
                Some((_, other)) => value.extend(['\\', other]),
                None => return Err(XfccError::Quotes),
            },
            _ => value.push(c),
        }
    }
    Err(XfccError::Quotes)
}

#[cfg(test)]
mod tests;
