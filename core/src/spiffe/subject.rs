//! A certificate's subject as text: RFC 2253 the way BoringSSL's `XN_FLAG_RFC2253` writes it, because that is what
//! Envoy puts into `%DOWNSTREAM_PEER_SUBJECT%` and XFCC (S-325).
//!
//! The last RDN comes first; bytes outside printable ASCII are escaped as `\XX`, so the text is safe in a log line
//! or header; types without a short name appear as dotted OID and `#` with the value's DER in hexadecimal.

use std::fmt::Write as _;

use x509_parser::asn1_rs::{Any, Tag, ToDer as _};
use x509_parser::x509::X509Name;

/// Empty for an empty name.
pub(super) fn print(name: &X509Name<'_>) -> String {
    let mut out = String::new();
    let rdns: Vec<_> = name.iter().collect();
    for (n, rdn) in rdns.iter().rev().enumerate() {
        let attributes: Vec<_> = rdn.iter().collect();
        for (m, attribute) in attributes.iter().rev().enumerate() {
            match (n, m) {
                (0, 0) => {}
                (_, 0) => out.push(','),
                _ => out.push('+'),
            }
            let value = attribute.attr_value();
            match short_name(attribute.attr_type().as_bytes()) {
                Some(short) => {
                    out.push_str(short);
                    out.push('=');
                    match text(value) {
                        Some(text) => escape(&text, &mut out),
                        None => dump(value, &mut out),
                    }
                }
                None => {
                    out.push_str(&attribute.attr_type().to_id_string());
                    out.push('=');
                    dump(value, &mut out);
                }
            }
        }
    }
    out
}

/// The characters of a string type; nothing for other types and for malformed strings.
fn text(value: &Any<'_>) -> Option<String> {
    let bytes = value.data;
    match value.tag() {
        Tag::Utf8String => std::str::from_utf8(bytes).ok().map(str::to_owned),
        Tag::NumericString
        | Tag::PrintableString
        | Tag::TeletexString
        | Tag::Ia5String
        | Tag::VisibleString => Some(bytes.iter().map(|&b| char::from(b)).collect()),
        Tag::BmpString => {
            let (pairs, []) = bytes.as_chunks::<2>() else {
                return None;
            };
            pairs
                .iter()
                .map(|pair| char::from_u32(u16::from_be_bytes(*pair).into()))
                .collect()
        }
        Tag::UniversalString => {
            let (quads, []) = bytes.as_chunks::<4>() else {
                return None;
            };
            quads
                .iter()
                .map(|quad| char::from_u32(u32::from_be_bytes(*quad)))
                .collect()
        }
        _ => None,
    }
}

fn escape(text: &str, out: &mut String) {
    let last = text.len().saturating_sub(1);
    for (at, b) in text.bytes().enumerate() {
        match b {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                out.push('\\');
                out.push(char::from(b));
            }
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            0x20..0x7f => out.push(char::from(b)),
            _ => hex(b, out, "\\"),
        }
    }
}

fn dump(value: &Any<'_>, out: &mut String) {
    out.push('#');
    for b in value.to_der_vec().unwrap_or_default() {
        hex(b, out, "");
    }
}

fn hex(b: u8, out: &mut String, before: &str) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{before}{b:02X}");
}

/// BoringSSL's short name of an attribute type, by the content bytes of its OID.
fn short_name(oid: &[u8]) -> Option<&'static str> {
    Some(match oid {
        [0x55, 4, arc] => match arc {
            3 => "CN",
            4 => "SN",
            5 => "serialNumber",
            6 => "C",
            7 => "L",
            8 => "ST",
            9 => "street",
            10 => "O",
            11 => "OU",
            12 => "title",
            13 => "description",
            17 => "postalCode",
            41 => "name",
            42 => "GN",
            43 => "initials",
            44 => "generationQualifier",
            46 => "dnQualifier",
            65 => "pseudonym",
            _ => return None,
        },
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01" => "emailAddress",
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x02" => "unstructuredName",
        b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x01" => "UID",
        b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x19" => "DC",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::print;
    use x509_parser::asn1_rs::FromDer as _;
    use x509_parser::x509::X509Name;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = u8::try_from(content.len()).expect("short form");
        assert!(len < 128);
        [&[tag, len], content].concat()
    }

    fn attribute(oid: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        tlv(0x30, &[tlv(6, oid), tlv(tag, value)].concat())
    }

    fn name(rdns: &[&[Vec<u8>]]) -> String {
        let rdns: Vec<u8> = rdns
            .iter()
            .flat_map(|rdn| tlv(0x31, &rdn.concat()))
            .collect();
        let der = tlv(0x30, &rdns);
        let (rest, name) = X509Name::from_der(&der).expect("a name");
        assert!(rest.is_empty());
        print(&name)
    }

    const CN: &[u8] = &[0x55, 4, 3];
    const O: &[u8] = &[0x55, 4, 10];
    const C: &[u8] = &[0x55, 4, 6];

    #[test]
    fn an_empty_name_is_an_empty_text() {
        assert_eq!(name(&[]), "");
    }

    #[test]
    fn the_last_rdn_comes_first_and_values_of_one_rdn_are_joined_by_plus() {
        assert_eq!(
            name(&[
                &[attribute(C, 0x13, b"KR")],
                &[attribute(O, 0x0c, b"mesh"), attribute(CN, 0x0c, b"w")],
            ]),
            "CN=w+O=mesh,C=KR"
        );
    }

    /// Without this a subject could forge fields of a log line or an XFCC element.
    #[test]
    fn what_has_a_meaning_outside_is_escaped() {
        for (value, text) in [
            (&b"a,b+c\"d\\e<f>g;h"[..], r#"CN=a\,b\+c\"d\\e\<f\>g\;h"#),
            (b" a b ", r"CN=\ a b\ "),
            (b"#a#", r"CN=\#a#"),
            (b"a\r\n\0\x7f", r"CN=a\0D\0A\00\7F"),
            ("é".as_bytes(), r"CN=\C3\A9"),
        ] {
            assert_eq!(name(&[&[attribute(CN, 0x0c, value)]]), text);
        }
    }

    #[test]
    fn other_string_types_become_utf_8_first() {
        assert_eq!(name(&[&[attribute(CN, 0x1e, b"\0a\0\xe9")]]), r"CN=a\C3\A9");
        assert_eq!(name(&[&[attribute(CN, 0x14, b"a\xe9")]]), r"CN=a\C3\A9");
        assert_eq!(name(&[&[attribute(CN, 0x1c, b"\0\0\0a")]]), "CN=a");
    }

    #[test]
    fn unknown_types_and_malformed_values_are_dumped() {
        assert_eq!(
            name(&[&[attribute(&[0x2a, 3, 4], 0x0c, b"x")]]),
            "1.2.3.4=#0C0178"
        );
        assert_eq!(name(&[&[attribute(CN, 0x04, b"x")]]), "CN=#040178");
        assert_eq!(name(&[&[attribute(CN, 0x0c, b"\xff")]]), "CN=#0C01FF");
        assert_eq!(name(&[&[attribute(CN, 0x1e, b"\0")]]), "CN=#1E0100");
    }
}
