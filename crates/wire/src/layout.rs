//! Writes the objects of one Cap'n Proto message straight into a buffer, for the few messages that
//! are built hundreds of thousands of times a second.
//!
//! It knows pointers, structs and lists but no schema: callers give sizes and places, and tests
//! prove that what they give reads back equal through the generated code. Objects lie in the order
//! in which they are written; fixed parts are zero until a field is set. Everything that is not so
//! hot is built by [`crate::message::build`].
//!
//! ```text
//! out: … | root pointer | root struct: data, pointers | object | object | …
//!        ^ start          every pointer: distance in words from its own end to its object
//! ```

/// Bytes of a word, the unit of the format.
pub(crate) const WORD: usize = 8;

/// Size of a struct in words: its data section and its pointers.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) data: usize,
    pub(crate) pointers: usize,
}

impl Size {
    /// The size that the generated code has for a struct.
    pub(crate) const fn of<T: capnp::traits::HasStructSize>() -> Size {
        let size = T::STRUCT_SIZE;
        Size { data: size.data as usize, pointers: size.pointers as usize }
    }

    /// Both sections, in bytes.
    pub(crate) const fn bytes(self) -> usize {
        (self.data + self.pointers) * WORD
    }
}

/// A struct that has been laid: where its data section begins in the buffer, and its size.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    at: usize,
    size: Size,
}

impl Place {
    /// Where its pointer number `index` stands.
    pub(crate) fn pointer(self, index: usize) -> usize {
        debug_assert!(index < self.size.pointers, "the struct has no such pointer");
        self.at + (self.size.data + index) * WORD
    }

    /// The struct of the same size that lies `index` places after this one in a list.
    pub(crate) fn element(self, index: usize) -> Place {
        Place { at: self.at + index * self.size.bytes(), size: self.size }
    }
}

/// Bytes that `length` bytes of data take: whole words.
pub(crate) const fn data_bytes(length: usize) -> usize {
    length.next_multiple_of(WORD)
}

