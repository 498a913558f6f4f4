//! What a pool gives up for another on the same server, and what it needs of them.

use tokio::time::Instant;

use super::{Actions, Cause, Core};

impl<C> Core<C> {
    /// Connections that waiters need and that the server's budget has no room for.
    pub(crate) fn short(&self) -> u32 {
        let uncovered = self.queue.len().saturating_sub(self.creating);
        if self.short { uncovered.min(self.gate.parallel.max(1)) } else { 0 }
    }

    /// Connections that this pool has promised to sisters and has not closed yet.
    pub(crate) fn owed(&self) -> u32 {
        self.owed
    }

    /// The next connection that comes back is closed, whoever waits.
    pub(crate) fn owe(&mut self) {
        self.owed += 1;
    }

    /// It owes one less. Returns whether it still did.
    pub(crate) fn forgive(&mut self) -> bool {
        let owed = self.owed > 0;
        self.owed = self.owed.saturating_sub(1);
        owed
    }

    /// Closes the connection that has been idle longest. Returns whether there was one.
    pub(crate) fn give(&mut self, now: Instant, todo: &mut Actions<C>) -> bool {
        let given = self.idle.take_oldest(1);
        let gave = !given.is_empty();
        for held in given {
            self.send_off(held, Cause::Yielded, todo);
        }
        self.settle(now, todo);
        gave
    }
}
