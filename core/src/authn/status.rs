//! What may be wrong with a token or with the keys it is held against, in the words that Istio's proxy answers with (S-218).

use std::fmt;

/// A claim that says a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    Iat,
    Nbf,
    Exp,
}

/// Why a token is not accepted. The variants stand in the order in which they are found (S-216), those of keys last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is no token where one was looked for.
    Missing,
    BadFormat,
    HeaderBadBase64,
    HeaderBadJson,
    /// No `alg`, or one that is no text.
    HeaderBadAlg,
    /// `none` among others.
    AlgNotSupported,
    HeaderBadKid,
    PayloadBadBase64,
    PayloadBadJson,
    IssNotString,
    SubNotString,
    TimeNotInteger(Claim),
    /// Below 0, or beyond 64 bits.
    TimeNotPositive(Claim),
    JtiNotString,
    BadAud,
    SignatureBadBase64,
    UnknownIssuer,
    NotYetValid,
    Expired,
    AudienceNotAllowed,
    VerificationFails,
    Ed25519WrongLength,
    JwksBadJson,
    JwksNoKeys,
    JwksKeysNotArray,
    JwksNoValidKey,
    /// Every key has another `kid` or another `alg` than the token.
    NoMatchingKey,
    FetchFailed,
}

impl Status {
    /// The body of the answer, byte for byte that of Envoy (S-217, S-218).
    pub fn text(self) -> &'static str {
        match self {
            Self::Missing => "Jwt is missing",
            Self::BadFormat => {
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
            }
            Self::HeaderBadBase64 => "Jwt header is an invalid Base64url encoded",
            Self::HeaderBadJson => "Jwt header is an invalid JSON",
            Self::HeaderBadAlg => "Jwt header [alg] field is required and must be a string",
            Self::AlgNotSupported => "Jwt header [alg] is not supported",
            Self::HeaderBadKid => "Jwt header [kid] field is not a string",
            Self::PayloadBadBase64 => "Jwt payload is an invalid Base64url encoded",
            Self::PayloadBadJson => "Jwt payload is an invalid JSON",
            Self::IssNotString => "Jwt payload [iss] field is not a string",
            Self::SubNotString => "Jwt payload [sub] field is not a string",
            Self::TimeNotInteger(Claim::Iat) => "Jwt payload [iat] field is not an integer",
            Self::TimeNotInteger(Claim::Nbf) => "Jwt payload [nbf] field is not an integer",
            Self::TimeNotInteger(Claim::Exp) => "Jwt payload [exp] field is not an integer",
            Self::TimeNotPositive(Claim::Iat) => {
                "Jwt payload [iat] field is not a positive 64 bit integer"
            }
            Self::TimeNotPositive(Claim::Nbf) => {
                "Jwt payload [nbf] field is not a positive 64 bit integer"
            }
            Self::TimeNotPositive(Claim::Exp) => {
                "Jwt payload [exp] field is not a positive 64 bit integer"
            }
            Self::JtiNotString => "Jwt payload [jti] field is not a string",
            Self::BadAud => "Jwt payload [aud] field is not a string or string list",
            Self::SignatureBadBase64 => "Jwt signature is an invalid Base64url encoded",
            Self::UnknownIssuer => "Jwt issuer is not configured",
            Self::NotYetValid => "Jwt not yet valid",
            Self::Expired => "Jwt is expired",
            Self::AudienceNotAllowed => "Audiences in Jwt are not allowed",
            Self::VerificationFails => "Jwt verification fails",
            Self::Ed25519WrongLength => "Jwt ED25519 signature is wrong length",
            Self::JwksBadJson => "Jwks is an invalid JSON",
            Self::JwksNoKeys => "Jwks does not have [keys] field",
            Self::JwksKeysNotArray => "[keys] in Jwks is not an array",
            Self::JwksNoValidKey => "Jwks doesn't have any valid public key",
            Self::NoMatchingKey => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::FetchFailed => "Jwks remote fetch is failed",
        }
    }

    /// 403 for an audience, 401 for everything else (S-217).
    pub fn http_status(self) -> u16 {
        if self == Self::AudienceNotAllowed {
            403
        } else {
            401
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_the_rules() {
        // S-218
        for (status, text) in [
            (Status::Missing, "Jwt is missing"),
            (
                Status::BadFormat,
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            ),
            (
                Status::HeaderBadBase64,
                "Jwt header is an invalid Base64url encoded",
            ),
            (Status::HeaderBadJson, "Jwt header is an invalid JSON"),
            (
                Status::HeaderBadAlg,
                "Jwt header [alg] field is required and must be a string",
            ),
            (Status::AlgNotSupported, "Jwt header [alg] is not supported"),
            (
                Status::HeaderBadKid,
                "Jwt header [kid] field is not a string",
            ),
            (
                Status::PayloadBadBase64,
                "Jwt payload is an invalid Base64url encoded",
            ),
            (Status::PayloadBadJson, "Jwt payload is an invalid JSON"),
            (
                Status::IssNotString,
                "Jwt payload [iss] field is not a string",
            ),
            (
                Status::SubNotString,
                "Jwt payload [sub] field is not a string",
            ),
            (
                Status::TimeNotInteger(Claim::Iat),
                "Jwt payload [iat] field is not an integer",
            ),
            (
                Status::TimeNotInteger(Claim::Nbf),
                "Jwt payload [nbf] field is not an integer",
            ),
            (
                Status::TimeNotInteger(Claim::Exp),
                "Jwt payload [exp] field is not an integer",
            ),
            (
                Status::TimeNotPositive(Claim::Iat),
                "Jwt payload [iat] field is not a positive 64 bit integer",
            ),
            (
                Status::TimeNotPositive(Claim::Nbf),
                "Jwt payload [nbf] field is not a positive 64 bit integer",
            ),
            (
                Status::TimeNotPositive(Claim::Exp),
                "Jwt payload [exp] field is not a positive 64 bit integer",
            ),
            (
                Status::JtiNotString,
                "Jwt payload [jti] field is not a string",
            ),
            (
                Status::BadAud,
                "Jwt payload [aud] field is not a string or string list",
            ),
            (
                Status::SignatureBadBase64,
                "Jwt signature is an invalid Base64url encoded",
            ),
            (Status::UnknownIssuer, "Jwt issuer is not configured"),
            (Status::NotYetValid, "Jwt not yet valid"),
            (Status::Expired, "Jwt is expired"),
            (
                Status::AudienceNotAllowed,
                "Audiences in Jwt are not allowed",
            ),
            (Status::VerificationFails, "Jwt verification fails"),
            (
                Status::Ed25519WrongLength,
                "Jwt ED25519 signature is wrong length",
            ),
            (Status::JwksBadJson, "Jwks is an invalid JSON"),
            (Status::JwksNoKeys, "Jwks does not have [keys] field"),
            (Status::JwksKeysNotArray, "[keys] in Jwks is not an array"),
            (
                Status::JwksNoValidKey,
                "Jwks doesn't have any valid public key",
            ),
            (
                Status::NoMatchingKey,
                "Jwks doesn't have key to match kid or alg from Jwt",
            ),
            (Status::FetchFailed, "Jwks remote fetch is failed"),
        ] {
            assert_eq!(status.to_string(), text);
        }
        assert_eq!(Status::UnknownIssuer.text().len(), 28);
    }

    #[test]
    fn an_audience_alone_is_forbidden() {
        assert_eq!(Status::AudienceNotAllowed.http_status(), 403);
        assert_eq!(Status::Missing.http_status(), 401);
        assert_eq!(Status::VerificationFails.http_status(), 401);
    }
}
