//! Reads the objects of one Cap'n Proto message in place: the counterpart of [`crate::layout`], for
//! commits, which every replica reads again and again.
//!
//! It takes what one segment needs and refuses the rest: no far pointers, no capabilities, and
//! lists of structs only in the form that all builders write for them. Every step is
//! bounds-checked; nothing is copied; a field or pointer beyond a struct's sections is zero or
//! null, so messages of older and newer schemas are read. Fuzzing holds what it reads equal to what
//! the generated code reads.

use crate::code::Code;
use crate::layout::WORD;
use crate::message::Refusal;

/// A message, as words.
#[derive(Clone, Copy)]
pub(crate) struct View<'m> {
    bytes: &'m [u8],
}

/// A struct: where its data section begins, in words, and the sizes of its sections.
#[derive(Clone, Copy)]
pub(crate) struct Struct<'m> {
    view: View<'m>,
    at: usize,
    data: usize,
    pointers: usize,
}

/// A list of structs of one size.
#[derive(Clone, Copy)]
pub(crate) struct Structs<'m> {
    first: Struct<'m>,
    len: usize,
}

/// A list of texts.
#[derive(Clone, Copy)]
pub(crate) struct Texts<'m> {
    view: View<'m>,
    at: usize,
    len: usize,
}

/// A pointer to a list: its target in words, its code of element sizes and its count.
struct List {
    at: usize,
    code: u64,
    count: usize,
}

const BYTES: u64 = 2;
const POINTERS: u64 = 6;
const COMPOSITE: u64 = 7;

impl<'m> View<'m> {
    /// The struct that the root pointer of `bytes` leads to.
    pub(crate) fn root(bytes: &'m [u8]) -> Result<Struct<'m>, Refusal> {
        let view = View { bytes };
        let pointer = view.word(0)?;
        if pointer == 0 {
            return Ok(view.no_struct());
        }
        if pointer & 3 != 0 {
            return Err(malformed("the root of the message is no struct"));
        }
        let at = view.target(0, pointer)?;
        let (data, pointers) = sections(pointer);
        view.within(at, data + pointers)?;
        Ok(Struct { view, at, data, pointers })
    }

    fn no_struct(self) -> Struct<'m> {
        Struct { view: self, at: 0, data: 0, pointers: 0 }
    }

    fn word(self, at: usize) -> Result<u64, Refusal> {
        match self.bytes.get(at * WORD..).and_then(|rest| rest.first_chunk()) {
            Some(word) => Ok(u64::from_le_bytes(*word)),
            None => Err(outside()),
        }
    }

    /// Where the pointer that stands at word `at` leads.
    fn target(self, at: usize, pointer: u64) -> Result<usize, Refusal> {
        let words = i64::from(pointer as u32 as i32 >> 2);
        usize::try_from(at as i64 + 1 + words).map_err(|_| outside())
    }

    fn within(self, at: usize, words: usize) -> Result<(), Refusal> {
        if at + words > self.bytes.len() / WORD {
            return Err(outside());
        }
        Ok(())
    }

    /// The list that the pointer at word `at` leads to, if it is not null. Its target is not looked
    /// at yet.
    fn list(self, at: usize) -> Result<Option<List>, Refusal> {
        let pointer = self.word(at)?;
        if pointer == 0 {
            return Ok(None);
        }
        if pointer & 3 != 1 {
            return Err(malformed("a pointer leads to something else than a list"));
        }
        let at = self.target(at, pointer)?;
        Ok(Some(List { at, code: pointer >> 32 & 7, count: (pointer >> 35) as usize }))
    }

    /// The bytes that the pointer at word `at` leads to; none when it is null.
    fn data(self, at: usize) -> Result<&'m [u8], Refusal> {
        match self.list(at)? {
            None => Ok(&[]),
            Some(List { at, code: BYTES, count }) => {
                self.within(at, count.div_ceil(WORD))?;
                Ok(&self.bytes[at * WORD..at * WORD + count])
            }
            Some(_) => Err(malformed("a pointer leads to something else than bytes")),
        }
    }
}

impl<'m> Struct<'m> {
    /// The 64 bits of word `index` of the data section.
    pub(crate) fn u64(self, index: usize) -> u64 {
        if index >= self.data {
            return 0;
        }
        self.view.word(self.at + index).expect("the struct lies within the message")
    }

    /// The bytes that pointer `index` leads to; none when it is null.
    pub(crate) fn data(self, index: usize) -> Result<&'m [u8], Refusal> {
        if index >= self.pointers {
            return Ok(&[]);
        }
        self.view.data(self.at + self.data + index)
    }

    fn list(self, index: usize) -> Result<Option<List>, Refusal> {
        if index >= self.pointers {
            return Ok(None);
        }
        self.view.list(self.at + self.data + index)
    }

    /// The list of structs that pointer `index` leads to; an empty one when it is null.
    pub(crate) fn structs(self, index: usize) -> Result<Structs<'m>, Refusal> {
        let view = self.view;
        match self.list(index)? {
            None => Ok(Structs { first: view.no_struct(), len: 0 }),
            Some(List { at, code: COMPOSITE, count: words }) => {
                view.within(at, 1 + words)?;
                let tag = view.word(at)?;
                let (data, pointers) = sections(tag);
                let len = (tag as u32 >> 2) as usize;
                if tag & 3 != 0 || len * (data + pointers) > words {
                    return Err(malformed("a list of structs is longer than its words"));
                }
                Ok(Structs { first: Struct { view, at: at + 1, data, pointers }, len })
            }
            Some(_) => Err(malformed("a pointer leads to something else than a list of structs")),
        }
    }

    /// The list of texts that pointer `index` leads to; an empty one when it is null.
    pub(crate) fn texts(self, index: usize) -> Result<Texts<'m>, Refusal> {
        let view = self.view;
        match self.list(index)? {
            None => Ok(Texts { view, at: 0, len: 0 }),
            Some(List { at, code: POINTERS, count: len }) => {
                view.within(at, len)?;
                Ok(Texts { view, at, len })
            }
            Some(_) => Err(malformed("a pointer leads to something else than a list of texts")),
        }
    }
}

impl<'m> Structs<'m> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Struct<'m>> + Clone + use<'m> {
        let Structs { first, len } = self;
        let words = first.data + first.pointers;
        (0..len).map(move |index| Struct { at: first.at + index * words, ..first })
    }
}

impl<'m> Texts<'m> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The text number `index`, which there must be.
    pub(crate) fn get(&self, index: usize) -> Result<&'m str, Refusal> {
        debug_assert!(index < self.len, "there is no such text");
        let bytes = match self.view.data(self.at + index)? {
            [] => &[],
            [bytes @ .., 0] => bytes,
            _ => return Err(malformed("a text does not end with a zero byte")),
        };
        Ok(std::str::from_utf8(bytes)?)
    }
}

/// The sizes of a struct's data section and pointer section, in words, from its pointer or tag.
fn sections(pointer: u64) -> (usize, usize) {
    ((pointer >> 32) as usize & 0xffff, (pointer >> 48) as usize)
}

fn outside() -> Refusal {
    malformed("a pointer leads out of the message")
}

fn malformed(detail: &str) -> Refusal {
    Refusal::new(Code::Malformed, detail)
}
