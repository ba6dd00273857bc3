//! The live block: one line for each policy at the bottom of the terminal, redrawn in place while log lines scroll
//! above it.
//!
//! The [`Screen`] is the only thing that writes to standard error while it is on: a log line takes the block away,
//! prints itself and puts the block back, under one lock. Off a terminal there is no block, and log lines pass through.

use std::convert::Infallible;
use std::io::{self, IsTerminal, Stderr, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use setpoint::runtime::handle::EngineHandle;
use tokio::sync::broadcast::error::RecvError;

use super::rows::{self, Row};
use super::term::{self, Paint};

/// The least time between two redraws: fast enough to look alive, slow enough to cost nothing.
const REDRAW: Duration = Duration::from_millis(100);

/// Standard error with a block of lines at its end that can be taken away and put back.
#[derive(Clone)]
pub(crate) struct Screen(Arc<Mutex<State<Stderr>>>);

struct State<W> {
    out: W,
    /// The block's lines; none while there is nothing to show.
    block: Vec<String>,
    /// Visible widths of the lines as they were drawn.
    drawn: Vec<usize>,
}

impl Screen {
    /// A screen without a block.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { out: io::stderr(), block: Vec::new(), drawn: Vec::new() })))
    }

    /// Replaces the block. That the terminal has gone away is not this program's concern.
    fn show(&self, block: Vec<String>, columns: usize) {
        let mut state = self.lock();
        if state.block != block {
            state.take_away(columns).ok();
            state.block = block;
            state.put_back().ok();
        }
    }

    /// Leaves the last block where it is and forgets it: what follows is printed below.
    pub(crate) fn release(&self) {
        let mut state = self.lock();
        state.block.clear();
        state.drawn.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State<Stderr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Write> State<W> {
    /// Moves to the block's first line and clears from there. A terminal that has become narrower has wrapped the
    /// lines, so their rows are counted anew.
    fn take_away(&mut self, columns: usize) -> io::Result<()> {
        let rows: usize = self.drawn.drain(..).map(|width| width.div_ceil(columns.max(1)).max(1)).sum();
        if rows > 0 {
            write!(self.out, "\x1b[{rows}A\r\x1b[J")?;
        }
        Ok(())
    }

    fn put_back(&mut self) -> io::Result<()> {
        let mut text = String::new();
        for line in &self.block {
            text.push_str(line);
            text.push('\n');
            self.drawn.push(visible(line));
        }
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    fn log(&mut self, line: &[u8], columns: usize) -> io::Result<()> {
        self.take_away(columns)?;
        self.out.write_all(line)?;
        self.put_back()
    }
}

/// How many characters of a line are seen: all but the colour sequences that [`Paint`] puts in.
fn visible(line: &str) -> usize {
    let mut parts = line.split('\x1b');
    let plain = parts.next().map_or(0, |part| part.chars().count());
    plain + parts.map(|part| part.split_once('m').map_or(0, |(_, rest)| rest.chars().count())).sum::<usize>()
}

/// One log event: the formatter writes each as a whole.
impl Write for Screen {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let columns = columns();
        self.lock().log(line, columns)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lock().out.flush()
    }
}

fn columns() -> usize {
    term::size().map_or(80, |(columns, _)| columns)
}

/// Keeps the block up to date until it is dropped; does nothing when standard error is no terminal.
pub(crate) async fn follow(screen: &Screen, handle: &EngineHandle, paint: Paint) -> Infallible {
    if !io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let mut events = handle.subscribe();
    loop {
        let (columns, height) = term::size().unwrap_or((80, 24));
        let now = SystemTime::now();
        let policies = handle.policies();
        let rows: Vec<_> = policies.iter().map(|policy| Row::of_snapshot(policy, now)).collect();
        screen.show(block(&rows, columns, height, paint), columns);
        // Whatever happens within one redraw is drawn at once; what was missed is in the snapshots anyway.
        tokio::time::sleep(REDRAW).await;
        match events.recv().await {
            Ok(_) | Err(RecvError::Lagged(_)) => events = events.resubscribe(),
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// The lines of the block: never wider than the terminal, never as high, so that the newest log line stays in sight.
fn block(rows: &[Row], columns: usize, height: usize, paint: Paint) -> Vec<String> {
    // One column stays free: terminals differ in what they do after the last one.
    let width = columns.saturating_sub(1);
    let room = height.saturating_sub(2);
    if rows.is_empty() || room < 2 {
        return Vec::new();
    }
    let shown = if rows.len() < room { rows.len() } else { room - 2 };
    let mut lines = rows::lines(&rows[..shown], width, paint);
    if shown < rows.len() {
        lines.push(paint.dim(&term::fit(&format!("… and {} more policies", rows.len() - shown), width)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_takes_the_block_away_and_puts_it_back() {
        let mut state = State { out: Vec::new(), block: vec!["one".into(), "\x1b[2mtwo\x1b[0m".into()], drawn: vec![] };
        state.put_back().unwrap();
        state.log(b"hello\n", 80).unwrap();
        assert_eq!(
            String::from_utf8(state.out).unwrap(),
            "one\n\x1b[2mtwo\x1b[0m\n\x1b[2A\r\x1b[Jhello\none\n\x1b[2mtwo\x1b[0m\n"
        );
    }

    #[test]
    fn a_terminal_that_became_narrower_is_cleared_whole() {
        let mut state = State { out: Vec::new(), block: Vec::new(), drawn: vec![50, 10, 0] };
        state.take_away(20).unwrap();
        assert_eq!(state.out, b"\x1b[5A\r\x1b[J", "50 columns are 3 rows of 20");
    }

    #[test]
    fn the_block_fits_the_terminal() {
        let rows = vec![Row::default(); 100];
        for (columns, height) in [(80, 24), (20, 5), (1, 4), (200, 120), (80, 3), (80, 1), (80, 0)] {
            let lines = block(&rows, columns, height, Paint(true));
            assert!(lines.len() < height.max(1), "{} lines in {height}", lines.len());
            assert!(lines.iter().all(|line| visible(line) < columns), "wider than {columns}");
        }
        let lines = block(&rows, 80, 24, Paint(false));
        assert_eq!(lines.last().unwrap(), "… and 80 more policies");
        assert_eq!(block(&rows[..3], 80, 24, Paint(false)).len(), 4);
    }
}
