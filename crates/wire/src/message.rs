//! Reading and building single-segment Cap'n Proto messages without a segment table.
//!
//! The header in front of a message (frame or packet) tells its length, so the table would only
//! repeat it.

use crate::code::Code;

/// A request or a stored body that was refused: the stable code and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What is wrong and what to do, in a sentence.
    pub detail: String,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(code: Code, detail: impl Into<String>) -> Refusal {
        Refusal { code, detail: detail.into() }
    }
}

impl From<capnp::Error> for Refusal {
    fn from(error: capnp::Error) -> Refusal {
        Refusal::new(Code::Malformed, format!("not a well-formed message: {error}"))
    }
}

impl From<capnp::NotInSchema> for Refusal {
    fn from(error: capnp::NotInSchema) -> Refusal {
        Refusal::new(
            Code::UnknownKind,
            format!("a member that this release does not know: {error}"),
        )
    }
}

impl From<std::str::Utf8Error> for Refusal {
    fn from(error: std::str::Utf8Error) -> Refusal {
        Refusal::new(Code::Malformed, format!("a text is not UTF-8: {error}"))
    }
}

/// The single segment of a message, in place.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a>(&'a [u8]);

impl capnp::message::ReaderSegments for Segment<'_> {
    fn get_segment(&self, id: u32) -> Option<&[u8]> {
        (id == 0).then_some(self.0)
    }

    fn len(&self) -> usize {
        1
    }
}

/// A message in place; typed views of it borrow from here.
pub struct Message<'a> {
    bytes: &'a [u8],
    reader: capnp::message::Reader<Segment<'a>>,
}

impl<'a> Message<'a> {
    /// Looks at `bytes` as a message that is read in place, as often as one likes. Nothing is
    /// checked until a field is read. Pointers may lead to the same bytes more than once, so
    /// whoever copies or counts what they lead to bounds the sum himself, as
    /// [`crate::commit::Commit::check`] does.
    ///
    /// # Errors
    /// [`Code::Malformed`] when the length is not a multiple of eight or is zero.
    pub fn new(bytes: &'a [u8]) -> Result<Message<'a>, Refusal> {
        Message::with_limit(bytes, None)
    }

    /// Looks at `bytes` as a message that is read once, from end to end, by a decoder that copies
    /// what it reads: reading stops with [`Code::Malformed`] after twice the message's length, so
    /// pointers that lead to the same bytes again and again can't make a small message into a large
    /// value.
    ///
    /// # Errors
    /// [`Code::Malformed`] when the length is not a multiple of eight or is zero.
    pub fn once(bytes: &'a [u8]) -> Result<Message<'a>, Refusal> {
        Message::with_limit(bytes, Some(bytes.len() / 4 + 64))
    }

    fn with_limit(bytes: &'a [u8], words: Option<usize>) -> Result<Message<'a>, Refusal> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(8) {
            return Err(Refusal::new(
                Code::Malformed,
                "a message is a whole number of 8-byte words",
            ));
        }
        let options =
            capnp::message::ReaderOptions { traversal_limit_in_words: words, nesting_limit: 16 };
        Ok(Message { bytes, reader: capnp::message::Reader::new(Segment(bytes), options) })
    }

    /// The bytes of the whole message.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The root, as the generated type `T`.
    ///
    /// # Errors
    /// [`Code::Malformed`] when the root pointer leads nowhere.
    pub fn root<'m, T: capnp::traits::FromPointerReader<'m>>(&'m self) -> Result<T, Refusal> {
        Ok(self.reader.get_root()?)
    }
}

/// Builds one message whose root is of the generated type `T` (the `Owned` of its module) with
/// `fill`, and appends its bytes to `out`.
///
/// `words` is the expected size in 8-byte words. A message that outgrows it is right all the same,
/// but is copied once more to bring it into one segment.
pub fn build<T>(words: usize, out: &mut Vec<u8>, fill: impl FnOnce(T::Builder<'_>))
where
    T: capnp::traits::Owned,
{
    let words = u32::try_from(words.clamp(16, WORDS_MAX)).expect("clamped below 2^32");
    let allocator = capnp::message::HeapAllocator::new().first_segment_words(words);
    let mut builder = capnp::message::Builder::new(allocator);
    fill(builder.init_root());
    if let [segment] = &builder.get_segments_for_output()[..] {
        out.extend_from_slice(segment);
        return;
    }
    let gathered = builder.into_reader().canonicalize().expect("what was just built can be read");
    out.extend_from_slice(capnp::Word::words_to_bytes(&gathered));
}

/// Copies a text of at most `max` bytes.
pub(crate) fn text(text: capnp::text::Reader<'_>, max: usize) -> Result<String, Refusal> {
    if text.len() > max {
        let detail = format!("a text of {} bytes; at most {max} are taken here", text.len());
        return Err(Refusal::new(Code::TooLarge, detail));
    }
    Ok(text.to_str()?.to_owned())
}

/// Copies bytes of which at most `max` are taken.
pub(crate) fn data(data: &[u8], max: usize) -> Result<Vec<u8>, Refusal> {
    if data.len() > max {
        let detail = format!("a field of {} bytes; at most {max} are taken here", data.len());
        return Err(Refusal::new(Code::TooLarge, detail));
    }
    Ok(data.to_vec())
}

/// Refuses a count over its limit.
pub(crate) fn bounded(what: &str, count: usize, max: usize) -> Result<(), Refusal> {
    if count > max {
        return Err(over(what, count, max));
    }
    Ok(())
}

/// The refusal of a count over its limit.
pub(crate) fn over(what: &str, count: usize, max: usize) -> Refusal {
    Refusal::new(Code::TooLarge, format!("{count} {what}; at most {max} are taken"))
}

/// The first segment of a message under construction is never larger than this, in words.
const WORDS_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naust_capnp as schema;

    fn names(words: usize, count: u32) -> Vec<u8> {
        let mut out = vec![7];
        build::<schema::commit::Owned>(words, &mut out, |root| {
            let mut names = root.init_names(count);
            for i in 0..count {
                names.set(i, "a name that is not short");
            }
        });
        out
    }

    #[test]
    fn a_message_that_outgrows_its_first_segment_is_one_segment_still() {
        for (words, count) in [(0, 0), (16, 1), (16, 1000), (10_000, 1000)] {
            let out = names(words, count);
            let message = Message::new(&out[1..]).unwrap();
            let root: schema::commit::Reader<'_> = message.root().unwrap();
            let read = root.get_names().unwrap();
            assert_eq!(read.len(), count);
            assert!(read.iter().all(|name| name.unwrap() == "a name that is not short"));
        }
    }

    #[test]
    fn a_message_read_once_is_not_read_again_and_again() {
        let out = names(16, 1000);
        let message = Message::once(&out[1..]).unwrap();
        let root: schema::commit::Reader<'_> = message.root().unwrap();
        let all = || root.get_names()?.iter().try_for_each(|name| name.map(|_| ()));
        assert!(all().is_ok());
        assert!((0..3).any(|_| all().is_err()));
    }

    #[test]
    fn what_is_not_whole_words_is_no_message() {
        for length in [0, 1, 7, 9] {
            let bytes = vec![0; length];
            assert!(Message::new(&bytes).is_err_and(|refusal| refusal.code == Code::Malformed));
        }
    }
}
