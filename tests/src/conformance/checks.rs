//! Checks as typed values: what is given, and what is expected by name.
//!
//! Checks of kinds that nobody runs are read for their id, kind and needs alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use meshward_core::accept::PortKind;
use meshward_core::api::load::yaml::{Node, Value};
use meshward_core::api::peer_authentication::Mode;

use super::cert::Spec;
use super::corpus::{Case, top_level};
use super::pure;
use super::tree::{Fault, Fields, fault, flag, list, number, plain_json, text, texts};

#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) id: String,
    pub(super) line: u32,
    pub(super) kind: String,
    pub(super) needs: Vec<String>,
    pub(super) rule: Vec<String>,
    /// `None`: a kind that is not run.
    pub(super) given: Option<Given>,
    /// Field and value; empty where the kind is not run.
    pub(super) expect: BTreeMap<String, Node>,
}

/// What a check of a kind that is run is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Given {
    EffectiveMtls {
        workload: String,
        port: u16,
    },
    AutoMtls {
        headless: bool,
        external: bool,
        /// Whether each endpoint has the label `security.istio.io/tlsMode: istio`.
        endpoints: Vec<bool>,
    },
    TlsProbe {
        workload: String,
        port: u16,
        client: Box<Client>,
    },
    Request(Box<Request>),
    Tcp {
        from: Who,
        to: To,
        tls: Option<AppTls>,
    },
    Timeline {
        from: Who,
        to: To,
        send: Vec<Step>,
    },
    ClientHello {
        from: Who,
        to: To,
        http: Spoken,
    },
    Sniff {
        mode: Mode,
        kind: PortKind,
        timeout: Duration,
        send: Vec<Step>,
    },
    Retry {
        outbound: bool,
        failure: Failure,
    },
    /// About a rule and no proxy.
    Pure(pure::Question),
}

/// Who opens a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// A workload, or somebody outside.
    Named(String),
    /// A client that opens the connection itself: with this identity, or in plaintext.
    Bare {
        identity: Option<String>,
        ip: IpAddr,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct To {
    pub(super) host: String,
    pub(super) port: u16,
    /// The client's sidecar is not passed.
    pub(super) bypass: bool,
    /// The name is one of a server outside of the mesh.
    pub(super) exists: bool,
    /// What is reached through a gateway, or as a subset of a service.
    pub(super) indirect: bool,
}

/// The client speaks TLS itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AppTls {
    pub(super) cert: Option<Spec>,
    pub(super) version: Option<Version>,
    pub(super) alpn: Option<Vec<String>>,
    pub(super) sni: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) from: Who,
    pub(super) to: To,
    pub(super) method: String,
    pub(super) path: String,
    /// Each character is one byte.
    pub(super) headers: Vec<(String, String)>,
    pub(super) jwt: Vec<Placed>,
    pub(super) authority: Option<String>,
    /// `1.1`, or the version that it says.
    pub(super) http: String,
    pub(super) tls: Option<AppTls>,
    pub(super) repeat: u32,
    pub(super) wait: Duration,
    /// Fields that only features have which are lacking.
    pub(super) beyond: Vec<&'static str>,
}

