//! Path normalisation (S-180 to S-185, S-200).
//!
//! One function from the target of a request to the path that rules match, that routes read and that the upstream gets.
//! Most targets are in their normal form already: one scan says so and the target is lent back. The others are rewritten
//! in the order of S-181: fragment, slashes, parameters of dot segments, canonical form (RFC 3986 §6.2.2), runs of slashes.
//! What a target may look like at all ([`acceptable`]) is asked by whoever reads the request line.

use std::borrow::Cow;

/// `meshConfig.pathNormalization.normalization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Normalization {
    None,
    #[default]
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

/// Why a target has no normal form. The answer is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A control byte, a blank, or a byte of 0x7f or more stands unescaped in the path or the query (S-182).
    #[error("byte that may not stand in a request target (S-182)")]
    Byte,
    /// `%00` (S-183). Never with [`Normalization::None`].
    #[error("escaped nul in the path (S-183)")]
    Nul,
}

impl PathError {
    /// The detail that the access record carries (S-329).
    pub fn details(self) -> &'static str {
        match self {
            Self::Byte => "http1.codec_error",
            Self::Nul => "path_normalization_failed",
        }
    }
}

/// The normal form of a path with its query.
///
/// The query, from the first `?`, stays as sent. A fragment is cut off. `strip_dot_segment_parameters` is the switch of
/// S-200 and has no effect with [`Normalization::None`]. A path without leading `/` gets one (S-182), except with `None`.
///
/// The result is a fixed point if parameters are not stripped. If they are, it need not be: `/x/%2e%2e;/y` becomes
/// `/x/..;/y`, and the next proxy on the way makes `/y` of that (S-200).
pub fn normalize(
    target_path: &[u8],
    mode: Normalization,
    strip_dot_segment_parameters: bool,
) -> Result<Cow<'_, [u8]>, PathError> {
    let scanned = scan(target_path, mode)?;
    let target = target_path.get(..scanned.end).unwrap_or(target_path);
    if scanned.normal {
        return Ok(Cow::Borrowed(target));
    }
    let path = without_query(target);
    let query = target.get(path.len()..).unwrap_or_default();

    let mut unescaped = Cow::Borrowed(path);
    if mode == Normalization::DecodeAndMergeSlashes {
        unescaped = unescape_slashes(unescaped);
    }
    if strip_dot_segment_parameters {
        unescaped = strip_parameters(unescaped);
    }
    let mut out = canonical(&unescaped, query.len())?;
    if merges(mode) {
        merge_slashes(&mut out);
    }
    if out == path {
        return Ok(Cow::Borrowed(target));
    }
    out.extend_from_slice(query);
    Ok(Cow::Owned(out))
}

/// The part before query and fragment: what the rules on paths compare (S-139).
pub fn without_query(path: &[u8]) -> &[u8] {
    let end = path.iter().position(|b| matches!(b, b'?' | b'#'));
    end.and_then(|end| path.get(..end)).unwrap_or(path)
}

/// Whether a request line may carry this target: it begins with `/`, and every byte is printable ASCII (S-182).
///
/// The absolute form has to be cut down to its path before. `*` is refused.
pub fn acceptable(target: &[u8]) -> bool {
    target.first() == Some(&b'/') && target.iter().all(u8::is_ascii_graphic)
}

fn merges(mode: Normalization) -> bool {
    match mode {
        Normalization::None | Normalization::Base => false,
        Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes => true,
    }
}

/// What a byte asks of the scan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Nothing: it stays as it is.
    Plain,
    /// `.` and `/`: depends on the byte before.
    Structure,
    /// `%`.
    Escape,
    /// Never in a normal path: comes out as something else.
    Rewritten,
    /// `?`.
    Query,
    /// `#`.
    Fragment,
    Forbidden,
}

const CLASSES: [Class; 256] = {
    let mut table = [Class::Forbidden; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = match byte as u8 {
            b'.' | b'/' => Class::Structure,
            b'%' => Class::Escape,
            b'?' => Class::Query,
            b'#' => Class::Fragment,
            b'\\' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Rewritten,
            _ => Class::Plain,
        };
        byte += 1;
    }
    table
};

fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

struct Scanned {
    /// Where the fragment begins, else the length.
    end: usize,
    /// Surely in normal form. `false` is a suspicion.
    normal: bool,
}

/// One look at each byte of path and query.
fn scan(target: &[u8], mode: Normalization) -> Result<Scanned, PathError> {
    let rewrites = mode != Normalization::None;
    let mut normal = !rewrites || target.first() == Some(&b'/');
    let mut previous = 0;
    let mut bytes = target.iter().enumerate();
    for (at, &byte) in bytes.by_ref() {
        match class(byte) {
            Class::Plain => {}
            Class::Structure => {
                if rewrites && previous == b'/' {
                    normal &= match byte {
                        b'/' => !merges(mode),
                        _ => matches!(target.get(at + 1), Some(&next) if begins_a_name(next)),
                    };
                }
            }
            Class::Escape => {
                normal &= !rewrites
                    || escape(target.get(at..).unwrap_or_default())
                        .is_some_and(|(value, _)| kept(value, mode));
            }
            Class::Rewritten => normal &= !rewrites,
            Class::Query => break,
            Class::Fragment => return Ok(Scanned { end: at, normal }),
            Class::Forbidden => return Err(PathError::Byte),
        }
        previous = byte;
    }
    for (at, &byte) in bytes {
        match class(byte) {
            Class::Fragment => return Ok(Scanned { end: at, normal }),
            Class::Forbidden => return Err(PathError::Byte),
            Class::Plain | Class::Structure | Class::Escape | Class::Rewritten | Class::Query => {}
        }
    }
    Ok(Scanned {
        end: target.len(),
        normal,
    })
}

