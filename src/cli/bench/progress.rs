//! How far the load has come: one line on a terminal, written over.

use std::{
    io::{IsTerminal, Write, stderr},
    time::Duration,
};

use super::sample::Sample;

const WIDTH: usize = 24;

/// The line; nothing where standard error is no terminal.
pub(super) struct Progress {
    whole: Duration,
    shown: bool,
}

impl Progress {
    pub(super) fn new(whole: Duration) -> Self {
        Self { whole, shown: stderr().is_terminal() }
    }

    pub(super) fn show(&self, sample: &Sample, failed: u64) {
        if self.shown {
            write(&format!("\r{}\x1b[K", self.line(sample, failed)));
        }
    }

    fn line(&self, sample: &Sample, failed: u64) -> String {
        let at = Duration::from_millis(sample.at_ms);
        let share = (at.as_secs_f64() / self.whole.as_secs_f64().max(0.001)).min(1.0);
        let full = (share * WIDTH as f64) as usize;
        let Sample { in_use, idle, target, waiters, per_second, .. } = sample;
        format!(
            "[{}{}] {:.1}s  {per_second:.0}/s  in use {in_use}  idle {idle}  target {target}  \
             waiting {waiters}  failed {failed}",
            "#".repeat(full),
            ".".repeat(WIDTH - full),
            at.as_secs_f64(),
        )
    }
}

/// A terminal that has gone is no reason to stop.
fn write(text: &str) {
    let mut to = stderr().lock();
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            write("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_never_longer_than_it_may_be() {
        let progress = Progress { whole: Duration::from_secs(1), shown: false };
        for (at_ms, full) in [(0, 0), (500, 12), (1_000, 24), (9_999, 24)] {
            let line = progress.line(&Sample { at_ms, ..Sample::default() }, 0);
            assert_eq!(line.matches('#').count(), full, "{line}");
            assert!(line.find(']') == Some(WIDTH + 1), "{line}");
        }
    }
}
