//! The part of a URL after the `?`: strictly read, so that a misspelt parameter is not silently
//! nothing.

use crate::bytes_in_text::from_percent;
use crate::problem::Problem;
use naust_client::{Level, Offset};

/// The parameters of a request; each is taken once, and [`Query::finish`] refuses what is left.
#[derive(Debug, Default)]
pub struct Query {
    left: Vec<(String, Vec<u8>)>,
}

impl Query {
    /// Reads a raw query. A `+` is a space, as forms send it.
    ///
    /// # Errors
    /// `Malformed` for bad percent-encoding, or a parameter that is given twice.
    pub fn parse(query: Option<&str>) -> Result<Query, Problem> {
        let mut left: Vec<(String, Vec<u8>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if left.iter().any(|(known, _)| known == name) {
                return Err(Problem::malformed(format!("the parameter {name:?} is given twice")));
            }
            left.push((name.to_owned(), from_percent(&value.replace('+', " "))?));
        }
        Ok(Query { left })
    }

    /// The bytes of a parameter.
    pub fn bytes(&mut self, name: &str) -> Option<Vec<u8>> {
        let index = self.left.iter().position(|(known, _)| known == name)?;
        Some(self.left.swap_remove(index).1)
    }

    /// The text of a parameter.
    ///
    /// # Errors
    /// `Malformed` when it is not UTF-8.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let not_text = |_| Problem::malformed(format!("the parameter {name} is not UTF-8"));
        self.bytes(name).map(|bytes| String::from_utf8(bytes).map_err(not_text)).transpose()
    }

    /// The number of a parameter.
    ///
    /// # Errors
    /// `Malformed` when it is no decimal number below 2⁶⁴.
    pub fn number(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        self.text(name)?.map(|text| number(name, &text)).transpose()
    }

    /// The same, for a number that fits 32 bits.
    ///
    /// # Errors
    /// As [`Query::number`], and `TooLarge`.
    pub fn small(&mut self, name: &str) -> Result<u32, Problem> {
        let number = self.number(name)?.unwrap_or_default();
        u32::try_from(number).map_err(|_| {
            Problem::of(naust_client::Code::TooLarge, format!("{name}={number} is too large"))
        })
    }

    /// A parameter that is on (`reverse`, `reverse=true`, `reverse=1`) or off.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        match self.text(name)?.as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => {
                Err(Problem::malformed(format!("{name}={other} is neither true nor false")))
            }
        }
    }

    /// How fresh an answer must be: `read=linearizable|local`, `at=N` or `min=N`, one of them.
    ///
    /// # Errors
    /// `Malformed`, or `BadArgument` when more than one is given.
    pub fn level(&mut self) -> Result<Level, Problem> {
        let at = self.number("at")?;
        self.level_with(at)
    }

    /// The same for what can't be read as it was: `at` is left.
    ///
    /// # Errors
    /// As [`Query::level`].
    pub fn level_now(&mut self) -> Result<Level, Problem> {
        self.level_with(None)
    }

    fn level_with(&mut self, at: Option<u64>) -> Result<Level, Problem> {
        let (read, min) = (self.text("read")?, self.number("min")?);
        match (read.as_deref(), at, min) {
            (None | Some("linearizable"), None, None) => Ok(Level::Linearizable),
            (Some("local"), None, None) => Ok(Level::Local),
            (None, Some(at), None) => Ok(Level::Exactly(Offset(at))),
            (None, None, Some(min)) => Ok(Level::AtLeast(Offset(min))),
            (Some(other), None, None) => {
                Err(Problem::malformed(format!("read={other} is neither linearizable nor local")))
            }
            _ => Err(Problem::bad_argument("give one of read, at and min, not several")),
        }
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// `Malformed`, with the name of a parameter that nothing asked for.
    pub fn finish(self) -> Result<(), Problem> {
        match self.left.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(Problem::malformed(format!("this route has no parameter {name:?}")))
            }
        }
    }
}

/// A decimal number below 2⁶⁴, without sign or spaces.
///
/// # Errors
/// `Malformed`.
pub fn number(name: &str, text: &str) -> Result<u64, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| Problem::malformed(format!("{name}={text:?} is no decimal number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(Some(text)).unwrap()
    }

    #[test]
    fn parameters_are_taken_once_and_none_is_left() {
        let mut q = query("from=a%00+b&limit=7&reverse");
        assert_eq!(q.bytes("from"), Some(b"a\0 b".to_vec()));
        assert_eq!(q.number("limit").unwrap(), Some(7));
        assert!(q.flag("reverse").unwrap());
        assert_eq!((q.bytes("from"), q.flag("reverse").unwrap()), (None, false));
        assert!(q.finish().is_ok());
        assert_eq!(query("limits=7").finish().unwrap_err().code(), "malformed");
        assert!(Query::parse(Some("a=1&a=2")).is_err());
        assert!(Query::parse(Some("a=%f")).is_err());
        assert!(Query::parse(None).unwrap().finish().is_ok());
    }

    #[test]
    fn numbers_are_plain() {
        for bad in ["", "-1", "+1", " 1", "1.0", "0x1", "18446744073709551616"] {
            assert!(number("n", bad).is_err(), "{bad:?}");
        }
        assert_eq!(number("n", "18446744073709551615").unwrap(), u64::MAX);
        assert_eq!(query("n=4294967296").small("n").unwrap_err().code(), "too_large");
        assert!(query("n=maybe").flag("n").is_err());
    }

    #[test]
    fn levels_exclude_each_other() {
        let table = [
            ("", Some(Level::Linearizable)),
            ("read=linearizable", Some(Level::Linearizable)),
            ("read=local", Some(Level::Local)),
            ("at=5", Some(Level::Exactly(Offset(5)))),
            ("min=5", Some(Level::AtLeast(Offset(5)))),
            ("read=fast", None),
            ("read=local&at=5", None),
            ("at=5&min=5", None),
        ];
        for (text, expected) in table {
            assert_eq!(query(text).level().ok(), expected, "{text}");
        }
    }
}
