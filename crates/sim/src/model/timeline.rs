//! What something was, for every offset at which it changed.

use naust_wire::Offset;

/// Values by the offset from which on they hold, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline<T>(Vec<(Offset, T)>);

impl<T> Default for Timeline<T> {
    fn default() -> Self {
        Timeline(Vec::new())
    }
}

impl<T> Timeline<T> {
    /// From `at` on it is `value`.
    ///
    /// # Panics
    /// If time goes back: a bug of the model.
    pub fn set(&mut self, at: Offset, value: T) {
        match self.0.last_mut() {
            Some((last, known)) if *last == at => *known = value,
            Some((last, _)) => {
                assert!(*last < at, "the model folds frames in their order");
                self.0.push((at, value));
            }
            None => self.0.push((at, value)),
        }
    }

    /// What it was at `at`, and since when.
    pub fn at(&self, at: Offset) -> Option<(Offset, &T)> {
        let after = self.0.partition_point(|(since, _)| *since <= at);
        self.0[..after].last().map(|(since, value)| (*since, value))
    }

    /// Since when it was anything at all.
    pub fn first(&self) -> Option<Offset> {
        self.0.first().map(|(since, _)| *since)
    }

    /// What it is after everything that was folded, and since when.
    pub fn last(&self) -> Option<(Offset, &T)> {
        self.0.last().map(|(since, value)| (*since, value))
    }

    /// All that it was between two offsets, what it was at the first of them included.
    pub fn between(&self, from: Offset, to: Offset) -> impl Iterator<Item = &T> {
        let start = self.0.partition_point(|(since, _)| *since <= from).saturating_sub(1);
        self.0[start..].iter().take_while(move |(since, _)| *since <= to).map(|(_, value)| value)
    }
}
