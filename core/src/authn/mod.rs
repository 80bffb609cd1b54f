//! Who a request speaks for: JSON Web Tokens and what `RequestAuthentication` demands of them (S-210 to S-234).

mod claims;
mod json;
pub mod jwa;
pub mod jwk;
pub mod jws;
pub mod status;
pub mod token;

pub use claims::Claims;
