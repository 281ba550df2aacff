//! Programs that use Naust, smallest first: `embedded`, `transfer`, `consumer`. Each is a binary of
//! this package, opens a node of its own in a temporary directory, checks what it shows, and ends.
//!
//! `cargo run -p naust-examples --bin transfer`

use naust::{Config, Naust};
use std::future::Future;

/// A node in a temporary directory, a runtime, and `story` told to the end.
///
/// # Errors
/// Those of the story.
pub fn tell<F: Future<Output = anyhow::Result<()>>>(
    story: impl FnOnce(naust_client::Namespace) -> F,
) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let naust = Naust::open(Config::embedded(directory.path().join("data")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(story(naust.client().namespace("default")))?;
    naust.shutdown()?;
    Ok(())
}
