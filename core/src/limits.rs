//! Every limit of the core, with unit and reason.

use std::time::Duration;

/// Bytes bought by one `Read` while a head, a handshake or an idle link is waited for. Also the size of the provided
/// buffers of the io_uring shell.
pub const READ_HEAD: usize = 16 * 1024;
/// Bytes bought by one `Read` while a body or opaque bytes flow; a fourth of the system calls of the smaller size.
pub const READ_BODY: usize = 64 * 1024;
/// Bytes sent on one link without hearing that the kernel took them. Beyond it the other side is not read.
pub const UNACKED_MAX: usize = 64 * 1024;
/// Bytes of a request or response head, start line included. Envoy: `max_request_headers_kb` 60; beyond it 431.
pub const HEAD_MAX: usize = 60 * 1024;
/// Fields of a head. Envoy: `max_headers_count` 100; beyond it 431.
pub const FIELDS_MAX: usize = 100;
/// Bytes of a chunk-size line with its extensions.
pub const CHUNK_LINE_MAX: usize = 4 * 1024;
/// Bytes of chunk extensions and framing that one message may spend beyond its body: 16 KiB and the size of the body
/// (after Go's net/http, which closes "excess overhead" bodies).
pub const CHUNK_OVERHEAD_MAX: usize = 16 * 1024;
/// Bytes of a trailer section.
pub const TRAILERS_MAX: usize = 8 * 1024;
/// Bytes of a ClientHello, records put together; larger ones exist only in attacks.
pub const CLIENT_HELLO_MAX: usize = 64 * 1024;
/// Bytes of handshake messages of the peer that wait for their rest.
pub const HANDSHAKE_MAX: usize = 128 * 1024;
/// Pods of one Deployment. A slip of the pen in `replicas` is not to take a machine down.
pub const REPLICAS_MAX: u32 = 1000;

/// From accept to the end of the TLS handshake. Envoy's `transport_socket_connect_timeout` is 15 s; a peer that drips must be
/// gone in 30.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// From the first byte of a request head to its last.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// A kept-alive link without a request. Envoy: `idle_timeout` 1 h.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// A body of a known length whose sender is silent for so long is given up.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// A chunked body may pause: it is how clients stream. Envoy: `stream_idle_timeout` 5 min.
pub const STREAM_TIMEOUT: Duration = Duration::from_secs(300);
/// `connectTimeout` of the mesh configuration.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// After our FIN we wait so long for the peer's.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// Pools of upstream links: endpoints that are in use, and addresses that no service covers.
pub const POOLS_MAX: usize = 4096;
/// Endpoints of a cluster that are looked at for one that was not tried yet. Envoy: `host_selection_retry_max_attempts` 5.
pub const ENDPOINTS_LOOKED_AT: usize = 5;
/// Idle links to upstreams that are kept for reuse, per pool.
pub const POOL_MAX: usize = 1024;
/// A pooled upstream link without a request. Envoy: cluster `idle_timeout` 1 h; applications close earlier.
pub const POOL_IDLE: Duration = Duration::from_secs(3600);
/// Pods of one mesh: a Deployment may ask for four thousand million of them in ten characters.
pub const PODS_MAX: usize = 10_000;
/// Endpoints of a service at which one request is explained.
pub const EXPLAINED_ENDPOINTS_MAX: usize = 64;
/// Tries of one request on the connection level (S-66): the first and two more.
pub const ATTEMPTS_MAX: u32 = 3;

/// TLS records without a byte of data in a row. BoringSSL: `kMaxEmptyRecords` 32.
pub const EMPTY_RECORDS_MAX: u8 = 32;
/// TLS warning alerts of a peer on one link. BoringSSL: `kMaxWarningAlerts` 4.
pub const WARNINGS_MAX: u8 = 4;
/// Handshake messages after the handshake (KeyUpdate, NewSessionTicket) without data between them. BoringSSL:
/// `kMaxKeyUpdates` 32.
pub const POST_HANDSHAKE_MAX: u8 = 32;
/// TLS records sealed with one key: AES-GCM keeps its margin up to 2^24 full records (RFC 8446 §5.5).
pub const RECORDS_PER_KEY: u64 = 1 << 24;

