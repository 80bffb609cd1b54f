//! The kinds of checks about one rule and no proxy: what is given becomes arguments of a function of the core, what that
//! answers becomes the fields of `expect`.

mod log;
mod validate;

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use meshward_core::api::load::yaml::{Node, Value};
use meshward_core::authn::Claims;
use meshward_core::authz::id::details_of;
use meshward_core::authz::matcher::RequestPrincipal;
use meshward_core::authz::pattern::{self, Field};
use meshward_core::authz::trust_domain::expand_principals;
use meshward_core::http::forwarded::{Place, original_client};
use meshward_core::http::h1;
use meshward_core::path::{Normalization, normalize};
use meshward_core::spiffe::{
    Leaf, SpiffeId, TrustBundle, TrustDomain, check_signing_certificate, istio_identity,
};
use meshward_core::telemetry::{Record, accesslog, rbac, xfcc};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value as Json, json};

use super::bytes::Found;
use super::cert::{Authorities, Spec};
use super::tree::{Fault, Fields, fault, list, number, plain_json, text, texts};
use super::words::Makers;

/// What a check of one of these kinds gives.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Question {
    Validate(validate::Document),
    StringMatch {
        field: Field,
        pattern: String,
        value: Option<String>,
        policy_namespace: String,
    },
    RequestPrincipal {
        pattern: String,
        claims: serde_json::Map<String, Json>,
    },
    Normalize {
        mode: Normalization,
        target: String,
    },
    ExpandPrincipals {
        trust_domains: Vec<String>,
        principals: Vec<String>,
    },
    RemoteIp {
        place: Place,
        peer: IpAddr,
        /// Empty: there is no such header.
        forwarded_for: String,
    },
    SpiffeId(String),
    IstioIdentity(String),
    IstioIdentityBuild {
        trust_domain: String,
        namespace: String,
        service_account: Option<String>,
    },
    X509Svid(Box<Spec>),
    X509Ca(Box<Spec>),
    Bundle(Vec<BundleKey>),
    AccessLogLine(Box<Record>),
    Details(String),
    RbacLogLine {
        engine: rbac::Engine,
        allowed: bool,
        /// `None`: no rule.
        policy: Option<String>,
    },
    XfccParse(String),
}

/// An entry of a bundle document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BundleKey {
    purpose: String,
    kind: String,
    /// `None`: no `x5c`.
    certificates: Option<usize>,
}

impl Question {
    /// Takes what a check of `kind` gives; `None`: another kind.
    pub(super) fn read(kind: &str, fields: &mut Fields<'_>) -> Result<Option<Self>, Fault> {
        Ok(Some(match kind {
            "validate" => Self::Validate(validate::Document::read(fields.need("yaml")?)?),
            "string_match" => Self::StringMatch {
                field: read_field(fields.need("as")?)?,
                pattern: fields.text("pattern")?.to_owned(),
                value: optional(fields.need("value")?)?,
                policy_namespace: match fields.take("policy_namespace") {
                    Some(namespace) => text(namespace)?.to_owned(),
                    None => String::new(),
                },
            },
            "request_principal" => Self::RequestPrincipal {
                pattern: fields.text("pattern")?.to_owned(),
                claims: read_claims(fields.need("claims")?)?,
            },
            "normalize" => Self::Normalize {
                mode: read_mode(fields.need("mode")?)?,
                target: fields.text("path")?.to_owned(),
            },
            "expand_principals" => Self::ExpandPrincipals {
                trust_domains: texts(fields.need("trust_domains")?)?,
                principals: texts(fields.need("principals")?)?,
            },
            "remote_ip" => read_remote_ip(fields)?,
            "spiffe_id" => Self::SpiffeId(read_uri(fields)?),
            "istio_identity" => Self::IstioIdentity(fields.text("uri")?.to_owned()),
            "istio_identity_build" => Self::IstioIdentityBuild {
                trust_domain: fields.text("trust_domain")?.to_owned(),
                namespace: fields.text("namespace")?.to_owned(),
                service_account: fields.take("service_account").map_or(Ok(None), optional)?,
            },
            "x509_svid" => Self::X509Svid(Box::new(Spec::read(fields.need("cert")?)?)),
            "x509_ca" => Self::X509Ca(Box::new(Spec::read(fields.need("cert")?)?)),
            "bundle" => Self::Bundle(
                list(fields.need("keys")?)?
                    .iter()
                    .map(BundleKey::read)
                    .collect::<Result<_, _>>()?,
            ),
            "access_log_line" => {
                Self::AccessLogLine(Box::new(log::read_record(fields.need("given")?)?))
            }
            "details" => Self::Details(fields.text("policy_id")?.to_owned()),
            "rbac_log_line" => read_rbac_line(fields)?,
            "xfcc_parse" => Self::XfccParse(fields.text("value")?.to_owned()),
            _ => return Ok(None),
        }))
    }

