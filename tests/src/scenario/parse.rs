//! Text to commands, with the place of whatever is wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Block, Command, Identity, Open, Protocol, Scenario, Tls, Workload};

/// Something in a file that is no scenario. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    pub path: PathBuf,
    pub line: usize,
    pub message: String,
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

impl std::error::Error for ParseError {}

/// Reads one file. `path` is for errors alone.
pub fn parse(path: &Path, text: &str) -> Result<Scenario, ParseError> {
    let mut scenario = Scenario {
        path: path.into(),
        blocks: Vec::new(),
    };
    let fail = |line, message: String| ParseError {
        path: path.into(),
        line,
        message,
    };
    let mut lines = text.lines().zip(1..).peekable();
    let mut commands: Vec<(usize, Command)> = Vec::new();
    let mut begun = None;
    while let Some((line, number)) = lines.next() {
        if line == "----" {
            let mut outcome = Vec::new();
            while let Some((line, number)) = lines.next_if(|(l, _)| !l.trim().is_empty()) {
                if line == "----" {
                    return Err(fail(number, "a second `----` in one block".into()));
                }
                outcome.push(line.to_owned());
            }
            scenario.blocks.push(Block {
                commands: std::mem::take(&mut commands),
                line: number,
                outcome,
            });
            begun = None;
            continue;
        }
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut body = Vec::new();
        while let Some((line, _)) =
            lines.next_if(|(l, _)| l.starts_with("  ") || l.starts_with('|') || l.starts_with('+'))
        {
            body.push(line);
        }
        begun = begun.or(Some(number));
        let command = parse_command(line, &body).map_err(|message| fail(number, message))?;
        commands.push((number, command));
        let alone = commands.len() == 1;
        if !alone
            && commands
                .iter()
                .any(|(_, c)| matches!(c, Command::Advance(_)))
        {
            return Err(fail(number, "`advance` stands alone in its block".into()));
        }
    }
    if let Some(number) = begun {
        return Err(fail(number, "a block without `----`".into()));
    }
    check_names(&scenario)?;
    Ok(scenario)
}

fn parse_command(line: &str, body: &[&str]) -> Result<Command, String> {
    let mut words = Words::new(line);
    let verb = words.next()?;
    let command = match verb {
        "workload" => Command::Workload(workload(&mut words)?),
        "mesh" | "apply" | "delete" => {
            let yaml: Option<Vec<&str>> = body.iter().map(|l| l.strip_prefix("  ")).collect();
            let yaml = yaml.ok_or("YAML is indented by two spaces")?.join("\n") + "\n";
            words.end()?;
            return Ok(match verb {
                "mesh" => Command::Mesh(yaml),
                "apply" => Command::Apply(yaml),
                _ => Command::Delete(yaml),
            });
        }
        "hold" => Command::Hold(words.next()?.to_owned()),
        "release" => Command::Release(words.next()?.to_owned()),
        "open" => Command::Open(open(&mut words)?),
        "send" => {
            let conn = words.next()?.to_owned();
            let bytes = match words.option("fill") {
                Some(n) => pattern(number(n)?),
                None => payload(body)?,
            };
            if bytes.is_empty() {
                return Err("nothing to send".into());
            }
            words.end()?;
            return Ok(Command::Send { conn, bytes });
        }
        "finish" => Command::Finish(words.next()?.to_owned()),
        "reset" => Command::Reset(words.next()?.to_owned()),
        "close" => Command::Close {
            workload: words.next()?.to_owned(),
            port: number(words.next()?)?,
        },
        "silence" => Command::Silence {
            workload: words.next()?.to_owned(),
            port: number(words.next()?)?,
        },
        "drain" => Command::Drain {
            workload: words.next()?.to_owned(),
            grace: duration(words.next()?)?,
        },
        "advance" => Command::Advance(duration(words.next()?)?),
        other => return Err(format!("no command `{other}`")),
    };
    words.end()?;
    if !body.is_empty() {
        return Err(format!("`{verb}` takes no lines after it"));
    }
    Ok(command)
}

