//! Server-sent events: a stream that is followed.
//!
//! One task reads the stream and fills a bounded channel; the body empties it. A reader that falls
//! behind holds its own task up, and nothing else.

use crate::problem::Problem;
use crate::request::set;
use crate::routes::Answer;
use crate::routes::streams::record_json;
use crate::server::State;
use axum::body::Body;
use axum::http::{Response, header};
use futures_core::Stream;
use naust_client::{Offset, ReadOptions, Record};
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// The media type.
pub const KIND: &str = "text/event-stream";
/// Batches of events that wait for a reader.
const BATCHES_MAX: usize = 2;
/// How often a quiet connection is told that it lives, so that nothing between takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The response that follows a stream from `from` on, until either side ends it.
///
/// # Errors
/// `Overloaded` when too many follow; what a read from there is refused with.
pub async fn follow(state: &State, stream: naust_client::Stream, from: Offset) -> Answer {
    let place = state.follower()?;
    // What can't be followed is told before it is said that it is.
    stream.read(from, ReadOptions { limit: 1, ..ReadOptions::default() }).await?;
    let (sender, receiver) = mpsc::channel(BATCHES_MAX);
    let feed = feed(sender, stream.follow(from), state.clone());
    tokio::spawn(async move {
        feed.await;
        drop(place);
    });
    let mut response = Response::new(Body::from_stream(Events(receiver)));
    set(&mut response, header::CONTENT_TYPE, KIND);
    set(&mut response, header::CACHE_CONTROL, "no-store");
    Ok(response)
}

/// Reads records and sends them on, until the reader is gone or the gateway ends.
async fn feed(sender: mpsc::Sender<String>, mut follow: naust_client::Follow, state: State) {
    tokio::select! {
        () = forward(&sender, &mut follow) => {}
        () = sender.closed() => {}
        () = state.ending() => {}
    }
}

async fn forward(sender: &mpsc::Sender<String>, follow: &mut naust_client::Follow) {
    loop {
        let mut batch = pin!(follow.next_batch());
        let text = loop {
            tokio::select! {
                batch = &mut batch => break match batch {
                    Ok(records) => records.iter().map(event).collect(),
                    Err(error) => {
                        // The last event: the reader learns why, and resumes or not.
                        let _ = sender.send(error_event(&error.into())).await;
                        return;
                    }
                },
                () = tokio::time::sleep(KEEP_ALIVE) => {
                    // A reader that has not yet taken what came before needs no sign of life.
                    let _ = sender.try_send(":\n\n".to_owned());
                }
            }
        };
        if sender.send(text).await.is_err() {
            return;
        }
    }
}

/// JSON has no line breaks of its own, so an event's data is one line.
fn event(record: &Record) -> String {
    format!("id: {}\ndata: {}\n\n", record.offset, record_json(record))
}

fn error_event(problem: &Problem) -> String {
    format!("event: error\ndata: {}\n\n", problem.to_json())
}

/// What comes out of a channel, as a body wants it.
struct Events(mpsc::Receiver<String>);

impl Stream for Events {
    type Item = Result<String, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|text| text.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use naust_client::Code;

    #[test]
    fn events_are_one_line_each() {
        let record = |value: &[u8]| Record { offset: Offset(7), value: value.to_vec() };
        let text = event(&record(b"two\nlines")) + &event(&record(&[0xff]));
        expect![[r#"
            id: 7
            data: {"offset":7,"value":"two\nlines"}

            id: 7
            data: {"offset":7,"value_base64":"/w=="}

        "#]]
        .assert_eq(&text);
        let told = error_event(&Problem::of(Code::OffsetTrimmed, "gone"));
        assert!(told.starts_with("event: error\ndata: {\"code\":\"offset_trimmed\""), "{told}");
        assert!(told.ends_with("}\n\n") && told.lines().count() == 3, "{told}");
    }
}