/// Bytes of a certificate signing request. One for RSA 4096 has about 2 KiB.
pub const CSR_MAX: usize = 16 * 1024;
/// How long a self-signed root lasts (S-95).
pub const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long a workload's certificate lasts that was asked for without a time, and what agents ask for.
/// DEFAULT_WORKLOAD_CERT_TTL and SECRET_TTL (S-91).
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// MAX_WORKLOAD_CERT_TTL (S-91).
pub const CERTIFICATE_LIFETIME_MAX: Duration = Duration::from_secs(2160 * 3600);
/// Certificates begin so long before they are made, for clocks that are behind (S-90).
pub const CERTIFICATE_BACKDATE: Duration = Duration::from_secs(120);
/// A certificate that was asked for and has not come by then is asked for again.
pub const SIGN_TIMEOUT: Duration = Duration::from_secs(10);
/// From a first failed request for a certificate to the next, at most; doubles with each further failure.
pub const SIGN_BACKOFF: Duration = Duration::from_secs(1);
/// Between two requests for a certificate however many have failed.
pub const SIGN_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// From the receipt of a certificate to the next request, however short it lasts: an authority is not asked in a loop.
pub const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
/// Dates are held against the wall clock so often at least, since it may jump and stands still for no timer.
pub const WALL_LOOK: Duration = Duration::from_secs(60);

/// Bytes of a token. A head has no room for more than [`HEAD_MAX`]; what is larger comes from files.
pub const TOKEN_MAX: usize = 256 * 1024;
/// Different tokens of one request. A head has room for a hundred, and who has one that verifies can write it in a hundred
/// ways (S-216), each of which costs a signature with every key of its rule.
pub const TOKENS_MAX: usize = 16;
/// Objects and lists within each other in the JSON of tokens and keys. Protobuf, which reads them for Envoy: 100.
pub const JSON_DEPTH_MAX: usize = 100;
/// Bytes of a JWK set. One key with a chain of certificates has about 5 KiB.
pub const JWKS_MAX: usize = 256 * 1024;
/// Keys of a JWK set: a token without `kid` is tried with all of them, each for some 30 µs. Issuers publish two to five.
pub const JWKS_KEYS_MAX: usize = 100;
/// How far the clock of whoever made a token may be off (S-219). Envoy: `clock_skew_seconds` 60.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// Verified tokens that one proxy remembers. A token of an ordinary issuer has about 1 KiB.
pub const TOKENS_CACHED_MAX: usize = 1024;
/// Bytes of text of these tokens. What is remembered of a token is its payload, read: some five times as much.
pub const TOKENS_CACHED_BYTES: usize = 1024 * 1024;
/// Bytes of a token that is worth remembering; larger ones would push out all others.
pub const TOKEN_CACHED_MAX: usize = 16 * 1024;
/// Bytes of path and query that the realm of a refusal says. Envoy: the same (S-217).
pub const REALM_PATH_MAX: usize = 256;

/// Rules of one RequestAuthentication (CRD: `maxItems` of `jwtRules`).
pub const JWT_RULES_MAX: usize = 4096;
/// Bytes of the `jwks` of one rule; an API server stores no larger object.
pub const JWKS_LEN_MAX: usize = 1024 * 1024;
/// Bytes of a `jwksUri` (CRD: `maxLength`).
pub const JWKS_URI_LEN_MAX: usize = 2048;
/// Claims of one rule that are split at spaces (CRD: `maxItems` of `spaceDelimitedClaims`).
pub const SPACE_DELIMITED_CLAIMS_MAX: usize = 64;
