//! What a commit was answered, kept small: most answers take sixteen bytes.
//!
//! What answers weigh decides which are forgotten first, and replicas must agree on that whatever
//! build they run. So weights are numbers that never change, and no text counts: its words may.

use crate::rows::{Damaged, Fields, put_bytes, put_u16, put_u32, put_u64, put_varint};
use naust_wire::limits::{
    FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES, RANGE_DELETES_PER_COMMIT_MAX, SESSION_TEXT_BYTES_MAX,
};
use naust_wire::reply::{RangeDeleted, Refused};
use naust_wire::{Code, Offset};

/// What any answer weighs.
const ANSWER_WEIGHT: usize = 16;
/// What one that is not small weighs beside that.
const MORE_WEIGHT: usize = 64;
/// What a delete-range weighs, without its key.
const RANGE_WEIGHT: usize = 32;

// Weights bound memory: they may be more than what is taken, never less.
const _: () = {
    assert!(size_of::<Answer>() <= ANSWER_WEIGHT && size_of::<More>() <= MORE_WEIGHT);
    assert!(size_of::<RangeDeleted>() <= RANGE_WEIGHT);
};

/// The answer of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// None yet.
    Gap,
    /// Committed there; nothing was appended.
    Committed(Offset),
    /// Committed there; one record was appended, so many bytes after it.
    Appended(u32, Offset),
    /// Anything else.
    More(Box<More>),
}

/// An answer that is not small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum More {
    /// Committed there, with the ids of its records (each the varint distance from the one before,
    /// or from the commit) and what its delete-ranges did.
    Committed { offset: Offset, ids: Box<[u8]>, ranges: Vec<RangeDeleted> },
    /// A condition failed.
    Refused(Refused),
    /// Failed otherwise; the text is cut where it is longer than a session keeps.
    Failed { code: Code, detail: Box<str> },
}

impl Answer {
    /// The answer of a commit that happened.
    pub(crate) fn committed(offset: Offset, ids: &[Offset], ranges: &[RangeDeleted]) -> Answer {
        if ranges.is_empty() {
            match ids {
                [] => return Answer::Committed(offset),
                [id] => return Answer::Appended((id.0 - offset.0) as u32, offset),
                _ => {}
            }
        }
        let (mut bytes, mut last) = (Vec::with_capacity(ids.len() * 2), offset);
        for id in ids {
            put_varint(&mut bytes, id.0 - last.0);
            last = *id;
        }
        let more = More::Committed { offset, ids: bytes.into(), ranges: ranges.to_vec() };
        Answer::More(Box::new(more))
    }

    /// The answer of a commit that failed without a condition that did.
    pub(crate) fn failed(code: Code, detail: &str) -> Answer {
        Answer::More(Box::new(More::failed(code, detail)))
    }

    /// What it weighs, in bytes: about what it takes in memory, and the same in every build.
    pub(crate) fn weight(&self) -> usize {
        let Answer::More(more) = self else { return ANSWER_WEIGHT };
        let apart = match &**more {
            More::Committed { ids, ranges, .. } => {
                let keys = ranges.iter().flat_map(|range| &range.next).map(Vec::len);
                ids.len() + ranges.len() * RANGE_WEIGHT + keys.sum::<usize>()
            }
            More::Refused(_) => 0,
            More::Failed { .. } => SESSION_TEXT_BYTES_MAX,
        };
        ANSWER_WEIGHT + MORE_WEIGHT + apart
    }

    /// What replicas have in common of it: all but texts.
    pub(super) fn write_without_text(&self, out: &mut Vec<u8>) {
        match self {
            Answer::More(more) if let More::Failed { code, .. } = &**more => {
                More::failed(*code, "").write(out);
            }
            _ => self.write(out),
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Answer::Gap => out.push(0),
            Answer::Committed(offset) => {
                out.push(1);
                put_u64(out, offset.0);
            }
            Answer::Appended(distance, offset) => {
                out.push(2);
                put_u64(out, offset.0);
                put_u32(out, *distance);
            }
            Answer::More(more) => more.write(out),
        }
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Answer, Damaged> {
        Ok(match fields.u8()? {
            0 => Answer::Gap,
            1 => Answer::Committed(fields.offset()?),
            2 => {
                let offset = fields.offset()?;
                Answer::Appended(fields.u32()?, offset)
            }
            kind => Answer::More(Box::new(More::read(kind, fields)?)),
        })
    }
}

impl More {
    fn failed(code: Code, detail: &str) -> More {
        let detail = detail[..detail.floor_char_boundary(SESSION_TEXT_BYTES_MAX)].into();
        More::Failed { code, detail }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            More::Committed { offset, ids, ranges } => {
                out.push(3);
                put_u64(out, offset.0);
                put_bytes(out, ids);
                put_u32(out, ranges.len() as u32);
                for range in ranges {
                    put_u32(out, range.deleted);
                    out.push(u8::from(range.next.is_some()));
                    put_bytes(out, range.next.as_deref().unwrap_or_default());
                }
            }
            More::Refused(refused) => {
                out.push(4);
                put_u16(out, refused.condition);
                put_u64(out, refused.at.0);
                put_u64(out, refused.found.0);
            }
            More::Failed { code, detail } => {
                out.push(5);
                put_u16(out, *code as u16);
                put_bytes(out, detail.as_bytes());
            }
        }
    }

    fn read(kind: u8, fields: &mut Fields<'_>) -> Result<More, Damaged> {
        match kind {
            3 => {
                let offset = fields.offset()?;
                let ids: Box<[u8]> = fields.bytes()?.into();
                let count = fields.u32()? as usize;
                if count > RANGE_DELETES_PER_COMMIT_MAX {
                    return Err(fields.damaged());
                }
                let ranges = (0..count).map(|_| read_range(fields)).collect::<Result<_, _>>()?;
                let more = More::Committed { offset, ids, ranges };
                more.ids(&mut Vec::new()).map(|()| more)
            }
            4 => Ok(More::Refused(Refused {
                condition: fields.u16()?,
                at: fields.offset()?,
                found: fields.offset()?,
            })),
            5 => {
                let code = Code::from_number(fields.u16()?).ok_or(fields.damaged())?;
                Ok(More::failed(code, fields.text()?))
            }
            _ => Err(fields.damaged()),
        }
    }

    /// Appends the ids of its records to `out`.
    ///
    /// # Errors
    /// [`Damaged`]: never for an answer that was made here or read.
    pub(crate) fn ids(&self, out: &mut Vec<Offset>) -> Result<(), Damaged> {
        let More::Committed { offset, ids, .. } = self else { return Ok(()) };
        let (mut fields, mut last) = (Fields::new(ids, "session"), *offset);
        while !fields.is_empty() {
            let distance = fields.varint()?;
            if distance > (FRAME_BODY_BYTES_MAX + FRAME_HEADER_BYTES) as u64 {
                return Err(fields.damaged());
            }
            last = Offset(last.0.checked_add(distance).ok_or(fields.damaged())?);
            out.push(last);
        }
        Ok(())
    }
}

fn read_range(fields: &mut Fields<'_>) -> Result<RangeDeleted, Damaged> {
    let deleted = fields.u32()?;
    let has_next = fields.u8()? != 0;
    let next = fields.bytes()?;
    Ok(RangeDeleted { deleted, next: has_next.then(|| next.to_vec()) })
}
