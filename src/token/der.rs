//! The little of DER that an RSA key needs: sequences of whole numbers (RFC 8017 A.1.2, RFC 5958 §2).

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// An `RSAPrivateKey` of the numbers n, e, d, p, q, dP, dQ and qInv, big-endian.
pub(super) fn rsa_private_key(numbers: &[Vec<u8>]) -> Vec<u8> {
    let version = integer(&[]);
    let numbers = numbers.iter().flat_map(|number| integer(number));
    element(
        SEQUENCE,
        &version.into_iter().chain(numbers).collect::<Vec<_>>(),
    )
}

/// The numbers of the `RSAPrivateKey` in a PKCS#8 document, without leading zeros; `None` if it is something else.
pub(super) fn rsa_numbers(pkcs8: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut info = read(&mut { pkcs8 }, SEQUENCE)?;
    read(&mut info, INTEGER)?;
    read(&mut info, SEQUENCE)?;
    let mut key = read(&mut { read(&mut info, OCTET_STRING)? }, SEQUENCE)?;
    read(&mut key, INTEGER)?;
    (0..8)
        .map(|_| {
            let number = read(&mut key, INTEGER)?;
            Some(without_zeros(number).to_vec())
        })
        .collect()
}

/// `bytes` without the zeros before them.
pub(super) fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// A number that is not negative: a zero stands before a first bit that is set.
fn integer(number: &[u8]) -> Vec<u8> {
    let number = without_zeros(number);
    let content = match number.first() {
        Some(first) if first & 0x80 == 0 => number.to_vec(),
        _ => [&[0], number].concat(),
    };
    element(INTEGER, &content)
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = without_zeros(&length);
    let mut bytes = vec![tag];
    match length {
        [] => bytes.push(0),
        [short] if *short < 0x80 => bytes.push(*short),
        long => {
            bytes.extend(u8::try_from(long.len()).map(|count| 0x80 | count));
            bytes.extend(long);
        }
    }
    bytes.extend(content);
    bytes
}

/// Takes the element that stands first in `rest`; `None` if it has another tag or is cut off.
fn read<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (found, after) = rest.split_first()?;
    let (first, mut after) = after.split_first()?;
    let mut length = usize::from(*first);
    if length >= 0x80 {
        let (digits, behind) = after.split_at_checked(length & 0x7f)?;
        after = behind;
        length = digits.iter().try_fold(0_usize, |sum, digit| {
            sum.checked_mul(256)?.checked_add(usize::from(*digit))
        })?;
    }
    let (content, behind) = after.split_at_checked(length)?;
    *rest = behind;
    (*found == tag).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_into_a_document_and_come_out_of_it() {
        let numbers: Vec<Vec<u8>> = vec![
            vec![0x80; 300],
            vec![1, 0, 1],
            vec![0x7f; 127],
            vec![0xff; 128],
            vec![1],
            vec![2],
            vec![3],
            vec![4],
        ];
        let key = element(OCTET_STRING, &rsa_private_key(&numbers));
        let info = [integer(&[0]), element(SEQUENCE, &[]), key].concat();
        let document = element(SEQUENCE, &info);
        assert_eq!(rsa_numbers(&document), Some(numbers));
        for length in 0..document.len() {
            assert_eq!(rsa_numbers(&document[..length]), None, "{length}");
        }
    }

    #[test]
    fn lengths_are_as_short_as_they_can_be() {
        for (size, head) in [
            (0, &[2, 0][..]),
            (127, &[2, 127]),
            (128, &[2, 0x81, 128]),
            (256, &[2, 0x82, 1, 0]),
        ] {
            let bytes = element(INTEGER, &vec![1; size]);
            assert_eq!(&bytes[..head.len()], head);
            assert_eq!(bytes.len(), head.len() + size);
        }
        assert_eq!(integer(&[]), [2, 1, 0]);
        assert_eq!(integer(&[0, 0x80]), [2, 2, 0, 0x80]);
    }
}
