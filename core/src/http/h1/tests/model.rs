//! A second reader of HTTP/1.1 requests, written apart from the receiver and stricter than any server: what the proxy sends
//! must be read by it exactly as the receiver reported it.

/// One request as this reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) method: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) host: Vec<u8>,
    /// Names in small letters, without the fields of framing.
    pub(crate) fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// What was read and the bytes after it; `None` if the input ends before it does.
type Parsed<'a, T> = Result<Option<(T, &'a [u8])>, &'static str>;

/// All requests of `bytes`, and how many bytes of an unfinished one are left.
pub(crate) fn read_all(mut bytes: &[u8]) -> Result<(Vec<Read>, usize), &'static str> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        match read_one(bytes)? {
            Some((request, rest)) => {
                all.push(request);
                bytes = rest;
            }
            None => break,
        }
    }
    Ok((all, bytes.len()))
}

fn read_one(bytes: &[u8]) -> Parsed<'_, Read> {
    let Some((head, rest)) = cut(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let lines: Vec<&[u8]> = split(head, b"\r\n");
    if lines
        .iter()
        .any(|line| line.iter().any(|b| *b < 0x20 && *b != b'\t' || *b == 0x7f))
    {
        return Err("control byte in head");
    }
    let words: Vec<&[u8]> = split(lines[0], b" ");
    let [method, target, b"HTTP/1.1"] = words[..] else {
        return Err("request line");
    };
    if !is_token(method) || target.is_empty() || target.iter().any(|b| *b <= 0x20 || *b >= 0x7f) {
        return Err("request line bytes");
    }
    let mut fields = Vec::new();
    let (mut hosts, mut lengths, mut codings) = (Vec::new(), Vec::new(), Vec::new());
    for line in &lines[1..] {
        let (name, value) = field_line(line)?;
        match name.as_slice() {
            b"host" => hosts.push(value),
            b"content-length" => lengths.push(value),
            b"transfer-encoding" => codings.push(value),
            _ => fields.push((name, value)),
        }
    }
    let [host] = &hosts[..] else {
        return Err("host count");
    };
    let mut request = Read {
        method: method.to_vec(),
        target: target.to_vec(),
        host: host.clone(),
        fields,
        body: Vec::new(),
    };
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Some((request, rest))),
        ([length], []) => {
            let text = std::str::from_utf8(length).map_err(|_| "length")?;
            if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
                return Err("length");
            }
            let length: i64 = text.parse().map_err(|_| "length")?;
            if (rest.len() as i64) < length {
                return Ok(None);
            }
            let (body, rest) = rest.split_at(length as usize);
            request.body = body.to_vec();
            Ok(Some((request, rest)))
        }
        ([], [coding]) if coding == b"chunked" => match chunks(rest)? {
            Some((body, rest)) => {
                request.body = body;
                Ok(Some((request, rest)))
            }
            None => Ok(None),
        },
        _ => Err("framing"),
    }
}

fn chunks(mut bytes: &[u8]) -> Parsed<'_, Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Some((line, rest)) = cut(bytes, b"\r\n") else {
            return Ok(None);
        };
        let text = std::str::from_utf8(line).map_err(|_| "chunk size")?;
        if text.is_empty() || text.len() > 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("chunk size");
        }
        let size = usize::from_str_radix(text, 16).map_err(|_| "chunk size")?;
        bytes = rest;
        if size == 0 {
            break;
        }
        if bytes.len() < size.saturating_add(2) {
            return Ok(None);
        }
        body.extend_from_slice(&bytes[..size]);
        if &bytes[size..size + 2] != b"\r\n" {
            return Err("chunk end");
        }
        bytes = &bytes[size + 2..];
    }
    loop {
        let Some((line, rest)) = cut(bytes, b"\r\n") else {
            return Ok(None);
        };
        bytes = rest;
        if line.is_empty() {
            return Ok(Some((body, bytes)));
        }
        field_line(line)?;
    }
}

fn field_line(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), &'static str> {
    let (name, value) = cut(line, b":").ok_or("no colon")?;
    if !is_token(name) {
        return Err("field name");
    }
    if value.iter().any(|b| *b < 0x20 && *b != b'\t' || *b == 0x7f) {
        return Err("field value");
    }
    let text = |b: &u8| *b != b' ' && *b != b'\t';
    let start = value.iter().position(text).unwrap_or(value.len());
    let end = value.iter().rposition(text).map_or(start, |at| at + 1);
    Ok((name.to_ascii_lowercase(), value[start..end].to_vec()))
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// What is before and after the first `mark`.
fn cut<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(mark.len()).position(|w| w == mark)?;
    Some((&bytes[..at], &bytes[at + mark.len()..]))
}

fn split<'a>(mut bytes: &'a [u8], mark: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some((part, rest)) = cut(bytes, mark) {
        parts.push(part);
        bytes = rest;
    }
    parts.push(bytes);
    parts
}