fn workload(words: &mut Words<'_>) -> Result<Workload, String> {
    let name = words.next()?.to_owned();
    let identity = identity(words, &name);
    let expected = words.option("expected-sa").map(|sa| Identity {
        service_account: sa.into(),
        ..identity.clone()
    });
    let mut ports = Vec::new();
    for port in words.option("ports").into_iter().flat_map(|p| p.split(',')) {
        let (n, protocol) = port
            .split_once(':')
            .ok_or_else(|| format!("`{port}` is not PORT:PROTOCOL"))?;
        let protocol = match protocol {
            "http" => Protocol::Http,
            "tcp" => Protocol::Tcp,
            "auto" => Protocol::Auto,
            other => return Err(format!("no protocol `{other}`")),
        };
        ports.push((number(n)?, protocol));
    }
    Ok(Workload {
        name,
        identity,
        ports,
        expected,
    })
}

fn identity(words: &mut Words<'_>, name: &str) -> Identity {
    let mut take = |key, default: &str| words.option(key).unwrap_or(default).to_owned();
    Identity {
        trust_domain: take("td", "cluster.local"),
        namespace: take("ns", "default"),
        service_account: take("sa", name),
        ca: take("ca", "mesh"),
    }
}

fn open(words: &mut Words<'_>) -> Result<Open, String> {
    let name = words.next()?.to_owned();
    let to = words.option("to").ok_or("`open` needs to=WORKLOAD:PORT")?;
    let (host, port) = to
        .split_once(':')
        .ok_or_else(|| format!("`{to}` is not WORKLOAD:PORT"))?;
    let via = words.option("via").map(ToOwned::to_owned);
    let from = words.option("from").map(ToOwned::to_owned);
    if via.is_some() && from.is_some() {
        return Err("a client is behind a sidecar or past it".into());
    }
    let tls = if words.flag("tls") {
        if via.is_some() {
            return Err("a client behind a sidecar speaks plaintext".into());
        }
        let without = words.option("cert").map(|c| c == "none");
        if without == Some(false) {
            return Err("`cert=` takes `none` alone".into());
        }
        let me = identity(words, &name);
        Some(Tls {
            identity: without.is_none().then_some(me),
            alpn: words
                .option("alpn")
                .map(|a| a.split(',').map(ToOwned::to_owned).collect())
                .unwrap_or_default(),
            sni: words.option("sni").map(ToOwned::to_owned),
            tls12_only: match words.option("version") {
                None => false,
                Some("1.2") => true,
                Some(other) => return Err(format!("no TLS version `{other}` to choose")),
            },
        })
    } else {
        None
    };
    Ok(Open {
        name,
        host: host.to_owned(),
        port: number(port)?,
        via,
        from,
        tls,
    })
}

/// Names are known before they are used, and connections of clients are named once. Connections of applications are named
/// by the driver, `WORKLOAD.N`, so only the workload can be checked. Who the pods of a mesh are is known where its YAML is
/// read.
fn check_names(scenario: &Scenario) -> Result<(), ParseError> {
    let mut names = Known::default();
    for (line, command) in scenario.blocks.iter().flat_map(|b| &b.commands) {
        names.check(command).map_err(|message| ParseError {
            path: scenario.path.clone(),
            line: *line,
            message,
        })?;
    }
    Ok(())
}

#[derive(Default)]
struct Known<'a> {
    is_mesh: bool,
    workloads: Vec<&'a Workload>,
    clients: Vec<&'a str>,
}

impl<'a> Known<'a> {
    fn check(&mut self, command: &'a Command) -> Result<(), String> {
        match command {
            Command::Workload(w) => {
                if self.is_mesh {
                    return Err("the pods of a mesh are its workloads".into());
                }
                if self.workloads.iter().any(|known| known.name == w.name) {
                    return Err(format!("a second workload `{}`", w.name));
                }
                self.workloads.push(w);
                Ok(())
            }
            Command::Mesh(_) => {
                if self.is_mesh || !self.workloads.is_empty() {
                    return Err("a file describes one mesh, in one way".into());
                }
                self.is_mesh = true;
                Ok(())
            }
            Command::Apply(_) | Command::Advance(_) => Ok(()),
            Command::Delete(_) | Command::Hold(_) | Command::Release(_) => self.needs_mesh(),
            Command::Open(o) => {
                if self.clients.contains(&o.name.as_str()) {
                    return Err(format!("a second connection `{}`", o.name));
                }
                if o.name.contains('.') {
                    return Err("a name with a dot is that of an application's".into());
                }
                self.clients.push(&o.name);
                if o.from.is_some() {
                    self.needs_mesh()?;
                }
                for name in o.via.iter().chain(&o.from) {
                    self.workload(name, None)?;
                }
                self.workload(&o.host, Some(o.port))
            }
            Command::Send { conn, .. } | Command::Finish(conn) | Command::Reset(conn) => {
                let of_app = conn.rsplit_once('.').is_some_and(|(w, n)| {
                    self.workload(w, None).is_ok() && n.parse::<u32>().is_ok()
                });
                if !of_app && !self.clients.contains(&conn.as_str()) {
                    return Err(format!("no connection `{conn}`"));
                }
                Ok(())
            }
            Command::Close { workload, port } | Command::Silence { workload, port } => {
                self.workload(workload, Some(*port))
            }
            Command::Drain { workload, .. } => self.workload(workload, None),
        }
    }