/// A token and where the request carries it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    pub(super) place: Place,
    pub(super) prefix: String,
    pub(super) token: Token,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Authorization,
    Header(String),
    Param(String),
    Cookie(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Made {
        key: String,
        claims: serde_json::Map<String, serde_json::Value>,
        alg: String,
        /// Empty: none.
        kid: String,
        /// Seconds from now.
        exp_in: Option<i64>,
        nbf_in: Option<i64>,
        tamper: Option<Tamper>,
    },
    Raw(String),
    Parts {
        header: String,
        payload: String,
        key: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tamper {
    Signature,
    Payload,
}

/// One of the things that a client does in turn.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Bytes(Vec<u8>),
    Hello {
        alpn: Vec<String>,
        sni: Option<String>,
        /// So many bytes come one by one.
        split: usize,
    },
    Wait(Duration),
}

/// What an application speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Bytes,
    Http1,
    Http2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    ConnectRefused,
    CloseAfterRequest,
    Status503,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Client {
    pub(super) version: Version,
    pub(super) alpn: Vec<String>,
    pub(super) cert: Option<Spec>,
    pub(super) sni: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Tls11,
    Tls12,
    Tls13,
}

/// The fields that `expect` of a kind may have.
fn expectations(given: &Given) -> &'static [&'static str] {
    match given {
        Given::EffectiveMtls { .. } => &["mode"],
        Given::AutoMtls { .. } => &["endpoints"],
        Given::TlsProbe { .. } => &[
            "handshake",
            "alert",
            "alpn",
            "peer_uri_san",
            "peer_dns_san",
            "curl_exit",
            "http_status",
        ],
        Given::Request(_) => &[
            "status",
            "curl_exit",
            "body",
            "body_bytes",
            "flags",
            "details",
            "policy",
            "response_headers",
            "not",
            "upstream",
            "upstream_cluster",
            "mtls",
            "tls",
            "grpc_status",
            "grpc_message",
            "http_status",
            "shadow",
            "permissive",
            "permissive_policy",
            "check_request",
            "check_requests",
        ],
        Given::Tcp { .. } => &["result", "details"],
        Given::Timeline { .. } => &["connect", "before_send", "after_send", "app_bytes"],
        Given::ClientHello { .. } => &["alpn", "sni"],
        Given::Sniff { .. } => &["decision"],
        Given::Retry { .. } => &["attempts", "status"],
        Given::Pure(question) => question.expectations(),
    }
}

impl Check {
    pub(super) fn read(node: &Node) -> Result<Self, Fault> {
        let mut fields = Fields::of(node, "a check")?;
        let mut check = Self {
            id: fields.text("id")?.to_owned(),
            line: node.place.line,
            kind: fields.text("kind")?.to_owned(),
            needs: fields.texts("needs")?,
            rule: texts(fields.need("rule")?)?,
            given: None,
            expect: BTreeMap::new(),
        };
        let Some(given) = Given::read(&check.kind, &mut fields)? else {
            return Ok(check);
        };
        let node = fields.need("expect")?;
        fields.end()?;
        check.expect = top_level(node)?;
        let known = expectations(&given);
        if check.expect.is_empty() {
            return fault(node, "the check expects nothing");
        }
        let mut unknown = check.expect.iter();
        if let Some((name, node)) = unknown.find(|(name, _)| !known.contains(&&***name)) {
            return fault(node, format!("nothing of this kind is called `{name}`"));
        }
        check.given = Some(given);
        Ok(check)
    }

