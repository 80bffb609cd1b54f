//! The header `x-forwarded-client-cert`.
