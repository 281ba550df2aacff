//! The raw log is shown to its readers as it was committed: whole frames, in order, without gaps.

use super::Case;
use crate::history::{Asked, Request, Violation};
use naust_wire::Offset;
use naust_wire::frame::{self, Kind};
use naust_wire::read::{Level, Query};
use naust_wire::reply::Reply;

/// Its name in reports.
pub const NAME: &str = "frames";

/// See the module.
pub fn check(case: &Case<'_>, violations: &mut Vec<Violation>) {
    for request in case.requests {
        if let Err(what) = judge(case, request) {
            let what = format!("shard {}: {what}; asked at {}", case.shard, request.sent);
            violations.push(Violation::new(NAME, what));
        }
    }
}

fn judge(case: &Case<'_>, request: &Request) -> Result<(), String> {
    let Asked::Read(read) = &request.asked else { return Ok(()) };
    let Query::Log { from, .. } = read.query else { return Ok(()) };
    let Some(Reply::Frames { first, data, next, end }) = request.reply() else { return Ok(()) };
    // Whoever asked for more than there is stays where he is; a segment's end may be passed over.
    let nothing = data.is_empty() && (first, next) == (&from, &from);
    if !nothing && (*first > *next || *next > case.chronicle.after_gap(*end)) {
        return Err(format!("first {first}, next {next} and end {end} are out of order"));
    }
    let shown = parse(*first, data)?;
    let known: Vec<(Offset, u32)> = case
        .chronicle
        .from(*first)
        .take_while(|entry| entry.header.offset < *next)
        .map(|entry| (entry.header.offset, entry.crc))
        .collect();
    if shown != known {
        let told = shown.iter().zip(&known).take_while(|(a, b)| a == b).count();
        let (shown, known) = (shown.get(told), known.get(told));
        return Err(format!("from {from} on frame {told} is {shown:?}, not {known:?}"));
    }
    if read.level == Level::Linearizable && *end <= request.frontier {
        return Err(format!("ends at {end}, though {} had been told before", request.frontier));
    }
    Ok(())
}

/// Offset and checksum of each frame but padding.
fn parse(first: Offset, data: &[u8]) -> Result<Vec<(Offset, u32)>, String> {
    let mut frames = Vec::new();
    let mut at = 0;
    let mut least = first;
    while at < data.len() {
        let frame =
            frame::read(&data[at..]).map_err(|bad| format!("behind {least} no frame: {bad}"))?;
        if frame.header.offset < least {
            return Err(format!("a frame at {} behind {least}", frame.header.offset));
        }
        if frame.header.kind != Kind::Padding {
            frames.push((frame.header.offset, frame.crc));
        }
        at += frame.header.frame_bytes() as usize;
        least = frame.header.end();
    }
    Ok(frames)
}
