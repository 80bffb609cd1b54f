//! Rust files as text, for tests that judge them without a compiler.

use std::fs;
use std::path::{Path, PathBuf};

/// The Rust files under `folder`, in order of their names.
pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(folder, &mut files);
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut entries: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if path.file_name().is_none_or(|n| n != "target") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// The text without comments, contents of literals, and items under `#[cfg(test)]`.
pub fn code(text: &str) -> String {
    without_tests(&without_words(text))
}

/// The text without comments and contents of literals.
pub fn without_words(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut i = 0;
    while i < bytes.len() {
        let rest = &text[i..];
        if rest.starts_with("//") {
            i += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            let mut depth = 0;
            loop {
                match &text[i..] {
                    "" => break,
                    r if r.starts_with("/*") => (depth, i) = (depth + 1, i + 2),
                    r if r.starts_with("*/") => (depth, i) = (depth - 1, i + 2),
                    r => i += r.chars().next().map_or(1, char::len_utf8),
                }
                if depth == 0 {
                    break;
                }
            }
        } else if let Some(n) = literal(rest) {
            out.push_str("\"\"");
            i += n;
        } else {
            let c = rest.chars().next().unwrap_or(' ');
            out.push(c);
            i += c.len_utf8();
        }
    }
    out
}

/// The length of the string or character literal that `rest` begins with.
fn literal(rest: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    if bytes[0] == b'\'' {
        // A lifetime has no closing quote behind its first character.
        let inner = rest[1..].chars().next()?;
        if inner == '\\' {
            return rest[3..].find('\'').map(|at| at + 4);
        }
        let end = 1 + inner.len_utf8();
        return (bytes.get(end) == Some(&b'\'')).then_some(end + 1);
    }
    if bytes[0] == b'r' {
        let hashes = bytes[1..].iter().take_while(|b| **b == b'#').count();
        if bytes.get(1 + hashes) == Some(&b'"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            let end = rest[body..].find(&close)?;
            return Some(body + end + close.len());
        }
        return None;
    }
    if bytes[0] != b'"' {
        return None;
    }
    let mut i = 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'"' => return Some(i + 1),
            _ => i += 1,
        }
    }
    Some(bytes.len())
}

fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(") {
        let condition_end = rest[at..].find(")]").map_or(rest.len(), |end| at + end + 2);
        let words = tokens(&rest[at..condition_end]);
        let tests = words.windows(3).any(|w| w[2] == "test" && w[0] != "not");
        if !tests {
            out.push_str(&rest[..condition_end]);
            rest = &rest[condition_end..];
            continue;
        }
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let mut depth = 0;
        let end = rest.char_indices().find_map(|(i, c)| {
            match c {
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(i + 1);
                    }
                }
                ';' if depth == 0 => return Some(i + 1),
                _ => {}
            }
            None
        });
        rest = &rest[end.unwrap_or(rest.len())..];
    }
    out.push_str(rest);
    out
}

/// Words, `::`, and single other characters.
pub fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while !rest.is_empty() {
        let word = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let n = if word > 0 {
            word
        } else if rest.starts_with("::") {
            2
        } else {
            rest.chars().next().map_or(1, char::len_utf8)
        };
        tokens.push(&rest[..n]);
        rest = rest[n..].trim_start();
    }
    tokens
}

/// Whether a token is a name or a keyword.
pub fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}
