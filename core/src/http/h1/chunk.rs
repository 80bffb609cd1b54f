//! The chunked coding taken off, byte by byte where it frames and slice by slice where it carries (RFC 9112 §7.1).
//!
//! Extensions are read only to find where the line ends, and are forwarded never.

use super::invalid;
use super::parse::is_token_byte;
use crate::error::Violation;
use crate::limits::{CHUNK_LINE_MAX, CHUNK_OVERHEAD_MAX};

/// Where a chunked body stands, up to the line of its last chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    /// Bytes of the chunk that are still to come; while its size is read, the size so far.
    left: u64,
    /// Bytes of framing beyond what bodies of that size need.
    excess: u32,
    /// Bytes of the line so far, without its CRLF.
    line: u16,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Size,
    /// After `;`, before a name; the white space here is the only one that is read.
    Extension,
    Name,
    Value,
    Token,
    Quoted,
    Escaped,
    Unquoted,
    LineFeed,
    Data,
    DataReturn,
    DataFeed,
}

/// What came out of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'i> {
    NeedsMore,
    Data(&'i [u8]),
    /// The line of the last chunk is through; the trailer section follows.
    Last,
}

const MALFORMED: Violation = invalid("a malformed chunk (RFC 9112 §7.1)");

impl Chunks {
    pub(super) fn new() -> Self {
        Self {
            left: 0,
            excess: 0,
            line: 0,
            step: Step::Size,
        }
    }

