//! Replies that wait for a socket.
//!
//! They are written once a turn of the worker, all at once where the operating system takes them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};

/// Small replies are copied together up to this many bytes, so that a turn is one `write` of one
/// piece.
const JOIN_BYTES: usize = 64 * 1024;
/// Most pieces of one `writev`.
const PIECES_MAX: usize = 64;

/// What is still to be sent on one connection.
#[derive(Debug, Default)]
pub struct Outgoing {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that have left.
    sent: usize,
    bytes: usize,
}

impl Outgoing {
    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.bytes += bytes.len();
        match self.pieces.back_mut() {
            Some(last) if last.len() + bytes.len() <= JOIN_BYTES => last.extend_from_slice(&bytes),
            _ => self.pieces.push_back(bytes),
        }
    }

    /// Writes until nothing is left or `socket` would block. Says whether all has left.
    ///
    /// # Errors
    /// Of the socket.
    pub fn write_to(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        while let Some(first) = self.pieces.front() {
            let written = if self.pieces.len() == 1 {
                socket.write(&first[self.sent..])
            } else {
                let later = self.pieces.iter().skip(1).map(Vec::as_slice);
                let slices: Vec<IoSlice<'_>> = std::iter::once(&first[self.sent..])
                    .chain(later)
                    .take(PIECES_MAX)
                    .map(IoSlice::new)
                    .collect();
                socket.write_vectored(&slices)
            };
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, written: usize) {
        self.bytes -= written;
        self.sent += written;
        while let Some(first) = self.pieces.front() {
            if self.sent < first.len() {
                break;
            }
            self.sent -= first.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes at most so many bytes in all, so many a call.
    struct Narrow(Vec<u8>, usize, usize);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.2.min(self.1 - self.0.len()).min(bytes.len());
            if room == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.0.extend_from_slice(&bytes[..room]);
            Ok(room)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_leave_in_order_however_narrow_the_socket() {
        for step in [1usize, 7, 1000, 70_000] {
            let mut outgoing = Outgoing::default();
            let mut expected = Vec::new();
            for size in [0usize, 10, 30_000, 40_000, 1, 200_000, 3] {
                let piece: Vec<u8> = (0..size).map(|i| (i * 13 + size) as u8).collect();
                expected.extend_from_slice(&piece);
                outgoing.push(piece);
            }
            assert_eq!(outgoing.bytes(), expected.len());
            let mut socket = Narrow(Vec::new(), 50_000, step);
            assert!(!outgoing.write_to(&mut socket).unwrap());
            assert_eq!(outgoing.bytes(), expected.len() - 50_000);
            socket.1 = usize::MAX;
            assert!(outgoing.write_to(&mut socket).unwrap());
            assert_eq!(socket.0, expected);
            assert_eq!(outgoing.bytes(), 0);
        }
    }
}
