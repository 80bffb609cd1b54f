//! What stands for something else in the texts of a case: `${JWKS:…}`, `${CA:…}`.

use std::cell::RefCell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meshward_core::api::load::yaml::Node;
use serde_json::Value;

use super::cert::Authorities;
use super::keys::Keys;
use super::tree::json;

/// What the harness makes: keys and certificates, each when it is first named.
#[derive(Debug)]
pub(super) struct Makers {
    pub(super) authorities: Authorities,
    pub(super) keys: Keys,
}

impl Makers {
    /// The tree as JSON, with what its texts stand for.
    pub(super) fn json(&mut self, node: &Node) -> Result<Value, String> {
        let makers = RefCell::new(self);
        json(node, &|text| makers.borrow_mut().substitute(text))
    }

    /// Replaces `${JWKS:keys}`, `${CA:name}` and `${CAB64:name}`. The other substitutions stand for files and endpoints,
    /// which nothing that acts here takes.
    pub(super) fn substitute(&mut self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            let Some((inside, after)) = from[2..].split_once('}') else {
                break;
            };
            out.push_str(before);
            match inside.split_once(':') {
                Some(("JWKS", names)) => out.push_str(&self.keys.jwks(names)?),
                Some(("CA", name)) => out.push_str(self.authorities.root_pem(name)?),
                Some(("CAB64", name)) => {
                    let pem = self.authorities.root_pem(name)?;
                    STANDARD.encode_string(pem, &mut out);
                }
                Some((word, _)) if is_word(word) => {
                    return Err(format!("nothing stands for `${{{inside}}}` here"));
                }
                _ => {
                    out.push_str("${");
                    out.push_str(inside);
                    out.push('}');
                }
            }
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }
}

fn is_word(word: &str) -> bool {
    word.bytes()
        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use meshward_simulator::clock::BIRTH;

    use super::*;

    #[test]
    fn keys_and_authorities_stand_for_their_names_and_nothing_else_does() {
        let mut makers = Makers {
            authorities: Authorities::new(BIRTH),
            keys: Keys::default(),
        };
        let pem = makers.substitute("a ${CA:other} ${x}").expect("a text");
        assert!(pem.starts_with("a -----BEGIN CERTIFICATE-----"), "{pem}");
        assert!(pem.ends_with(" ${x}"), "{pem}");
        assert_eq!(makers.substitute("a ${b"), Ok("a ${b".into()));
        assert_eq!(
            makers.substitute("${JWKS:}"),
            Ok(r#"{"keys":[]}"#.to_owned())
        );
        let jwks = makers.substitute("${JWKS:ec-a!nokid!alg=ES256,hs-a}");
        let jwks: Value = serde_json::from_str(&jwks.expect("a text")).expect("JSON");
        assert_eq!(jwks["keys"][0]["alg"], "ES256");
        assert_eq!(jwks["keys"][0]["kid"], Value::Null);
        assert_eq!(jwks["keys"][1]["kid"], "hs-a");
        assert!(makers.substitute("${JWKS:xx-a}").is_err());
        assert!(makers.substitute("${CERTFILE:a.example}").is_err());
    }
}
