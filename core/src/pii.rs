//! What must not be seen in a log.

use std::fmt;

/// A value whose `Debug` and `Display` hide it: keys, tokens, cookies.
#[derive(Clone, PartialEq, Eq)]
pub struct Pii<T>(T);

impl<T> Pii<T> {
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Whoever calls this answers for where it goes.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl<T> fmt::Display for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

#[cfg(test)]
mod tests {
    use super::Pii;

    #[test]
    fn a_hidden_value_is_not_printed() {
        let key = Pii::new("secret");
        assert_eq!(format!("{key:?} {key}"), "[hidden] [hidden]");
        assert_eq!(*key.reveal(), "secret");
    }
}