/// After `/.`: a byte with which this is no dot segment, with or without parameters.
fn begins_a_name(byte: u8) -> bool {
    class(byte) == Class::Plain && byte != b';'
}

/// Whether an escape of this byte stands in normal paths of this mode.
fn kept(value: u8, mode: Normalization) -> bool {
    let slash = matches!(value, b'/' | b'\\') && mode == Normalization::DecodeAndMergeSlashes;
    value != 0 && !unreserved(value) && !slash
}

/// RFC 3986 §2.3.
fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The byte that `%XX` at the front means, and what follows it.
fn escape(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let [b'%', high, low, rest @ ..] = bytes else {
        return None;
    };
    Some((hex(*high)? * 16 + hex(*low)?, rest))
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Step 2 of S-181, once: what comes out is not looked at again.
fn unescape_slashes(path: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if !path.contains(&b'%') {
        return path;
    }
    let mut out = Vec::with_capacity(path.len());
    let mut rest: &[u8] = &path;
    while let [byte, after @ ..] = rest {
        if let Some((value @ (b'/' | b'\\'), after_escape)) = escape(rest) {
            out.push(value);
            rest = after_escape;
        } else {
            out.push(*byte);
            rest = after;
        }
    }
    Cow::Owned(out)
}

/// Step 3 of S-181, and S-200. Segments end at `/` alone, as they do in Envoy: `\` has not been turned yet, so
/// `/x\..;/y` keeps its parameters.
fn strip_parameters(path: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if !path.windows(2).any(|pair| pair == b".;") {
        return path;
    }
    let mut out = Vec::with_capacity(path.len());
    for (nth, segment) in path.split(|b| *b == b'/').enumerate() {
        if nth > 0 {
            out.push(b'/');
        }
        out.extend_from_slice(match segment {
            [b'.', b'.', b';', ..] => b"..",
            [b'.', b';', ..] => b".",
            _ => segment,
        });
    }
    Cow::Owned(out)
}

/// Step 4 of S-181 by S-182 and S-183, with room for `spare` more bytes.
fn canonical(path: &[u8], spare: usize) -> Result<Vec<u8>, PathError> {
    let mut out = Vec::with_capacity(path.len() + 1 + spare);
    if !matches!(path, [b'/' | b'\\', ..]) {
        out.push(b'/');
    }
    // Where the last `%` of `out` that began no escape stands.
    let mut stray: Option<usize> = None;
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        if let Some(after_dot) = dot(rest) {
            rest = after_dot;
            if out.last() != Some(&b'/') {
                out.push(b'.');
            } else if let Some(after_segment) = end_of_segment(after_dot) {
                rest = after_segment;
            } else if let Some(after_segment) = dot(after_dot).and_then(end_of_segment) {
                rest = after_segment;
                drop_segment(&mut out);
                stray = None;
            } else {
                out.push(b'.');
            }
            continue;
        }
        let here = std::mem::replace(&mut rest, after);
        match byte {
            b'\\' => out.push(b'/'),
            b'%' => match escape(here) {
                Some((0, _)) => return Err(PathError::Nul),
                Some((value, after_escape)) if unreserved(value) => {
                    out.push(value);
                    if let Some(at) = stray {
                        settle(&mut out, at, after_escape.first().copied());
                    }
                    rest = after_escape;
                }
                Some((_, after_escape)) => {
                    out.extend_from_slice(here.get(..3).unwrap_or_default());
                    rest = after_escape;
                }
                None => {
                    stray = Some(out.len());
                    out.push(b'%');
                }
            },
            _ if class(*byte) == Class::Rewritten => {
                let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble & 15)];
                out.extend_from_slice(&[b'%', digit(byte >> 4), digit(*byte)]);
            }
            _ => out.push(*byte),
        }
    }
    Ok(out)
}

/// What follows a `.`, plain or escaped, at the front.
fn dot(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// What follows the slash at the front; nothing follows the end.
fn end_of_segment(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [] => Some(bytes),
        [b'/' | b'\\', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// Cuts `/a/b/` down to `/a/`. The root stays, and an empty segment is a segment.
fn drop_segment(out: &mut Vec<u8>) {
    let before = out.len().saturating_sub(1);
    let parent = out.iter().take(before).rposition(|b| *b == b'/');
    out.truncate(parent.unwrap_or(0) + 1);
}

/// After an escape was decoded behind a stray `%`: if the two would now be read as an escape, that `%` becomes `%25`, so
/// that decoding does not make what nobody sent (S-183). `next` is the byte that will follow.
fn settle(out: &mut Vec<u8>, stray: usize, next: Option<u8>) {
    let digits = match out.get(stray + 1..) {
        Some([first]) => next.map(|second| [*first, second]),
        Some([first, second]) => Some([*first, *second]),
        _ => None,
    };
    if digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
        out.splice(stray + 1..stray + 1, *b"25");
    }
}

/// Step 5 of S-181. Nothing but slashes becomes `//` (S-184).
fn merge_slashes(out: &mut Vec<u8>) {
    if out.iter().all(|b| *b == b'/') {
        out.truncate(2);
    } else {
        out.dedup_by(|next, previous| *next == b'/' && *previous == b'/');
    }
}

#[cfg(test)]
mod tests;