    /// Faults what the mesh of the case does not have.
    pub(super) fn fit(&self, case: &Case) -> Result<(), Fault> {
        let wrong = |message| {
            Err(Fault {
                line: self.line,
                message,
            })
        };
        let has = |name: &str| case.mesh.by_name.contains_key(name);
        match &self.given {
            Some(Given::EffectiveMtls { workload, .. } | Given::TlsProbe { workload, .. })
                if !has(workload) =>
            {
                wrong(format!("the mesh has no workload `{workload}`"))
            }
            Some(given) => match given.from() {
                Some(Who::Named(name)) if !has(name) && !case.mesh.external.contains_key(name) => {
                    wrong(format!("the mesh has no client `{name}`"))
                }
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }
}

impl Given {
    /// `None`: nobody runs this kind; nothing was read.
    fn read(kind: &str, fields: &mut Fields<'_>) -> Result<Option<Self>, Fault> {
        Ok(Some(match kind {
            "effective_mtls" => Self::EffectiveMtls {
                workload: fields.text("workload")?.to_owned(),
                port: fields.port("port")?,
            },
            "auto_mtls" => read_auto_mtls(fields.need("service")?)?,
            "tls_probe" => {
                let mut to = Fields::of(fields.need("to")?, "`to`")?;
                let given = Self::TlsProbe {
                    workload: to.text("workload")?.to_owned(),
                    port: to.port("port")?,
                    client: Box::new(Client::read(fields.need("client")?)?),
                };
                to.end()?;
                given
            }
            "request" => Self::Request(Box::new(Request::read(fields)?)),
            "tcp" => {
                let mut to = To::read(fields.need("to")?)?;
                to.indirect |= fields.take("proxy_header").is_some();
                Self::Tcp {
                    from: Who::read(fields.need("from")?)?,
                    to,
                    tls: fields.take("tls").map(AppTls::read).transpose()?,
                }
            }
            "tcp_timeline" => Self::Timeline {
                from: Who::read(fields.need("from")?)?,
                to: To::read(fields.need("to")?)?,
                send: steps(fields.need("send")?)?,
            },
            "client_hello" => Self::ClientHello {
                from: Who::read(fields.need("from")?)?,
                to: To::read(fields.need("to")?)?,
                http: word(
                    fields.need("http")?,
                    &[
                        ("none", Spoken::Bytes),
                        ("1.1", Spoken::Http1),
                        ("2", Spoken::Http2),
                    ],
                )?,
            },
            "sniff" => read_sniff(fields)?,
            "retry" => Self::Retry {
                outbound: word(
                    fields.need("side")?,
                    &[("outbound", true), ("inbound", false)],
                )?,
                failure: word(
                    fields.need("failure")?,
                    &[
                        ("connect_refused", Failure::ConnectRefused),
                        ("close_after_request", Failure::CloseAfterRequest),
                        ("status_503", Failure::Status503),
                    ],
                )?,
            },
            _ => return Ok(pure::Question::read(kind, fields)?.map(Self::Pure)),
        }))
    }

    /// Who calls, and whom.
    pub(super) fn call(&self) -> Option<(&Who, &To)> {
        match self {
            Self::Request(request) => Some((&request.from, &request.to)),
            Self::Tcp { from, to, .. }
            | Self::Timeline { from, to, .. }
            | Self::ClientHello { from, to, .. } => Some((from, to)),
            Self::EffectiveMtls { .. }
            | Self::AutoMtls { .. }
            | Self::TlsProbe { .. }
            | Self::Sniff { .. }
            | Self::Retry { .. }
            | Self::Pure(_) => None,
        }
    }

    /// How long it waits by itself.
    pub(super) fn waits(&self) -> Duration {
        let of = |steps: &[Step]| {
            let spans = steps.iter().map(|step| match step {
                Step::Wait(span) => *span,
                Step::Bytes(_) | Step::Hello { .. } => Duration::ZERO,
            });
            spans.sum()
        };
        match self {
            Self::Request(request) => request.wait,
            Self::Timeline { send, .. } | Self::Sniff { send, .. } => of(send),
            Self::EffectiveMtls { .. }
            | Self::AutoMtls { .. }
            | Self::TlsProbe { .. }
            | Self::Tcp { .. }
            | Self::ClientHello { .. }
            | Self::Retry { .. }
            | Self::Pure(_) => Duration::ZERO,
        }
    }

    fn from(&self) -> Option<&Who> {
        self.call().map(|(from, _)| from)
    }
}

/// What one of these words stands for.
fn word<T: Copy>(node: &Node, known: &[(&str, T)]) -> Result<T, Fault> {
    let word = text(node)?;
    match known.iter().find(|(name, _)| *name == word) {
        Some((_, value)) => Ok(*value),
        None => fault(node, format!("`{word}` is not known here")),
    }
}

fn seconds(node: &Node) -> Result<Duration, Fault> {
    number(node).map(Duration::from_secs)
}

fn owned(node: Option<&Node>) -> Result<Option<String>, Fault> {
    node.map(|node| text(node).map(str::to_owned)).transpose()
}

impl Who {
    fn read(node: &Node) -> Result<Self, Fault> {
        if !matches!(node.value, Value::Map(_)) {
            return Ok(Self::Named(text(node)?.to_owned()));
        }
        let mut fields = Fields::of(node, "a client")?;
        let identity = fields.need("identity")?;
        let from = Self::Bare {
            identity: match identity.value {
                Value::Null => None,
                _ => Some(text(identity)?.to_owned()),
            },
            ip: fields.take("ip").map_or(Ok(BARE), address)?,
        };
        fields.end()?;
        Ok(from)
    }
}

/// Where a bare client is that says nothing about it (FORMAT.md).
pub(super) const BARE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));

pub(super) fn address(node: &Node) -> Result<IpAddr, Fault> {
    text(node)?
        .parse()
        .or_else(|_| fault(node, "this is no address"))
}