    pub(super) fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<Piece<'i>, Violation> {
        loop {
            if self.step == Step::Data {
                if input.is_empty() {
                    return Ok(Piece::NeedsMore);
                }
                let len = usize::try_from(self.left).map_or(input.len(), |n| n.min(input.len()));
                let (data, rest) = input.split_at(len);
                *input = rest;
                self.left -= len as u64;
                if self.left == 0 {
                    self.step = Step::DataReturn;
                }
                return Ok(Piece::Data(data));
            }
            let Some((byte, rest)) = input.split_first() else {
                return Ok(Piece::NeedsMore);
            };
            *input = rest;
            if self.step == Step::LineFeed && *byte == b'\n' {
                if self.left == 0 {
                    return Ok(Piece::Last);
                }
                self.begin_data()?;
            } else {
                self.step = self.framing(*byte)?;
            }
        }
    }

    /// The step that follows a byte of framing.
    fn framing(&mut self, byte: u8) -> Result<Step, Violation> {
        match (self.step, byte) {
            (Step::DataReturn, b'\r') => return Ok(Step::DataFeed),
            (Step::DataFeed, b'\n') => {
                self.line = 0;
                return Ok(Step::Size);
            }
            (Step::Size | Step::Name | Step::Token | Step::Unquoted, b'\r') if self.line > 0 => {
                return Ok(Step::LineFeed);
            }
            _ => {}
        }
        self.line += 1;
        if usize::from(self.line) > CHUNK_LINE_MAX {
            return Err(invalid("a chunk line beyond its limit"));
        }
        match (self.step, byte) {
            (Step::Size, b';') if self.line > 1 => Ok(Step::Extension),
            (Step::Size, _) => {
                let digit = (byte as char).to_digit(16).ok_or(MALFORMED)?;
                if self.line > 16 {
                    return Err(MALFORMED);
                }
                self.left = self.left << 4 | u64::from(digit);
                Ok(Step::Size)
            }
            (Step::Extension, b' ' | b'\t') => Ok(Step::Extension),
            (Step::Extension | Step::Name, _) if is_token_byte(byte) => Ok(Step::Name),
            (Step::Name, b'=') => Ok(Step::Value),
            (Step::Value, b'"') => Ok(Step::Quoted),
            (Step::Value | Step::Token, _) if is_token_byte(byte) => Ok(Step::Token),
            (Step::Name | Step::Token | Step::Unquoted, b';') => Ok(Step::Extension),
            (Step::Quoted, b'"') => Ok(Step::Unquoted),
            (Step::Quoted, b'\\') => Ok(Step::Escaped),
            (Step::Quoted | Step::Escaped, b'\t' | b' '..=b'~' | 0x80..) => Ok(Step::Quoted),
            _ => Err(MALFORMED),
        }
    }

    /// Charges the line that just ended, as Go's net/http does: each chunk brings an allowance of 16 bytes and twice its
    /// size, so that a sender may stream byte by byte.
    fn begin_data(&mut self) -> Result<(), Violation> {
        if self.left > i64::MAX as u64 {
            return Err(MALFORMED);
        }
        let allowance =
            u32::try_from(self.left).map_or(u32::MAX, |n| n.saturating_mul(2).saturating_add(16));
        self.excess = (self.excess + u32::from(self.line) + 2).saturating_sub(allowance);
        if self.excess as usize > CHUNK_OVERHEAD_MAX {
            return Err(invalid("too much chunk framing for its data"));
        }
        self.step = Step::Data;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body, and whether its end was seen.
    fn read(mut input: &[u8]) -> Result<(Vec<u8>, bool), Violation> {
        let mut chunks = Chunks::new();
        let mut body = Vec::new();
        loop {
            match chunks.next(&mut input)? {
                Piece::Data(data) => body.extend_from_slice(data),
                Piece::NeedsMore => return Ok((body, false)),
                Piece::Last => return Ok((body, true)),
            }
        }
    }

    #[test]
    fn sizes_and_extensions_are_read_and_dropped() {
        for raw in [
            "5\r\nhello\r\n0\r\n",
            "0005\r\nhello\r\n000\r\n",
            "0000000000000005\r\nhello\r\n0\r\n",
            "2\r\nhe\r\n3\r\nllo\r\n0\r\n",
            "5;a\r\nhello\r\n0;z\r\n",
            "5;a=b\r\nhello\r\n0\r\n",
            "5; a; b=c\r\nhello\r\n0\r\n",
            "5;a=\"b;c\\\"\"\r\nhello\r\n0\r\n",
            "5;a=\"b\";c\r\nhello\r\n0\r\n",
        ] {
            assert_eq!(
                read(raw.as_bytes()),
                Ok((b"hello".to_vec(), true)),
                "{raw:?}"
            );
        }
        assert_eq!(read(b"a\r\n0123456789\r\n0\r\n").map(|r| r.0.len()), Ok(10));
        assert_eq!(read(b"A\r\n0123456789\r\n0\r\n").map(|r| r.0.len()), Ok(10));
    }

    #[test]
    fn every_other_spelling_of_a_chunk_is_refused() {
        for line in [
            "",
            " 5",
            "\t5",
            "5 ",
            "5\t",
            "5 ;a",
            "+5",
            "-5",
            "0x5",
            "0X5",
            "5g",
            "g",
            "5_0",
            "5.0",
            "\"5\"",
            "5,",
            "5=a",
            "5;",
            "5;;a",
            "5;a;",
            "5;=b",
            "5;a=",
            "5;a =b",
            "5;a= b",
            "5;a b",
            "5;a=\"b",
            "5;a=\"b\"c",
            "5;a=\"\u{1}\"",
            "5;a=\"\\\r",
            "5;a\u{0}b",
            "5;a\rb",
            "5\r",
            "5;\u{e9}",
            "00000000000000005",
            "10000000000000005",
            "ffffffffffffffff",
            "8000000000000000",
        ] {
            let raw = format!("{line}\r\nhello\r\n0\r\n");
            assert!(read(raw.as_bytes()).is_err(), "{line:?}");
        }
        for raw in [
            "5\nhello\r\n0\r\n",
            "5;a\nhello\r\n0\r\n",
            "5\r\nhello\n0\r\n",
            "5\r\nhello\r0\r\n",
            "5\r\nhelloXX0\r\n",
            "5\r\nhelloo\r\n0\r\n",
            "6\r\nhello\r\n0\r\n",
            "5\r\nhello\r\n0\n",
            "5\r\nhello\r\n0 \r\n",
            "5\r\nhello\r\n\r\n0\r\n",
            "\r\n5\r\nhello\r\n0\r\n",
            "5;a=\"\r\nhello\r\n0\r\n\r\n\"\r\n",
        ] {
            assert!(read(raw.as_bytes()).is_err(), "{raw:?}");
        }
    }

    #[test]
    fn framing_may_not_outweigh_the_body() {
        let byte_by_byte = "1\r\nx\r\n".repeat(100_000) + "0\r\n";
        assert_eq!(
            read(byte_by_byte.as_bytes()).map(|r| r.0.len()),
            Ok(100_000)
        );

        let padded = format!("1;{}\r\nx\r\n", "a".repeat(1000)).repeat(100);
        assert!(read(padded.as_bytes()).is_err());

        let longest = format!("1;{}\r\nx\r\n0\r\n", "a".repeat(CHUNK_LINE_MAX - 2));
        assert!(read(longest.as_bytes()).is_ok());
        let longer = format!("1;{}\r\nx\r\n0\r\n", "a".repeat(CHUNK_LINE_MAX - 1));
        assert!(read(longer.as_bytes()).is_err());
    }
}