    /// The fields that `expect` may have.
    pub(super) fn expectations(&self) -> &'static [&'static str] {
        match self {
            Self::Validate(_) => &["accepted", "warning"],
            Self::StringMatch { .. } | Self::RequestPrincipal { .. } => &["match"],
            Self::Normalize { .. } => &["path", "status"],
            Self::ExpandPrincipals { .. } => &["principals"],
            Self::RemoteIp { .. } => &["ip"],
            Self::SpiffeId(_) => &["valid", "canonical"],
            Self::IstioIdentity(_) => &[
                "trust_domain",
                "namespace",
                "service_account",
                "principal",
                "error",
            ],
            Self::IstioIdentityBuild { .. } => &["id", "error"],
            Self::X509Svid(_) | Self::X509Ca(_) => &["valid"],
            Self::Bundle(_) => &["x509_authorities"],
            Self::AccessLogLine(_) | Self::RbacLogLine { .. } => &["text"],
            Self::Details(_) => &["details"],
            Self::XfccParse(_) => &["elements", "error"],
        }
    }

    /// A kind of resource that nothing here judges, so that the check cannot be run.
    pub(super) fn unjudged(&self) -> Option<&str> {
        match self {
            Self::Validate(document) => document.unjudged(),
            _ => None,
        }
    }

    /// Fails, in words, where a check is none that its kind can be asked.
    pub(super) fn answer(&self, makers: &mut Makers) -> Result<Found, String> {
        let one = |name, value: Json| Ok(BTreeMap::from([(name, value)]));
        match self {
            Self::Validate(document) => document.judge(makers),
            Self::StringMatch {
                field,
                pattern,
                value,
                policy_namespace,
            } => {
                let matches = pattern::matches(*field, pattern, value.as_deref(), policy_namespace)
                    .map_err(|bad| bad.to_string())?;
                one("match", matches.into())
            }
            Self::RequestPrincipal { pattern, claims } => {
                let claims = Claims::new(claims.clone(), [].into());
                let text = |name| claims.payload().get(name).and_then(Json::as_str);
                let principal = RequestPrincipal::parse(pattern);
                one("match", principal.matches(text("iss"), text("sub")).into())
            }
            Self::Normalize { mode, target } => {
                let path = h1::path_of("GET", target.as_bytes()).ok();
                let path = path.and_then(|path| normalize(path, *mode, true).ok());
                Ok(match path {
                    Some(path) => BTreeMap::from([("path", String::from_utf8_lossy(&path).into())]),
                    None => BTreeMap::from([("status", 400.into())]),
                })
            }
            Self::ExpandPrincipals {
                trust_domains,
                principals,
            } => {
                let known: Vec<&str> = trust_domains.iter().map(String::as_str).collect();
                one("principals", expand_principals(&known, principals).into())
            }
            Self::RemoteIp {
                place,
                peer,
                forwarded_for,
            } => {
                let line = (!forwarded_for.is_empty()).then_some(forwarded_for.as_bytes());
                let ip = original_client(*place, *peer, line.into_iter());
                one("ip", ip.to_string().into())
            }
            Self::SpiffeId(uri) => Ok(match SpiffeId::parse(uri) {
                Ok(id) => {
                    BTreeMap::from([("valid", true.into()), ("canonical", id.as_str().into())])
                }
                Err(_) => BTreeMap::from([("valid", false.into())]),
            }),
            Self::IstioIdentity(uri) => {
                let id = SpiffeId::parse(uri).ok();
                let parts = id.as_ref().and_then(|id| Some((id, id.istio()?)));
                Ok(match parts {
                    Some((id, parts)) => BTreeMap::from([
                        ("trust_domain", parts.trust_domain.into()),
                        ("namespace", parts.namespace.into()),
                        ("service_account", parts.service_account.into()),
                        ("principal", id.principal().into()),
                    ]),
                    None => error(),
                })
            }
            Self::IstioIdentityBuild {
                trust_domain,
                namespace,
                service_account,
            } => Ok(
                match istio_identity(trust_domain, namespace, service_account.as_deref()) {
                    Ok(id) => BTreeMap::from([("id", id.as_str().into())]),
                    Err(_) => error(),
                },
            ),
            Self::X509Svid(spec) => {
                let certificate = makers.authorities.issue(spec)?;
                one("valid", Leaf::parse(&certificate.chain[0]).is_ok().into())
            }
            Self::X509Ca(spec) => {
                let certificate = makers.authorities.issue(spec)?;
                let verdict = check_signing_certificate(&certificate.chain[0]);
                one("valid", verdict.is_ok().into())
            }
            Self::Bundle(keys) => {
                let document = document_of(keys, &mut makers.authorities)?;
                let domain = TrustDomain::parse("partner.example").map_err(|e| e.to_string())?;
                let bundle = TrustBundle::from_document(&document, &domain)
                    .map_err(|error| error.to_string())?;
                one("x509_authorities", bundle.roots().len().into())
            }
            Self::AccessLogLine(record) => {
                let mut line = Vec::new();
                accesslog::format(record, &mut line);
                let line = String::from_utf8_lossy(&line);
                one("text", line.trim_end_matches('\n').into())
            }
            Self::Details(policy) => one("details", details_of(policy).into()),
            Self::RbacLogLine {
                engine,
                allowed,
                policy,
            } => one(
                "text",
                rbac::line(*engine, *allowed, policy.as_deref()).into(),
            ),
            Self::XfccParse(value) => Ok(match xfcc::parse(value) {
                Ok(elements) => {
                    let elements: Json = elements.iter().map(element).collect();
                    BTreeMap::from([("elements", elements)])
                }
                Err(_) => error(),
            }),
        }
    }
}

