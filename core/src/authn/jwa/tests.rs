//! Each algorithm with a key of its kind, and with keys of all the others.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};

use super::*;

const MESSAGE: &[u8] = b"header.payload";

/// A key, and the signatures that it made by each algorithm of its kind.
type Signed = (Material, Vec<(Algorithm, Vec<u8>)>);

fn rsa() -> Signed {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let encodings: [(Algorithm, &'static dyn RsaEncoding); 6] = [
        (Algorithm::Rs256, &RSA_PKCS1_SHA256),
        (Algorithm::Rs384, &RSA_PKCS1_SHA384),
        (Algorithm::Rs512, &RSA_PKCS1_SHA512),
        (Algorithm::Ps256, &RSA_PSS_SHA256),
        (Algorithm::Ps384, &RSA_PSS_SHA384),
        (Algorithm::Ps512, &RSA_PSS_SHA512),
    ];
    let signed = encodings.map(|(algorithm, encoding)| {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &SystemRandom::new(), MESSAGE, &mut signature)
            .unwrap();
        (algorithm, signature)
    });
    let key = pair.public_key();
    let material = Material::rsa(
        key.modulus().big_endian_without_leading_zero(),
        key.exponent().big_endian_without_leading_zero(),
    );
    (material, signed.to_vec())
}

fn ec(
    algorithm: Algorithm,
    signing: &'static EcdsaSigningAlgorithm,
    material: fn(&[u8]) -> Option<Material>,
) -> Signed {
    let pair = EcdsaKeyPair::generate(signing).unwrap();
    let signature = pair.sign(&SystemRandom::new(), MESSAGE).unwrap();
    let material = material(pair.public_key().as_ref()).unwrap();
    (material, vec![(algorithm, signature.as_ref().to_vec())])
}

fn ed25519() -> Signed {
    let pair = Ed25519KeyPair::generate().unwrap();
    let key = pair.public_key().as_ref().try_into().unwrap();
    let signature = pair.sign(MESSAGE).as_ref().to_vec();
    (Material::ed25519(key), vec![(Algorithm::EdDsa, signature)])
}

fn secret() -> Signed {
    let hashes = [
        (Algorithm::Hs256, hmac::HMAC_SHA256),
        (Algorithm::Hs384, hmac::HMAC_SHA384),
        (Algorithm::Hs512, hmac::HMAC_SHA512),
    ];
    let signed = hashes.map(|(algorithm, hash)| {
        let tag = hmac::sign(&hmac::Key::new(hash, b"secret"), MESSAGE);
        (algorithm, tag.as_ref().to_vec())
    });
    (Material::secret(b"secret"), signed.to_vec())
}

#[test]
fn a_signature_verifies_by_its_key_and_its_algorithm_alone() {
    // S-220, RFC 7518 §3.1
    let all = [
        rsa(),
        ec(
            Algorithm::Es256,
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            Material::p256,
        ),
        ec(
            Algorithm::Es384,
            &ECDSA_P384_SHA384_FIXED_SIGNING,
            Material::p384,
        ),
        ec(
            Algorithm::Es512,
            &ECDSA_P521_SHA512_FIXED_SIGNING,
            Material::p521,
        ),
        ed25519(),
        secret(),
    ];
    let signed = all.iter().flat_map(|(_, signed)| signed);
    assert_eq!(signed.clone().count(), Algorithm::ALL.len());
    for (made, signature) in signed {
        for (key, own) in &all {
            for algorithm in Algorithm::ALL {
                let expected = algorithm == *made && own.iter().any(|(one, _)| one == made);
                let outcome = key.verifies(algorithm, MESSAGE, signature);
                let is_cut = matches!(key, Material::Ed25519(_))
                    && algorithm == Algorithm::EdDsa
                    && signature.len() != 64;
                let expected = if is_cut {
                    Err(Status::Ed25519WrongLength)
                } else {
                    Ok(expected)
                };
                let kind = key.kind();
                assert_eq!(outcome, expected, "{made:?} by {kind} as {algorithm:?}");
            }
        }
    }
    for (key, own) in &all {
        for (algorithm, signature) in own {
            assert_eq!(
                key.verifies(*algorithm, b"header.Payload", signature),
                Ok(false)
            );
            for change in 0..3 {
                let mut changed = signature.clone();
                match change {
                    0 => changed[7] ^= 1,
                    1 => changed.push(0),
                    _ => changed.clear(),
                }
                let outcome = key.verifies(*algorithm, MESSAGE, &changed);
                assert_ne!(outcome, Ok(true), "{algorithm:?} {change}");
            }
        }
    }
}

#[test]
fn a_point_beside_the_curve_is_no_key() {
    for (signing, material) in [
        (
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            Material::p256 as fn(&[u8]) -> Option<Material>,
        ),
        (&ECDSA_P384_SHA384_FIXED_SIGNING, Material::p384),
        (&ECDSA_P521_SHA512_FIXED_SIGNING, Material::p521),
    ] {
        let pair = EcdsaKeyPair::generate(signing).unwrap();
        let mut point = pair.public_key().as_ref().to_vec();
        assert!(material(&point).is_some());
        point[20] ^= 1;
        assert!(material(&point).is_none());
        assert!(material(&[]).is_none());
    }
}

#[test]
fn names_are_those_of_rfc_7518() {
    for algorithm in Algorithm::ALL {
        assert_eq!(Algorithm::named(algorithm.name()), Some(algorithm));
        assert_eq!(Algorithm::named(&algorithm.name().to_lowercase()), None);
    }
    assert_eq!(Algorithm::named("none"), None);
}