    fn needs_mesh(&self) -> Result<(), String> {
        match self.is_mesh {
            true => Ok(()),
            false => Err("this is for files that say `mesh`".into()),
        }
    }

    fn workload(&self, name: &str, port: Option<u16>) -> Result<(), String> {
        if self.is_mesh {
            return Ok(());
        }
        let found = self.workloads.iter().find(|w| w.name == name);
        let found = found.ok_or_else(|| format!("no workload `{name}`"))?;
        let declares = |port| found.ports.iter().any(|(p, _)| *p == port);
        match port {
            Some(port) if !declares(port) => Err(format!("`{name}` does not declare this port")),
            _ => Ok(()),
        }
    }
}

/// The words of a line: positional ones in order, `key=value` and flags in any.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Self {
        Self(line.split_whitespace().collect())
    }

    fn next(&mut self) -> Result<&'a str, String> {
        if self.0.is_empty() {
            return Err("a word is missing".into());
        }
        Ok(self.0.remove(0))
    }

    fn option(&mut self, key: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|w| {
            w.strip_prefix(key)
                .is_some_and(|rest| rest.starts_with('='))
        })?;
        let word = self.0.remove(at);
        Some(&word[key.len() + 1..])
    }

    fn flag(&mut self, name: &str) -> bool {
        match self.0.iter().position(|w| *w == name) {
            Some(at) => {
                self.0.remove(at);
                true
            }
            None => false,
        }
    }

    fn end(&self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some(word) => Err(format!("`{word}` is not understood here")),
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a number that fits"))
}

fn duration(text: &str) -> Result<Duration, String> {
    if let Some(ms) = text.strip_suffix("ms") {
        return number(ms).map(Duration::from_millis);
    }
    match text.strip_suffix('s') {
        Some(s) => number(s).map(Duration::from_secs),
        None => Err(format!("`{text}` is not a time: 100ms, 5s")),
    }
}

/// `n` bytes that differ from their neighbours, so that a lost or doubled one shows.
fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| b'a' + (i % 23) as u8).collect()
}

fn payload(body: &[&str]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for line in body {
        let (text, ended) = match line.strip_prefix('|') {
            Some(rest) => (rest, true),
            None => (
                line.strip_prefix('+')
                    .ok_or("bytes stand in lines that begin with `|` or `+`")?,
                false,
            ),
        };
        unescape(text.strip_prefix(' ').unwrap_or(text), &mut bytes)?;
        if ended {
            bytes.extend_from_slice(b"\r\n");
        }
    }
    Ok(bytes)
}

fn unescape(text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match rest.next() {
            Some(b'\\') => b'\\',
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'x') => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err("`\\x` takes two hexadecimal digits".into()),
                }
            }
            _ => return Err("an unknown escape".into()),
        });
    }
    Ok(())
}

/// Bytes as `|` and `+` lines, the inverse of what [`parse`] reads. A piece without CRLF of more than 1 KiB is told by its
/// length and hash.
pub fn print_bytes(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|w| w == b"\r\n");
        let (piece, ended) = match end {
            Some(at) => (&rest[..at], true),
            None => (rest, false),
        };
        rest = &rest[piece.len() + if ended { 2 } else { 0 }..];
        let mark = if ended { '|' } else { '+' };
        let line = if piece.len() > 1024 {
            let mut hash = meshward_simulator::trace::Hash::default();
            hash.write(piece);
            format!("{mark} ({} bytes, fnv {hash})", piece.len())
        } else {
            format!("{mark} {}", escape(piece))
        };
        lines.push(line.trim_end().to_owned());
    }
    lines
}

fn escape(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            // A blank at the end of a line would be lost in the file.
            b' ' if i + 1 == bytes.len() => out.push_str("\\x20"),
            0x20..=0x7e => out.push(char::from(*byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out
}