fn error() -> Found {
    BTreeMap::from([("error", true.into())])
}

/// A text, or null.
fn optional(node: &Node) -> Result<Option<String>, Fault> {
    match node.value {
        Value::Null => Ok(None),
        _ => Ok(Some(text(node)?.to_owned())),
    }
}

fn read_field(node: &Node) -> Result<Field, Fault> {
    Ok(match text(node)? {
        "string" => Field::String,
        "header" => Field::Header,
        "host" => Field::Host,
        "path" => Field::Path,
        "principal" => Field::Principal,
        "namespace" => Field::Namespace,
        "service_account" => Field::ServiceAccount,
        "trust_domain" => Field::TrustDomain,
        other => return fault(node, format!("`{other}` is nothing that patterns are for")),
    })
}

fn read_claims(node: &Node) -> Result<serde_json::Map<String, Json>, Fault> {
    match plain_json(node) {
        Json::Object(claims) => Ok(claims),
        _ => fault(node, "claims are a map"),
    }
}

fn read_mode(node: &Node) -> Result<Normalization, Fault> {
    Ok(match text(node)? {
        "NONE" => Normalization::None,
        "BASE" | "DEFAULT" => Normalization::Base,
        "MERGE_SLASHES" => Normalization::MergeSlashes,
        "DECODE_AND_MERGE_SLASHES" => Normalization::DecodeAndMergeSlashes,
        other => return fault(node, format!("`{other}` is no mode of normalization")),
    })
}

