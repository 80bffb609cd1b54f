//! What is said about traffic: access records, their text, `x-forwarded-client-cert`.

pub mod accesslog;
pub mod levels;
pub mod rbac;
pub mod record;
pub mod xfcc;

pub use record::Record;
