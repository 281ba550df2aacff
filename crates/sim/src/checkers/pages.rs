//! Whether a page is a true beginning of what it should show. Used by the checkers of rows; no
//! checker itself.

use naust_wire::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use naust_wire::reply::Entry;

/// What was asked of a scan.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// From the end to the beginning.
    pub reverse: bool,
    /// As it stood in the request.
    pub limit: u32,
}

/// Judges a page against all rows that it could show, in the order asked for.
///
/// # Errors
/// A sentence.
pub fn judge(
    asked: Asked,
    expected: &[Entry],
    shown: &[Entry],
    next: Option<&[u8]>,
) -> Result<(), String> {
    let limit = match asked.limit {
        0 => PAGE_ROWS_DEFAULT,
        limit => (limit as usize).min(PAGE_ROWS_MAX),
    };
    if shown.len() > limit {
        return Err(format!("{} rows, though the limit is {limit}", shown.len()));
    }
    if let Some(at) = shown.iter().zip(expected).position(|(shown, expected)| shown != expected) {
        let (shown, expected) = (&shown[at], &expected[at]);
        return Err(format!("row {at} is {}, not {}", brief(shown), brief(expected)));
    }
    let Some(rest) = expected.get(shown.len()..) else {
        return Err(format!("shows {} rows, though there are {}", shown.len(), expected.len()));
    };
    let Some(next) = next else {
        return match rest.first() {
            None => Ok(()),
            Some(row) => Err(format!("ends, but should go on with {}", brief(row))),
        };
    };
    let shown_before = |row: &Entry| (row.key.as_slice() < next) != asked.reverse;
    if shown.iter().all(shown_before) && !rest.iter().any(shown_before) {
        return Ok(());
    }
    Err(format!("going on from {next:?} would lose or repeat rows"))
}

/// A row in a few words.
#[must_use]
pub fn brief(row: &Entry) -> String {
    let key = String::from_utf8_lossy(&row.key[..row.key.len().min(12)]).into_owned();
    format!("{key:?} of {} bytes at {}", row.value.len(), row.offset)
}
