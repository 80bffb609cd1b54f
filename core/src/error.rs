//! The shared words for what went wrong, sorted by who is at fault.

/// A peer broke the rules of its protocol. Ends the link or the message, never the machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Violation {
    /// What rule, in the words of its standard: "content-length and transfer-encoding (RFC 9112 §6.1)".
    pub what: &'static str,
    /// The status with which an HTTP/1 server answers it, 0 where there is no such answer.
    pub status: u16,
    /// The detail that the access record carries (S-329), e.g. `http1.codec_error`.
    pub details: &'static str,
}
