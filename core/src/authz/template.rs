//! Path templates: `/a/{*}/b`, `/a/{**}` (S-140 to S-142, S-175).

/// A path with operators that stand for whole segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    // INVARIANT: literals are next to the slashes of the operators between them, and after `Rest` comes at most one literal;
    // `parse` refuses everything else.
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<[u8]>),
    /// `{*}`
    Segment,
    /// `{**}`
    Rest,
}

/// Why a path is no template (S-175).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    #[error("`{{` and `}}` may stand in a path only as a whole segment `{{*}}` or `{{**}}`")]
    Brace,
    #[error("after `{{**}}` no operator may follow")]
    AfterRest,
    #[error("a segment of a path template is empty or has a character that no path may have")]
    Literal,
}

const SEGMENT: &str = "{*}";
const REST: &str = "{**}";

impl Template {
    /// Whether `pattern` is meant as a template and not as one of the forms of S-123.
    pub fn is_meant(pattern: &str) -> bool {
        pattern.contains(SEGMENT) || pattern.contains(REST)
    }

    /// Leading and trailing slashes belong to the template, but may be more than one or none.
    pub fn parse(pattern: &str) -> Result<Self, BadTemplate> {
        let mut ended = false;
        for segment in pattern.trim_matches('/').split('/') {
            match segment {
                SEGMENT | REST if ended => return Err(BadTemplate::AfterRest),
                SEGMENT => {}
                REST => ended = true,
                _ if segment.contains(['{', '}']) => return Err(BadTemplate::Brace),
                _ if segment.is_empty() || !segment.bytes().all(is_literal) => {
                    return Err(BadTemplate::Literal);
                }
                _ => {}
            }
        }

        let mut pieces = Vec::new();
        let mut rest = pattern;
        while let Some(at) = rest.find('{') {
            push_literal(&mut pieces, &rest[..at]);
            rest = &rest[at..];
            let (piece, operator) = if rest.starts_with(REST) {
                (Piece::Rest, REST)
            } else {
                (Piece::Segment, SEGMENT)
            };
            pieces.push(piece);
            rest = &rest[operator.len()..];
        }
        push_literal(&mut pieces, rest);
        Ok(Self { pieces })
    }

    /// Whether the whole of `path` (without query) has this form. A path with a byte that [`is_path_character`] refuses
    /// never has.
    ///
    /// `/a/{*}` takes `/a/b`, but neither `/a/` nor `/a/b/`; `/a/{**}` takes `/a/`, but not `/a` (S-141).
    pub fn matches(&self, mut path: &[u8]) -> bool {
        let mut pieces = self.pieces.iter();
        while let Some(piece) = pieces.next() {
            match piece {
                Piece::Literal(literal) => match path.strip_prefix(&**literal) {
                    Some(rest) => path = rest,
                    None => return false,
                },
                Piece::Segment => {
                    let end = path.iter().position(|byte| !is_path_character(*byte));
                    let (segment, rest) = path.split_at(end.unwrap_or(path.len()));
                    if segment.is_empty() {
                        return false;
                    }
                    path = rest;
                }
                Piece::Rest => {
                    let tail: &[u8] = match pieces.next() {
                        Some(Piece::Literal(tail)) => tail,
                        Some(Piece::Segment | Piece::Rest) | None => &[],
                    };
                    return path.strip_suffix(tail).is_some_and(|middle| {
                        middle
                            .iter()
                            .all(|byte| *byte == b'/' || is_path_character(*byte))
                    });
                }
            }
        }
        path.is_empty()
    }

    /// What every matching path begins with.
    pub(super) fn literal_prefix(&self) -> &[u8] {
        match self.pieces.first() {
            Some(Piece::Literal(literal)) => literal,
            Some(Piece::Segment | Piece::Rest) | None => &[],
        }
    }
}

fn push_literal(pieces: &mut Vec<Piece>, literal: &str) {
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.as_bytes().into()));
    }
}

/// A character that an operator can stand for, the slash apart: `A-Za-z0-9-._~%!$&'()+,;:@=*` (S-140).
pub fn is_path_character(byte: u8) -> bool {
    is_literal(byte) || byte == b'*'
}

/// A character of the literal parts of a template (S-142).
fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(template: &str, path: &str) -> bool {
        Template::parse(template)
            .expect("a valid template")
            .matches(path.as_bytes())
    }

    #[test]
    fn one_star_stands_for_exactly_one_segment() {
        assert!(takes("/a/{*}", "/a/b"));
        for path in ["/a", "/a/", "/a/b/", "/a/b/c", "/a//b", "/b/b"] {
            assert!(!takes("/a/{*}", path), "{path} (S-141)");
        }
        assert!(takes("/a/{*}/b", "/a/x/b"));
        for path in ["/a/b", "/a//b", "/a/x/y/b", "/a/x/b/", "/a/x/bb"] {
            assert!(!takes("/a/{*}/b", path), "{path} (S-141)");
        }
        assert!(takes("/a/{*}/", "/a/b/"));
        assert!(!takes("/a/{*}/", "/a/b"));
    }

    #[test]
    fn two_stars_stand_for_any_number_of_segments() {
        for path in ["/a/", "/a/b", "/a/b/c", "/a//"] {
            assert!(takes("/a/{**}", path), "{path} (S-141)");
        }
        assert!(!takes("/a/{**}", "/a"));
        for path in ["/a/x/b", "/a/x/y/b", "/a//b"] {
            assert!(takes("/a/{**}/b", path), "{path} (S-141)");
        }
        assert!(
            !takes("/a/{**}/b", "/a/b"),
            "the two literals do not share a slash"
        );
        assert!(takes("/{*}/x/{**}", "/u/x/"));
    }

    #[test]
    fn operators_take_no_character_outside_the_set() {
        for path in ["/a/[", "/a/]", "/a/b\"", "/a/\u{e9}"] {
            assert!(!takes("/a/{**}", path), "{path} (S-140)");
            assert!(!takes("/a/{*}", path), "{path} (S-140)");
        }
        assert!(takes("/a/{*}", "/a/%5B*~"));
    }

    #[test]
    fn a_template_begins_with_its_first_literal() {
        for (template, prefix) in [
            ("/a/b/{*}/c", "/a/b/"),
            ("/{**}", "/"),
            ("{*}/a", ""),
            ("{**}/a", ""),
        ] {
            let template = Template::parse(template).expect("a valid template");
            assert_eq!(template.literal_prefix(), prefix.as_bytes());
        }
    }

    #[test]
    fn escapes_are_compared_as_text() {
        assert!(takes("/caf%C3%A9/{*}", "/caf%C3%A9/noir"));
        assert!(!takes("/caf%C3%A9/{*}", "/caf%c3%a9/noir"), "S-142");
    }

    #[test]
    fn operators_fill_whole_segments_and_the_double_one_is_the_last() {
        use BadTemplate::{AfterRest, Brace, Literal};
        for (pattern, error) in [
            ("/a{*}", Brace),
            ("/{id}/{*}", Brace),
            ("/a/{*}.txt", Brace),
            ("/{**}/{*}", AfterRest),
            ("/{**}/x/{**}", AfterRest),
            ("/a*/{*}", Literal),
            ("/a//{*}", Literal),
            ("/a?b/{*}", Literal),
        ] {
            assert_eq!(Template::parse(pattern), Err(error), "{pattern} (S-175)");
        }
        for pattern in ["/a/{**}/b", "/{*}/x", "/a/{*}/", "/{*}/{*}/{**}"] {
            assert!(Template::parse(pattern).is_ok(), "{pattern} (S-175)");
        }
    }
}