impl To {
    fn read(node: &Node) -> Result<Self, Fault> {
        let mut fields = Fields::of(node, "`to`")?;
        let indirect = ["via", "gateway", "subset"].map(|name| fields.take(name).is_some());
        let to = Self {
            host: fields.text("host")?.to_owned(),
            port: fields.port("port")?,
            bypass: fields.flag("bypass")?.unwrap_or(false),
            exists: fields.flag("exists")?.unwrap_or(false),
            indirect: indirect.contains(&true),
        };
        fields.end()?;
        Ok(to)
    }
}

impl AppTls {
    fn read(node: &Node) -> Result<Self, Fault> {
        let mut fields = Fields::of(node, "`tls`")?;
        let tls = Self {
            cert: read_cert(fields.need("cert")?)?,
            version: fields.take("version").map(read_version).transpose()?,
            alpn: fields.take("alpn").map(texts).transpose()?,
            sni: owned(fields.take("sni"))?,
        };
        fields.end()?;
        Ok(tls)
    }
}

impl Request {
    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let header = |node: &Node| match list(node)? {
            [name, value] => Ok((text(name)?.to_owned(), text(value)?.to_owned())),
            _ => fault(node, "a header is a name and a value"),
        };
        let headers = fields.take("headers").map_or(Ok(&[][..]), list)?;
        let jwt = fields.take("jwt").map_or(Ok(&[][..]), list)?;
        let beyond = ["proxy_header", "jwks_now"];
        Ok(Self {
            beyond: beyond
                .into_iter()
                .filter(|name| fields.take(name).is_some())
                .collect(),
            from: Who::read(fields.need("from")?)?,
            to: To::read(fields.need("to")?)?,
            method: owned(fields.take("method"))?.unwrap_or_else(|| "GET".into()),
            path: owned(fields.take("path"))?.unwrap_or_else(|| "/".into()),
            headers: headers.iter().map(header).collect::<Result<_, _>>()?,
            jwt: jwt.iter().map(Placed::read).collect::<Result<_, _>>()?,
            authority: owned(fields.take("authority"))?,
            http: owned(fields.take("http"))?.unwrap_or_else(|| "1.1".into()),
            tls: fields.take("tls").map(AppTls::read).transpose()?,
            repeat: fields.take("repeat").map_or(Ok(1), number)?,
            wait: fields.take("wait_s").map_or(Ok(Duration::ZERO), seconds)?,
        })
    }
}

impl Placed {
    fn read(node: &Node) -> Result<Self, Fault> {
        let mut fields = Fields::of(node, "a token's place")?;
        let place = fields.need("in")?;
        let (place, usual) = match text(place)?.split_once(':') {
            None if text(place)? == "authorization" => (Place::Authorization, "Bearer "),
            Some(("header", name)) => (Place::Header(name.to_owned()), ""),
            Some(("param", name)) => (Place::Param(name.to_owned()), ""),
            Some(("cookie", name)) => (Place::Cookie(name.to_owned()), ""),
            _ => return fault(place, "this is no place for a token"),
        };
        let placed = Self {
            place,
            prefix: owned(fields.take("prefix"))?.unwrap_or_else(|| usual.to_owned()),
            token: Token::read(fields.need("token")?)?,
        };
        fields.end()?;
        Ok(placed)
    }
}

impl Token {
    fn read(node: &Node) -> Result<Self, Fault> {
        let mut fields = Fields::of(node, "a token")?;
        let token = if let Some(raw) = fields.take("raw") {
            Self::Raw(text(raw)?.to_owned())
        } else if let Some(parts) = fields.take("parts") {
            let mut parts = Fields::of(parts, "the parts of a token")?;
            let token = Self::Parts {
                header: parts.text("header")?.to_owned(),
                payload: parts.text("payload")?.to_owned(),
                key: parts.text("sign_with")?.to_owned(),
            };
            parts.end()?;
            token
        } else {
            let key = fields.text("key")?.to_owned();
            let claims = fields.need("claims")?;
            let serde_json::Value::Object(claims) = plain_json(claims) else {
                return fault(claims, "claims are a map");
            };
            Self::Made {
                claims,
                alg: owned(fields.take("alg"))?.unwrap_or_else(|| "RS256".into()),
                kid: owned(fields.take("kid"))?.unwrap_or_else(|| key.clone()),
                exp_in: match fields.take("exp_in") {
                    None => Some(3600),
                    Some(node) if node.value == Value::Null => None,
                    Some(node) => Some(number(node)?),
                },
                nbf_in: fields.take("nbf_in").map(number).transpose()?,
                tamper: match fields.take("tamper") {
                    None => None,
                    Some(node) => Some(word(
                        node,
                        &[
                            ("signature", Tamper::Signature),
                            ("payload", Tamper::Payload),
                        ],
                    )?),
                },
                key,
            }
        };
        fields.end()?;
        Ok(token)
    }
}

