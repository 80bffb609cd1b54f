//! What is known of a request or a connection when it is judged.

use std::net::IpAddr;

use crate::authn::Claims;
use crate::http::head::Fields;

/// The facts that rules look at. Ports and addresses are those of the proxy's own connection, after any redirection.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// The SPIFFE URI of the peer's certificate without `spiffe://`; `None` on plaintext (S-126).
    pub principal: Option<&'a str>,
    /// The TCP peer (S-134).
    pub source_ip: IpAddr,
    /// The original client (S-320); on TCP the peer, unless PROXY protocol announced another (S-135).
    pub remote_ip: IpAddr,
    /// The address that the client reached, which is the workload's (S-151).
    pub destination_ip: IpAddr,
    /// The workload port, not the service port (S-137).
    pub destination_port: u16,
    /// The server name of the ClientHello; `None` on plaintext and where it had none (S-152).
    pub sni: Option<&'a str>,
    /// `None`: a TCP connection.
    pub http: Option<HttpAttributes<'a>>,
}

/// The part of a request head that rules look at.
#[derive(Clone, Copy, Debug)]
pub struct HttpAttributes<'a> {
    /// As sent; case counts (S-138).
    pub method: &'a str,
    /// Normalised (S-180), without query and fragment (S-139).
    pub path: &'a [u8],
    /// `Host` or `:authority` as sent, port included (S-136).
    pub authority: &'a [u8],
    /// After the effects of authentication (S-224, S-225).
    pub fields: Fields<'a>,
    /// Of the token that was verified (S-154); `None`: there was none.
    pub claims: Option<&'a Claims>,
}