fn read_remote_ip(fields: &mut Fields<'_>) -> Result<Question, Fault> {
    let role = fields.need("role")?;
    let trusted_proxies = number(fields.need("num_trusted_proxies")?)?;
    let peer = fields.need("peer")?;
    Ok(Question::RemoteIp {
        place: match text(role)? {
            "gateway" => Place::Edge { trusted_proxies },
            "sidecar" => Place::Sidecar,
            other => return fault(role, format!("`{other}` is no role")),
        },
        peer: text(peer)?
            .parse()
            .or_else(|_| fault(peer, "this is no address"))?,
        forwarded_for: fields.text("xff")?.to_owned(),
    })
}

/// `uri`, or one of a trust domain and a path of given lengths.
fn read_uri(fields: &mut Fields<'_>) -> Result<String, Fault> {
    if let Some(uri) = fields.take("uri") {
        return Ok(text(uri)?.to_owned());
    }
    let domain: usize = number(fields.need("td_len")?)?;
    let path: usize = number(fields.need("path_len")?)?;
    Ok(format!(
        "spiffe://{}/{}",
        "a".repeat(domain),
        "b".repeat(path)
    ))
}

fn read_rbac_line(fields: &mut Fields<'_>) -> Result<Question, Fault> {
    let engine = fields.need("engine")?;
    let result = fields.need("result")?;
    let policy = optional(fields.need("policy")?)?;
    Ok(Question::RbacLogLine {
        engine: match text(engine)? {
            "enforced" => rbac::Engine::Enforced,
            "shadow" => rbac::Engine::Shadow,
            other => return fault(engine, format!("`{other}` is no engine")),
        },
        allowed: match text(result)? {
            "allowed" => true,
            "denied" => false,
            other => return fault(result, format!("`{other}` is no result")),
        },
        policy: policy.filter(|policy| policy != "none"),
    })
}

impl BundleKey {
    fn read(node: &Node) -> Result<Self, Fault> {
        let mut fields = Fields::of(node, "a key")?;
        let key = Self {
            purpose: fields.text("use")?.to_owned(),
            kind: fields.text("kty")?.to_owned(),
            certificates: fields.take("x5c").map(number).transpose()?,
        };
        fields.end()?;
        Ok(key)
    }
}

/// A bundle document whose certificates are each of another authority.
fn document_of(keys: &[BundleKey], authorities: &mut Authorities) -> Result<String, String> {
    let mut entries = Vec::new();
    let mut roots = 0;
    for key in keys {
        let mut entry = json!({"use": key.purpose, "kty": key.kind});
        if let Some(count) = key.certificates {
            let mut chain = Vec::new();
            for _ in 0..count {
                roots += 1;
                let pem = authorities.root_pem(&format!("bundle-{roots}"))?;
                let der = CertificateDer::from_pem_slice(pem.as_bytes())
                    .map_err(|error| error.to_string())?;
                chain.push(base64::engine::general_purpose::STANDARD.encode(der));
            }
            entry["x5c"] = chain.into();
        }
        entries.push(entry);
    }
    Ok(json!({"keys": entries}).to_string())
}

/// Pairs by key; one that comes more than once has a list.
fn element(element: &xfcc::Element) -> Json {
    let mut object = json!({});
    for (key, _) in &element.pairs {
        let values: Vec<&str> = element.all(*key).collect();
        object[key.name()] = match &*values {
            [only] => json!(only),
            many => json!(many),
        };
    }
    object
}

/// Whether the elements of a header are those that are wanted, where a list of one value is as good as the value.
pub(super) fn elements_fit(want: &Json, got: &Json) -> bool {
    fn plain(elements: &Json) -> Json {
        match elements {
            Json::Array(items) if items.len() == 1 && !items[0].is_object() => items[0].clone(),
            Json::Array(items) => items.iter().map(plain).collect(),
            Json::Object(pairs) => pairs
                .iter()
                .map(|(key, value)| (key.clone(), plain(value)))
                .collect(),
            other => other.clone(),
        }
    }
    plain(want) == plain(got)
}

#[cfg(test)]
mod tests;
