//! Printing bytes for people and for machines, and reading them from arguments and standard input.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};
use std::io::{self, IsTerminal as _, Read as _, Write as _};

/// Standard output, locked, with whole lines written at once.
pub struct Output {
    out: io::StdoutLock<'static>,
}

impl Output {
    pub fn new() -> Output {
        Output { out: io::stdout().lock() }
    }

    /// One JSON object.
    pub fn json(&mut self, object: &Value) -> anyhow::Result<()> {
        writeln!(self.out, "{object}")?;
        Ok(())
    }

    /// One line of text.
    pub fn line(&mut self, line: &str) -> anyhow::Result<()> {
        writeln!(self.out, "{line}")?;
        Ok(())
    }

    /// Bytes as they are; a line end behind them when a person looks.
    pub fn raw(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.out.write_all(bytes)?;
        if io::stdout().is_terminal() && bytes.last() != Some(&b'\n') {
            self.out.write_all(b"\n")?;
        }
        self.out.flush()?;
        Ok(())
    }
}

/// Bytes for people: UTF-8 as it is, anything else escaped.
pub fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// Puts bytes into an object: `name` when they are UTF-8, else `name_base64`.
pub fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), naust_gateway::base64(bytes).into()),
    };
}

/// A value: the argument, or standard input when there is none or it is `-`.
pub fn value_or_stdin(argument: Option<String>) -> anyhow::Result<Vec<u8>> {
    match argument {
        Some(text) if text != "-" => Ok(text.into_bytes()),
        _ => {
            let max = naust_wire::limits::VALUE_BYTES_MAX as u64;
            let mut bytes = Vec::new();
            let read = io::stdin().lock().take(max + 1).read_to_end(&mut bytes);
            read.context("standard input can't be read")?;
            if bytes.len() as u64 > max {
                bail!("the value is longer than {max} bytes");
            }
            Ok(bytes)
        }
    }
}

/// Whether the reader of our output has gone, which is no failure of ours.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
