//! Ctrl-C and `kill`: the process says a last word, takes its unfinished files along, and ends.
//!
//! The exit code is that of a process which such a signal ends, as shells tell it: 128 and the
//! signal's number, so 130 after Ctrl-C (SIGINT) and 143 after `kill` (SIGTERM).

use std::sync::{Mutex, Once, PoisonError};
use std::{io, thread};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::files;

/// What is done last.
type Last = Box<dyn FnMut() + Send>;

static LAST: Mutex<Option<Last>> = Mutex::new(None);

/// Ends the process in good order when it is told to stop: `last` runs, on a thread of its own, for
/// instance to print a line; then unfinished files are removed. A later call replaces `last`.
///
/// # Errors
/// When the system grants no signal handler.
pub fn watch(last: impl FnMut() + Send + 'static) -> io::Result<()> {
    static STARTED: Once = Once::new();
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(last));
    let mut granted = Ok(());
    STARTED.call_once(|| {
        granted = Signals::new([SIGINT, SIGTERM]).map(|mut signals| {
            thread::spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    end(signal);
                }
            });
        });
    });
    granted
}

fn end(signal: i32) -> ! {
    // Whatever happens in there, the process ends.
    let _ = std::panic::catch_unwind(|| {
        if let Some(last) = LAST.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            last();
        }
    });
    files::discard_unfinished();
    // Not `std::process::exit`: it takes libtorch down while other threads still compute with it.
    low_level::exit(128 + signal)
}
