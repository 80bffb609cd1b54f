//! Who a request speaks for: JSON Web Tokens and what `RequestAuthentication` demands of them (S-210 to S-234).

mod claims;

pub use claims::Claims;
