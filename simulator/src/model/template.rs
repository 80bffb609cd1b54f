//! Path templates (S-140 to S-142).

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// `{*}`
    Segment,
    /// `{**}`
    Rest,
    Byte(u8),
}

/// Whether the value of `paths` is a template.
pub fn is_template(value: &str) -> bool {
    value.contains("{*}") || value.contains("{**}")
}

/// The whole path, without its query (S-140).
pub fn matches(template: &str, path: &str) -> bool {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("{**}") {
            pieces.push(Piece::Rest);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("{*}") {
            pieces.push(Piece::Segment);
            rest = after;
        } else {
            let (one, after) = rest.split_at(first.len_utf8());
            pieces.extend(one.bytes().map(Piece::Byte));
            rest = after;
        }
    }
    fits(&pieces, path.as_bytes())
}

fn fits(pieces: &[Piece], path: &[u8]) -> bool {
    match (pieces.split_first(), path.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((Piece::Byte(byte), pieces)), Some((first, path))) => {
            byte == first && fits(pieces, path)
        }
        (Some((Piece::Byte(_) | Piece::Segment, _)), None) => false,
        // One character, and then as many more as one likes.
        (Some((Piece::Segment, after)), Some((first, path))) => {
            is_template_byte(*first) && (fits(after, path) || fits(pieces, path))
        }
        (Some((Piece::Rest, after)), None) => fits(after, path),
        (Some((Piece::Rest, after)), Some((first, shorter))) => {
            fits(after, path)
                || (is_template_byte(*first) || *first == b'/') && fits(pieces, shorter)
        }
    }
}

/// C of S-140.
fn is_template_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=*".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn templates_match_as_the_table_of_trailing_slashes_says() {
        for (template, path, expected) in [
            ("/a/{**}", "/a/", true),
            ("/a/{**}", "/a/b/c", true),
            ("/a/{**}", "/a", false),
            ("/a/{*}", "/a/b", true),
            ("/a/{*}", "/a/", false),
            ("/a/{*}", "/a/b/", false),
            ("/a/{*}/b", "/a/x/b", true),
            ("/a/{*}/b", "/a/x/y/b", false),
            ("/a/{**}/b", "/a/x/y/b", true),
            ("/a/{**}/b", "/a//b", true),
            ("/a/{**}/b", "/a/b", false),
            ("/a/{**}", "/a/[x]", false),
        ] {
            assert_eq!(
                matches(template, path),
                expected,
                "{template} {path}, S-141"
            );
        }
    }
}
