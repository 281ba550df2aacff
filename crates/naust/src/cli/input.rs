//! The demo's input: a file, or the data that is built in, line by line.

use anyhow::{Context as _, bail};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Version 15.0.0 of the Unicode Character Database; its licence stands in `data/unicode/LICENSE`.
const UNICODE: &[u8] = include_bytes!("../../../../data/unicode/UnicodeData.txt");

/// Where lines come from.
pub enum Input {
    Builtin,
    File(PathBuf),
}

impl Input {
    /// The file, or what is built in. It is read several times over, as a pipe can't be.
    pub fn open(path: Option<&Path>) -> anyhow::Result<Input> {
        let Some(path) = path else { return Ok(Input::Builtin) };
        let found = std::fs::metadata(path)
            .with_context(|| format!("the input {} can't be opened", path.display()))?;
        if !found.is_file() {
            let path = path.display();
            bail!("the input {path} is no regular file: it is read twice, so save it in one");
        }
        Ok(Input::File(path.to_owned()))
    }

    pub fn name(&self) -> String {
        match self {
            Input::Builtin => "UnicodeData.txt (built in)".to_owned(),
            Input::File(path) => path.display().to_string(),
        }
    }

    /// The lines with their numbers from 0, without their ends.
    pub fn lines(&self) -> anyhow::Result<impl Iterator<Item = anyhow::Result<(u64, Vec<u8>)>>> {
        let reader: Box<dyn BufRead> = match self {
            Input::Builtin => Box::new(UNICODE),
            Input::File(path) => {
                let file = File::open(path)
                    .with_context(|| format!("the input {} can't be opened", path.display()))?;
                Box::new(BufReader::with_capacity(1 << 16, file))
            }
        };
        let lines = reader.split(b'\n').zip(0..);
        Ok(lines.map(|(line, number)| Ok((number, line.context("the input can't be read")?))))
    }

    /// How many lines and bytes there are.
    pub fn measure(&self) -> anyhow::Result<(u64, u64)> {
        let mut measure = (0, 0);
        for line in self.lines()? {
            measure = (measure.0 + 1, measure.1 + line?.1.len() as u64);
        }
        Ok(measure)
    }
}