fn steps(node: &Node) -> Result<Vec<Step>, Fault> {
    let step = |node: &Node| {
        let mut fields = Fields::of(node, "a step")?;
        let step = if let Some(words) = fields.take("text") {
            Step::Bytes(text(words)?.as_bytes().to_vec())
        } else if let Some(digits) = fields.take("hex") {
            match unhex(text(digits)?) {
                Some(bytes) => Step::Bytes(bytes),
                None => return fault(digits, "these are no hexadecimal digits"),
            }
        } else if let Some(hello) = fields.take("client_hello") {
            let mut hello = Fields::of(hello, "a ClientHello")?;
            let step = Step::Hello {
                alpn: hello.texts("alpn")?,
                sni: owned(hello.take("sni"))?,
                split: fields.take("split").map_or(Ok(0), number)?,
            };
            hello.end()?;
            step
        } else {
            Step::Wait(seconds(fields.need("wait_s")?)?)
        };
        fields.end()?;
        Ok(step)
    };
    list(node)?.iter().map(step).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let nibbles: Vec<u8> = digits
        .chars()
        .map(|digit| digit.to_digit(16).map(|nibble| nibble as u8))
        .collect::<Option<_>>()?;
    let (pairs, rest) = nibbles.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn read_sniff(fields: &mut Fields<'_>) -> Result<Given, Fault> {
    let mut port = Fields::of(fields.need("port")?, "a port")?;
    let given = Given::Sniff {
        mode: word(
            port.need("mode")?,
            &[
                ("STRICT", Mode::Strict),
                ("PERMISSIVE", Mode::Permissive),
                ("DISABLE", Mode::Disable),
            ],
        )?,
        kind: word(
            port.need("kind")?,
            &[
                ("HTTP", PortKind::Http),
                ("TCP", PortKind::Tcp),
                ("AUTO", PortKind::Auto),
            ],
        )?,
        timeout: seconds(fields.need("detection_timeout_s")?)?,
        send: steps(fields.need("send")?)?,
    };
    port.end()?;
    Ok(given)
}

fn read_auto_mtls(node: &Node) -> Result<Given, Fault> {
    let mut fields = Fields::of(node, "a service")?;
    let given = Given::AutoMtls {
        external: match fields.take("location") {
            None => false,
            Some(location) => word(
                location,
                &[("MESH_INTERNAL", false), ("MESH_EXTERNAL", true)],
            )?,
        },
        headless: fields.take("headless").map_or(Ok(false), flag)?,
        endpoints: list(fields.need("endpoints")?)?
            .iter()
            .map(|node| word(node, &[("istio", true), ("disabled", false)]))
            .collect::<Result<_, _>>()?,
    };
    fields.end()?;
    Ok(given)
}

impl Client {
    fn read(node: &Node) -> Result<Self, Fault> {
        let mut fields = Fields::of(node, "a client")?;
        let client = Self {
            version: read_version(fields.need("tls")?)?,
            alpn: texts(fields.need("alpn")?)?,
            cert: read_cert(fields.need("cert")?)?,
            sni: owned(fields.take("sni"))?,
        };
        fields.end()?;
        Ok(client)
    }
}

fn read_version(node: &Node) -> Result<Version, Fault> {
    match text(node)? {
        "1.1" => Ok(Version::Tls11),
        "1.2" => Ok(Version::Tls12),
        "1.3" => Ok(Version::Tls13),
        other => fault(node, format!("`{other}` is no version of TLS")),
    }
}

fn read_cert(node: &Node) -> Result<Option<Spec>, Fault> {
    match &node.value {
        Value::Text { text, .. } if text == "none" => Ok(None),
        _ => Spec::read(node).map(Some),
    }
}