/// One message under construction at the end of a buffer.
pub(crate) struct Layout<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Layout<'o> {
    /// Begins a message at the end of `out` with its root pointer and root struct.
    pub(crate) fn begin(out: &'o mut Vec<u8>, root: Size) -> (Layout<'o>, Place) {
        let pointer = out.len();
        let mut layout = Layout { out };
        layout.zeros(WORD);
        let place = layout.structure(pointer, root);
        (layout, place)
    }

    /// Lays a struct that the pointer at `pointer` leads to.
    pub(crate) fn structure(&mut self, pointer: usize, size: Size) -> Place {
        let at = self.zeros(size.bytes());
        self.set_u32(pointer, distance(pointer, at));
        self.set_u32(pointer + 4, size.data as u32 | (size.pointers as u32) << 16);
        Place { at, size }
    }

    /// Lays a list of `count` structs that the pointer at `pointer` leads to; returns the first of
    /// them.
    pub(crate) fn structures(&mut self, pointer: usize, count: usize, size: Size) -> Place {
        let words = count * (size.data + size.pointers);
        let tag = self.zeros(WORD + words * WORD);
        self.list_pointer(pointer, tag, COMPOSITE, words);
        self.set_u32(tag, (count as u32) << 2);
        self.set_u32(tag + 4, size.data as u32 | (size.pointers as u32) << 16);
        Place { at: tag + WORD, size }
    }

    /// Lays a list of `count` pointers; returns where the first stands.
    pub(crate) fn pointers(&mut self, pointer: usize, count: usize) -> usize {
        let at = self.zeros(count * WORD);
        self.list_pointer(pointer, at, POINTERS, count);
        at
    }

    /// Lays a list of 64-bit numbers.
    pub(crate) fn numbers(&mut self, pointer: usize, numbers: impl ExactSizeIterator<Item = u64>) {
        self.list_pointer(pointer, self.out.len(), EIGHT_BYTES, numbers.len());
        for number in numbers {
            self.out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Lays bytes; nothing when there are none: a null pointer reads as no bytes.
    pub(crate) fn data(&mut self, pointer: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            let at = self.stray(bytes);
            self.list_pointer(pointer, at, BYTES, bytes.len());
        }
    }

    /// Lays bytes at a place of their own, even when there are none: a word is kept for them then.
    pub(crate) fn placed_data(&mut self, pointer: usize, bytes: &[u8]) {
        let at = if bytes.is_empty() { self.zeros(WORD) } else { self.stray(bytes) };
        self.list_pointer(pointer, at, BYTES, bytes.len());
    }

    /// Lays a text, with the zero byte that ends it.
    pub(crate) fn text(&mut self, pointer: usize, text: &str) {
        let at = self.out.len();
        self.out.extend_from_slice(text.as_bytes());
        self.zeros(data_bytes(text.len() + 1) - text.len());
        self.list_pointer(pointer, at, BYTES, text.len() + 1);
    }

    /// Lays bytes that no pointer leads to yet; returns where they begin. See
    /// [`Layout::lead_to_data`].
    pub(crate) fn stray(&mut self, bytes: &[u8]) -> usize {
        let at = self.out.len();
        self.out.extend_from_slice(bytes);
        self.zeros(data_bytes(bytes.len()) - bytes.len());
        at
    }

    /// Makes the pointer at `pointer` lead to `length` bytes that were laid at `at`.
    pub(crate) fn lead_to_data(&mut self, pointer: usize, at: usize, length: usize) {
        if length > 0 {
            self.list_pointer(pointer, at, BYTES, length);
        }
    }

    /// Sets 64 bits of a struct, `byte` bytes into its data.
    pub(crate) fn u64(&mut self, place: Place, byte: usize, value: u64) {
        debug_assert!(byte + 8 <= place.size.data * WORD, "outside the struct's data");
        self.out[place.at + byte..place.at + byte + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Sets 32 bits of a struct, `byte` bytes into its data.
    pub(crate) fn u32(&mut self, place: Place, byte: usize, value: u32) {
        debug_assert!(byte + 4 <= place.size.data * WORD, "outside the struct's data");
        self.set_u32(place.at + byte, value);
    }

    /// Sets 16 bits of a struct, `byte` bytes into its data.
    pub(crate) fn u16(&mut self, place: Place, byte: usize, value: u16) {
        debug_assert!(byte + 2 <= place.size.data * WORD, "outside the struct's data");
        self.out[place.at + byte..place.at + byte + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Gives the buffer back; the message is everything behind where it began.
    pub(crate) fn into_out(self) -> &'o mut Vec<u8> {
        self.out
    }

    fn zeros(&mut self, bytes: usize) -> usize {
        let at = self.out.len();
        self.out.resize(at + bytes, 0);
        at
    }

    fn list_pointer(&mut self, pointer: usize, at: usize, code: u32, count: usize) {
        assert!(count < 1 << 29, "a list of 2^29 elements can't be expressed");
        self.set_u32(pointer, distance(pointer, at) | LIST);
        self.set_u32(pointer + 4, code | (count as u32) << 3);
    }

    fn set_u32(&mut self, at: usize, value: u32) {
        self.out[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// Lowest bits of a list pointer; a struct pointer has zeros there.
const LIST: u32 = 1;
/// Element sizes of lists, as they stand in list pointers.
const BYTES: u32 = 2;
const EIGHT_BYTES: u32 = 5;
const POINTERS: u32 = 6;
const COMPOSITE: u32 = 7;

/// The signed distance in words from the end of a pointer to its object, in place for the pointer's
/// lower half.
fn distance(pointer: usize, at: usize) -> u32 {
    let words = (at as i64 - (pointer + WORD) as i64) / WORD as i64;
    assert!((-(1 << 29)..1 << 29).contains(&words), "an object lies too far from its pointer");
    (words as u32) << 2
}
