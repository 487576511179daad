//! Ctrl-C and `kill`: the process says a last word, takes its unfinished files along, and ends.
//!
//! The exit code is that of a process which such a signal ends, as shells tell it: 128 and the
//! signal's number, so 130 after Ctrl-C (SIGINT) and 143 after `kill` (SIGTERM). After SIGUSR1, by
//! which a batch system says that the time is nearly up, it is [`AGAIN`].

use std::sync::{Mutex, Once, PoisonError};
use std::{io, thread};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::files;

/// What is done last.
type Last = Box<dyn FnMut() + Send>;

static LAST: Mutex<Option<Last>> = Mutex::new(None);
static ALWAYS: Mutex<Vec<Last>> = Mutex::new(Vec::new());

/// The exit code of a process that was stopped in good order and can go on: `EX_TEMPFAIL` of
/// sysexits.h, which batch systems are told to start again.
pub const AGAIN: u8 = 75;

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
        granted = Signals::new([SIGINT, SIGTERM, SIGUSR1]).map(|mut signals| {
            thread::spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    stop(signal);
                }
            });
        });
    });
    granted
}

/// Has `last` done by [`watch`]'s end and by [`end`], whatever else is: gives up what others wait for.
pub fn always(last: impl FnMut() + Send + 'static) {
    ALWAYS.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(last));
}

/// Ends the process at once, from any thread: what [`always`] was told is done, unfinished files are
/// removed, nothing is said.
pub fn end(code: u8) -> ! {
    // Whatever happens in there, the process ends.
    let _ = std::panic::catch_unwind(|| {
        for last in ALWAYS.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            last();
        }
    });
    files::discard_unfinished();
    // Not `std::process::exit`: it takes libtorch down while other threads still compute with it.
    low_level::exit(i32::from(code))
}

fn stop(signal: i32) -> ! {
    let _ = std::panic::catch_unwind(|| {
        if let Some(last) = LAST.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            last();
        }
    });
    end(match signal {
        SIGUSR1 => AGAIN,
        other => u8::try_from(128 + other).unwrap_or(u8::MAX),
    })
}
