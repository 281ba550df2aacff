//! Bytes in URLs and in JSON: percent-encoding and base64.

use crate::problem::Problem;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// Bytes as base64, with the standard alphabet and padding (RFC 4648, section 4).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of a base64 text.
///
/// # Errors
/// `Malformed`.
pub fn from_base64(text: &str) -> Result<Vec<u8>, Problem> {
    STANDARD.decode(text).map_err(|error| Problem::malformed(format!("bad base64: {error}")))
}

/// The bytes that a percent-encoded text stands for (RFC 3986, section 2.1).
///
/// # Errors
/// `Malformed` when a `%` is not followed by two hexadecimal digits.
pub fn from_percent(text: &str) -> Result<Vec<u8>, Problem> {
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else { return Err(bad_percent(text)) };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
            return Err(bad_percent(text));
        };
        out.push((high * 16 + low) as u8);
        rest = after;
    }
    Ok(out)
}

fn bad_percent(text: &str) -> Problem {
    Problem::malformed(format!("{text:?} has a % that is not followed by two hexadecimal digits"))
}

/// The text that a percent-encoded one stands for.
///
/// # Errors
/// `Malformed` when it is not UTF-8, or as [`from_percent`].
pub fn text_from_percent(text: &str) -> Result<String, Problem> {
    String::from_utf8(from_percent(text)?)
        .map_err(|_| Problem::malformed(format!("{text:?} does not stand for UTF-8")))
}

/// Puts bytes into a JSON object: `name` when they are UTF-8, else `name_base64`.
pub fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), base64(bytes).into()),
    };
}

/// The bytes of a field that is given either as text or as base64, if it is given.
///
/// # Errors
/// `Malformed` when both are given, or the base64 is bad.
pub fn either(
    name: &str,
    text: Option<String>,
    encoded: Option<String>,
) -> Result<Option<Vec<u8>>, Problem> {
    match (text, encoded) {
        (Some(_), Some(_)) => {
            Err(Problem::malformed(format!("give {name} or {name}_base64, not both")))
        }
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(encoded)) => from_base64(&encoded).map(Some),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percent_encoding_is_read_strictly() {
        let table: [(&str, Option<&[u8]>); 9] = [
            ("", Some(b"")),
            ("a+b c", Some(b"a+b c")),
            ("%00%fF%2f", Some(&[0, 255, b'/'])),
            ("100%25", Some(b"100%")),
            ("%", None),
            ("%4", None),
            ("%4g", None),
            ("%+1", None),
            ("a%é0", None),
        ];
        for (text, expected) in table {
            assert_eq!(from_percent(text).ok().as_deref(), expected, "{text:?}");
        }
        assert!(text_from_percent("%C3%A9").is_ok_and(|text| text == "é"));
        assert!(text_from_percent("%C3").is_err());
    }

    #[test]
    fn base64_is_read_strictly() {
        for good in ["", "AA==", "AAE=", "AAEC", "+/8="] {
            assert_eq!(base64(&from_base64(good).unwrap()), good);
        }
        for bad in ["A", "AA", "AA=", "AB==", "A A=", "-_8=", "AA==\n"] {
            assert!(from_base64(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn bytes_in_json_are_read_again(bytes: Vec<u8>) {
            let mut object = Map::new();
            put_bytes(&mut object, "key", &bytes);
            prop_assert_eq!(object.len(), 1);
            let mut take = |name: &str| object.remove(name).map(|v| v.as_str().unwrap().to_owned());
            let (text, encoded) = (take("key"), take("key_base64"));
            prop_assert_eq!(text.is_some(), std::str::from_utf8(&bytes).is_ok());
            prop_assert_eq!(either("key", text, encoded).unwrap(), Some(bytes));
        }
    }
}
