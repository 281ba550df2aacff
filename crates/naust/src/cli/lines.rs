//! Standard input, line by line, beside what is done with the lines: a thread reads, and whoever
//! takes gets all that came since.

use super::Mistyped;
use anyhow::Context as _;
use naust_wire::limits::{PAGE_BYTES_MAX, PAGE_ROWS_DEFAULT, VALUE_BYTES_MAX};
use std::io::{self, BufRead as _, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use tokio::sync::Notify;

/// Bytes and lines that wait to be taken; past them nothing is read. The last line may pass the
/// bytes, and all of them fit a commit.
const BYTES_MAX: usize = PAGE_BYTES_MAX;
const LINES_MAX: usize = PAGE_ROWS_DEFAULT;
/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 1 << 16;

/// Lines that come.
pub struct Lines {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Something came, or nothing more will.
    came: Notify,
    /// There is room again.
    room: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<Vec<u8>>,
    bytes: usize,
    end: Option<anyhow::Result<()>>,
}

impl Lines {
    /// Begins to read standard input.
    pub fn of_stdin() -> anyhow::Result<Lines> {
        let shared = Arc::<Shared>::default();
        let reader = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("lines".to_owned());
        let read = move || reader.end(reader.read(io::stdin().lock()));
        thread.spawn(read).context("a thread can't be started")?;
        Ok(Lines { shared })
    }

    /// All lines that came since, at least one, without their ends; none at the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<Vec<u8>>>> {
        loop {
            if let Some(lines) = self.shared.take()? {
                return Ok((!lines.is_empty()).then_some(lines));
            }
            self.shared.came.notified().await;
        }
    }
}

impl Shared {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is; at the end nothing, once.
    fn take(&self) -> anyhow::Result<Option<Vec<Vec<u8>>>> {
        let mut waiting = self.waiting();
        if waiting.lines.is_empty() {
            return waiting.end.take().map(|end| end.map(|()| Vec::new())).transpose();
        }
        waiting.bytes = 0;
        self.room.notify_one();
        Ok(Some(std::mem::take(&mut waiting.lines)))
    }

    fn end(&self, end: anyhow::Result<()>) {
        self.waiting().end = Some(end);
        self.came.notify_one();
    }

    /// Hands lines over when as many came as fit, or no whole one is left of what was read: who
    /// types, or follows a file, does not wait for more.
    fn read(&self, input: impl Read) -> anyhow::Result<()> {
        let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
        let (mut lines, mut bytes) = (Vec::new(), 0);
        for number in 1_u64.. {
            let mut line = Vec::new();
            let mut limited = input.by_ref().take(VALUE_BYTES_MAX as u64 + 1);
            limited.read_until(b'\n', &mut line).context("standard input can't be read")?;
            if line.is_empty() {
                break;
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            } else if line.len() > VALUE_BYTES_MAX {
                self.hand_over(&mut lines, &mut bytes);
                let told = format!(
                    "line {number} is longer than {VALUE_BYTES_MAX} bytes; only those before it \
                     are appended"
                );
                return Err(Mistyped(told).into());
            }
            bytes += line.len();
            lines.push(line);
            let is_full = bytes >= BYTES_MAX || lines.len() >= LINES_MAX;
            if is_full || !input.buffer().contains(&b'\n') {
                self.hand_over(&mut lines, &mut bytes);
            }
        }
        self.hand_over(&mut lines, &mut bytes);
        Ok(())
    }

    /// Adds lines to those that wait, when these leave room.
    fn hand_over(&self, lines: &mut Vec<Vec<u8>>, bytes: &mut usize) {
        if lines.is_empty() {
            return;
        }
        let fits = |waiting: &mut Waiting| {
            waiting.lines.is_empty()
                || waiting.bytes + *bytes <= BYTES_MAX
                    && waiting.lines.len() + lines.len() <= LINES_MAX
        };
        let waiting = self.room.wait_while(self.waiting(), |waiting| !fits(waiting));
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        waiting.bytes += std::mem::take(bytes);
        waiting.lines.append(lines);
        drop(waiting);
        self.came.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The batches in which lines are taken, when everything is read first.
    fn batches(input: impl Read + Send + 'static) -> Vec<anyhow::Result<Vec<Vec<u8>>>> {
        let shared = Arc::<Shared>::default();
        let reader = Arc::clone(&shared);
        let thread = std::thread::spawn(move || reader.end(reader.read(input)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut lines = Lines { shared };
        let mut batches = Vec::new();
        runtime.block_on(async {
            loop {
                match lines.next().await.transpose() {
                    None => break,
                    Some(batch) => {
                        let ends = batch.is_err();
                        batches.push(batch);
                        if ends {
                            break;
                        }
                    }
                }
            }
        });
        thread.join().unwrap();
        batches
    }

    /// Why: what is appended in one commit has to fit one, however long the lines are.
    #[test]
    fn batches_are_bounded() {
        let line = [vec![b'x'; 100_000], vec![b'\n']].concat();
        let many = batches(io::Cursor::new(line.repeat(100)));
        let many: Vec<_> = many.into_iter().map(Result::unwrap).collect();
        assert!(many.iter().all(|batch| batch.len() <= BYTES_MAX / 100_000 + 1));
        assert_eq!(many.iter().map(Vec::len).sum::<usize>(), 100);
        let short = batches(io::Cursor::new(b"\n".repeat(10_000)));
        let short: Vec<_> = short.into_iter().map(Result::unwrap).collect();
        assert!(short.iter().all(|batch| batch.len() <= LINES_MAX));
        assert_eq!(short.iter().map(Vec::len).sum::<usize>(), 10_000);
    }

    /// Why: a line without an end must not be read into memory without one.
    #[test]
    fn a_line_that_is_too_long_ends_it() {
        let input = io::Cursor::new(b"one\n").chain(io::repeat(b'x'));
        let mut all = batches(input);
        let told = all.pop().unwrap().unwrap_err().to_string();
        assert!(told.starts_with("line 2 is longer than 14680064 bytes"), "{told}");
        assert_eq!(all.pop().unwrap().unwrap(), [b"one".to_vec()]);
        assert!(all.is_empty());
    }

    /// Input that pauses for ever after its first line.
    struct Pause(Option<&'static [u8]>);

    impl Read for Pause {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.take() {
                Some(mut first) => first.read(buffer),
                None => loop {
                    std::thread::park();
                },
            }
        }
    }

    /// Why: a record that a slow writer wrote is not to wait for a thousand others.
    #[test]
    fn lines_are_taken_when_the_input_pauses() {
        let shared = Arc::<Shared>::default();
        let reader = Arc::clone(&shared);
        std::thread::spawn(move || reader.read(Pause(Some(b"one\ntwo\nthr"))));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let batch = runtime.block_on(Lines { shared }.next()).unwrap().unwrap();
        assert_eq!(batch, [b"one".to_vec(), b"two".to_vec()]);
    }
}
