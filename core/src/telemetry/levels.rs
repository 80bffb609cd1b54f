//! What a proxy writes beside its access records, and how much of it: scopes and levels, as Envoy's loggers have them.

use std::fmt;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Why a link ended before its time.
    Connection,
    /// What became of tokens.
    Jwt,
    /// Which access policy decided (S-334).
    Rbac,
}

/// How much is written of a scope. Every line that there is has the level `Debug`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Critical,
    Off,
}

/// The level of each scope; `Warning` where nothing else was said, as in Istio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels([Level; 3]);

/// Why a text changes no levels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    #[error("there is no scope `{0}`; scopes are connection, jwt and rbac")]
    Scope(String),
    #[error(
        "there is no level `{0}`; levels are trace, debug, info, warning, error, critical and off"
    )]
    Level(String),
}

impl Scope {
    pub const ALL: [Self; 3] = [Self::Connection, Self::Jwt, Self::Rbac];

    /// As Envoy's logger is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Jwt => "jwt",
            Self::Rbac => "rbac",
        }
    }
}

impl Level {
    const ALL: [Self; 7] = [
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Off,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Off => "off",
        }
    }

    fn parse(text: &str) -> Result<Self, LevelError> {
        let mut all = Self::ALL.into_iter();
        all.find(|level| level.name() == text)
            .ok_or_else(|| LevelError::Level(text.to_owned()))
    }
}

impl Default for Levels {
    fn default() -> Self {
        Self([Level::Warning; 3])
    }
}

impl Levels {
    pub fn of(&self, scope: Scope) -> Level {
        match (scope, self.0) {
            (Scope::Connection, [level, _, _])
            | (Scope::Jwt, [_, level, _])
            | (Scope::Rbac, [_, _, level]) => level,
        }
    }

    /// Lines of the scope are written.
    pub fn writes(&self, scope: Scope) -> bool {
        self.of(scope) <= Level::Debug
    }

    /// These levels with the changes of a text as istioctl takes it: `rbac:debug,jwt:off`, or one level for all scopes.
    pub fn changed(mut self, text: &str) -> Result<Self, LevelError> {
        for change in text.split(',') {
            let Some((name, level)) = change.split_once(':') else {
                self = Self([Level::parse(change)?; 3]);
                continue;
            };
            let level = Level::parse(level)?;
            let at = Scope::ALL.iter().position(|scope| scope.name() == name);
            match at.and_then(|at| self.0.get_mut(at)) {
                Some(place) => *place = level,
                None => return Err(LevelError::Scope(name.to_owned())),
            }
        }
        Ok(self)
    }
}

/// A line `scope: level` for each.
impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, scope) in Scope::ALL.into_iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "  {}: {}", scope.name(), self.of(scope).name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_change_one_by_one_or_all_at_once() {
        let levels = Levels::default().changed("rbac:debug,jwt:off").unwrap();
        assert_eq!(
            levels.to_string(),
            "  connection: warning\n  jwt: off\n  rbac: debug"
        );
        assert!(levels.writes(Scope::Rbac));
        assert!(!levels.writes(Scope::Jwt) && !levels.writes(Scope::Connection));
        let all = levels.changed("trace").unwrap();
        assert!(Scope::ALL.into_iter().all(|scope| all.writes(scope)));
        let back = all.changed("info,rbac:debug").unwrap();
        assert!(back.writes(Scope::Rbac) && !back.writes(Scope::Jwt));
    }

    #[test]
    fn what_is_no_level_changes_nothing() {
        for (text, error) in [
            ("", LevelError::Level(String::new())),
            ("rbac", LevelError::Level("rbac".into())),
            ("rbac:loud", LevelError::Level("loud".into())),
            ("http:debug", LevelError::Scope("http".into())),
            ("rbac:debug,", LevelError::Level(String::new())),
            ("RBAC:debug", LevelError::Scope("RBAC".into())),
        ] {
            assert_eq!(Levels::default().changed(text), Err(error), "{text}");
        }
    }
}
