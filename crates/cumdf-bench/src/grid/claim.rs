//! Who works on a cell, also where several machines share the folder and its locks do not reach from
//! one to the other.
//!
//! The folder `claim/` of a cell holds one file, and its name says who has the cell: `free`, or host,
//! process and a token that is never used again. Every change of hands is a rename of this one file.
//! A rename is atomic and fails when the file has another name by now, so of two that want a cell
//! one gets it, be it free or left by a dead process.
//!
//! Whoever has a cell writes into the file every [`BEAT`]. A holder is dead when
//! - it was a process of this very machine (and container) that is gone; or
//! - its file has not changed for [`DEAD_AFTER`] by the watcher's own clock ([`Watch`]): the clocks
//!   of two machines are never compared.
//!
//! A holder that was only asleep finds the file renamed when it wakes, and ends its process.

use std::{
    collections::{HashMap, hash_map::RandomState},
    fmt, fs,
    hash::{BuildHasher as _, Hasher as _},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use cumdf_data::interrupt;
use sha2::{Digest as _, Sha256};

/// How often a holder writes a sign of life.
pub const BEAT: Duration = Duration::from_secs(10);
/// How long a holder may be silent until its cell is taken over. Network file systems show a change
/// to others after a minute at worst.
pub const DEAD_AFTER: Duration = Duration::from_secs(120);

const FOLDER: &str = "claim";
const FREE: &str = "free";
/// How the folder is called until it is complete.
const UNFINISHED: &str = ".claim-";
/// How often a change is tried again after somebody else was faster.
const TRIES: usize = 5;

/// A process that has a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its machine.
    pub host: String,
    /// Its number there.
    pub pid: u32,
    /// The running system that this number is of: a machine since its start, or a container.
    place: String,
    /// When the process started, in the system's own unit: numbers are used again.
    start: u64,
    token: String,
}

/// What a look at a claim finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nobody has the cell, or somebody that certainly is no more.
    Free,
    /// Somebody works on it.
    Held(Holder),
    /// Somebody has it who has not been heard of for too long.
    Silent(Holder),
}

/// The cell is ours until this is dropped.
#[derive(Debug)]
pub struct Claim {
    mine: PathBuf,
    heart: Option<(Sender<()>, JoinHandle<()>)>,
}

/// Remembers when the holders of cells were last heard of.
#[derive(Debug)]
pub struct Watch {
    dead_after: Duration,
    heard: Mutex<HashMap<PathBuf, (String, Instant)>>,
}

/// Takes a cell; `None` while somebody else has it.
///
/// - `instead_of`: a holder, by its file's name, that the caller knows to be dead
///
/// # Errors
/// When the folder cannot be written to.
pub fn take(cell: &Path, instead_of: Option<&str>) -> Result<Option<Claim>> {
    let folder = cell.join(FOLDER);
    let mine = folder.join(Holder::me().to_string());
    for _ in 0..TRIES {
        let from = match holder(cell) {
            None => FREE.to_owned(),
            Some(other) if other.is_gone() || instead_of == Some(&other.to_string()) => {
                other.to_string()
            }
            Some(_) => return Ok(None),
        };
        match fs::rename(folder.join(from), &mine) {
            Ok(()) => return Claim::begin(cell, mine).map(Some),
            // A network file system may do what it then reports as failed.
            Err(_) if mine.exists() => return Claim::begin(cell, mine).map(Some),
            Err(err) if err.kind() == ErrorKind::NotFound => make(cell)?,
            Err(err) => {
                let at = || format!("cannot claim {}", cell.display());
                return Err(err).with_context(at);
            }
        }
    }
    Ok(None)
}

/// Who has a cell, dead or alive; `None` when it is free.
pub fn holder(cell: &Path) -> Option<Holder> {
    let files = fs::read_dir(cell.join(FOLDER)).into_iter().flatten().flatten();
    let mut names = files.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.find_map(|name| Holder::parse(&name))
}

/// When a holder took its cell, and when it last gave a sign of life, by the clock of its machine or
/// of the folder's.
pub fn times(cell: &Path, holder: &Holder) -> Option<(SystemTime, SystemTime)> {
    let file = cell.join(FOLDER).join(holder.to_string());
    let since = fs::read_to_string(&file).ok()?.split_whitespace().next()?.parse().ok()?;
    let beat = fs::metadata(&file).and_then(|file| file.modified()).ok()?;
    Some((UNIX_EPOCH + Duration::from_secs(since), beat))
}

/// Makes a cell's folder `claim`, free, if there is none.
fn make(cell: &Path) -> Result<()> {
    let folder = cell.join(FOLDER);
    if folder.join(FREE).exists() || holder(cell).is_some() {
        return Ok(()); // somebody was faster
    }
    // Complete under another name: a folder that is renamed replaces an empty one, and no other.
    let unfinished = cell.join(format!("{UNFINISHED}{}", Holder::me().token));
    let made = fs::create_dir(&unfinished).and_then(|()| fs::write(unfinished.join(FREE), ""));
    let _ = fs::rename(&unfinished, &folder); // fails where it is there already
    let _ = fs::remove_dir_all(&unfinished);
    match made {
        // Whoever got the cell in the meantime has taken this for a dead process's.
        Err(err) if err.kind() == ErrorKind::NotFound && cell.is_dir() => Ok(()),
        made => made.with_context(|| format!("cannot write to {}", cell.display())),
    }
}

impl Claim {
    fn begin(cell: &Path, mine: PathBuf) -> Result<Self> {
        let since = seconds(SystemTime::now());
        let beat = move |file: &Path, n: u64| -> std::io::Result<()> {
            // Not created anew: it would stand beside the claim of whoever has taken over.
            let mut file = fs::OpenOptions::new().write(true).open(file)?;
            file.write_all(format!("{since:>12} {n:>12}\n").as_bytes()) // always as long
        };
        beat(&mine, 0).with_context(|| format!("cannot write {}", mine.display()))?;
        // What killed processes have left; whoever is making such a folder now tries again.
        for entry in fs::read_dir(cell).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let (stop, stopped) = mpsc::channel();
        let file = mine.clone();
        let heart = thread::spawn(move || {
            let mut n = 0;
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                n += 1;
                match beat(&file, n) {
                    Err(err) if err.kind() == ErrorKind::NotFound => lost(&file),
                    Err(err) => tracing::warn!("cannot write {}: {err}", file.display()),
                    Ok(()) => {}
                }
            }
        });
        let given_up = mine.clone();
        interrupt::always(move || give_up(&given_up));
        Ok(Self { mine, heart: Some((stop, heart)) })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some((stop, heart)) = self.heart.take() {
            drop(stop);
            let _ = heart.join();
        }
        give_up(&self.mine);
    }
}

/// Makes the cell free, if it still is ours.
fn give_up(mine: &Path) {
    let _ = fs::rename(mine, mine.with_file_name(FREE));
}

/// Ends a process whose cell was taken over: two must not write into one folder.
fn lost(mine: &Path) -> ! {
    tracing::error!(
        "{} is gone: this process was silent for too long, and another one has taken over",
        mine.display()
    );
    interrupt::end(interrupt::AGAIN)
}

impl Watch {
    /// A watch that takes a holder for dead after such a silence.
    pub fn new(dead_after: Duration) -> Self {
        Self { dead_after, heard: Mutex::default() }
    }

    /// Who has the cell now. A holder that is silent is told from one that is not by looking again
    /// and again with the same watch.
    pub fn look(&self, cell: &Path) -> State {
        let Some(holder) = holder(cell).filter(|holder| !holder.is_gone()) else {
            return State::Free;
        };
        let name = holder.to_string();
        let beat = fs::read_to_string(cell.join(FOLDER).join(&name)).unwrap_or_default();
        let sign = format!("{name} {beat}");
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, at) =
            heard.entry(cell.to_owned()).or_insert_with(|| (sign.clone(), Instant::now()));
        if *last != sign {
            (*last, *at) = (sign, Instant::now());
        }
        match at.elapsed() >= self.dead_after {
            true => State::Silent(holder),
            false => State::Held(holder),
        }
    }
}

impl Holder {
    /// This process, with a new token.
    fn me() -> Self {
        let pid = process::id();
        Self {
            host: host(),
            pid,
            place: place(),
            start: start_of(pid).unwrap_or_default(),
            token: format!("{:016x}", RandomState::new().build_hasher().finish()),
        }
    }

    /// Reads a file's name; `None` for one that is no holder's.
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('~');
        let mut next = || parts.next().map(str::to_owned);
        let holder = Self {
            host: next()?,
            pid: next()?.parse().ok()?,
            place: next()?,
            start: next()?.parse().ok()?,
            token: next()?,
        };
        parts.next().is_none().then_some(holder)
    }

    /// Whether it certainly is no more: only known of processes of this very system.
    pub fn is_gone(&self) -> bool {
        !self.place.is_empty() && self.place == place() && start_of(self.pid) != Some(self.start)
    }
}

/// The name of a holder's file.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, pid, place, start, token } = self;
        write!(f, "{host}~{pid}~{place}~{start}~{token}")
    }
}

/// This machine's name, as far as a file's name can hold it.
pub fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let kept = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
    match name.trim() {
        "" => "unknown".to_owned(),
        name => name.chars().map(kept).collect(),
    }
}

/// What tells the running system from all others in whose numbers a process may be counted: the
/// start of its kernel and its namespace of processes. Empty where there is no `/proc`.
fn place() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = fs::read_link("/proc/self/ns/pid");
    let (Ok(boot), Ok(namespace)) = (boot, namespace) else { return String::new() };
    let digest = Sha256::digest(format!("{boot}{}", namespace.display()).as_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// When a process started, in clock ticks since the system did; `None` when there is none that
/// lives. Field 22 of `/proc/<pid>/stat`, counted behind the name, which may hold anything.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let is_over = ["Z", "X"].contains(fields.first()?); // ended, and nobody has asked how
    fields.get(19)?.parse().ok().filter(|_| !is_over)
}

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Command, Stdio},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// The files in a claim's folder.
    fn files(cell: &Path) -> Vec<String> {
        let files = fs::read_dir(cell.join(FOLDER)).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Puts `holder` in the place of whoever has the cell.
    fn put(cell: &Path, holder: &Holder) {
        let [file] = &files(cell)[..] else { panic!("one file: {:?}", files(cell)) };
        let folder = cell.join(FOLDER);
        fs::rename(folder.join(file), folder.join(holder.to_string())).unwrap();
    }

    fn elsewhere() -> Holder {
        Holder { host: "node7".into(), place: "0a0b0c0d".into(), ..Holder::me() }
    }

    #[test]
    fn a_cell_is_one_process_s_until_it_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new(DEAD_AFTER);
        assert_eq!(watch.look(dir.path()), State::Free);
        let mine = take(dir.path(), None).unwrap().expect("it is free");
        let State::Held(holder) = watch.look(dir.path()) else { panic!("it is held") };
        assert_eq!((holder.pid, &holder.host), (process::id(), &host()));
        let (since, beat) = times(dir.path(), &holder).unwrap();
        assert!(since.elapsed().unwrap() < Duration::from_secs(60), "{since:?}");
        assert!(beat.elapsed().unwrap_or_default() < Duration::from_secs(60), "{beat:?}");
        assert!(take(dir.path(), None).unwrap().is_none());
        drop(mine);
        assert_eq!(files(dir.path()), [FREE]);
        assert!(take(dir.path(), None).unwrap().is_some());
    }

    /// As many as can try at once, for a cell without a claim, a free one, and one of a dead process.
    #[test]
    fn of_many_that_want_a_cell_one_gets_it() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..60 {
            let cell = dir.path().join(format!("cell {}", round % 20));
            fs::create_dir_all(&cell).unwrap();
            let dead = elsewhere().to_string();
            if round >= 40 {
                put(&cell, &Holder::parse(&dead).unwrap());
            }
            let n_taken = AtomicUsize::new(0);
            thread::scope(|scope| {
                let takers: Vec<_> =
                    (0..8).map(|_| scope.spawn(|| take(&cell, Some(&dead)).unwrap())).collect();
                // All are kept until the last has tried.
                let claims: Vec<_> = takers.into_iter().map(|t| t.join().unwrap()).collect();
                n_taken.fetch_add(claims.iter().flatten().count(), Ordering::Relaxed);
            });
            assert_eq!(n_taken.into_inner(), 1, "round {round}");
            assert_eq!(files(&cell), [FREE], "round {round}");
            assert_eq!(fs::read_dir(&cell).unwrap().count(), 1, "nothing is left beside");
        }
    }

    #[test]
    fn the_cell_of_a_process_that_is_gone_is_free_at_once() {
        let dir = tempfile::tempdir().unwrap();
        drop(take(dir.path(), None).unwrap());
        let watch = Watch::new(DEAD_AFTER);
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let start = start_of(child.id()).expect("it lives");
        let holder = Holder { pid: child.id(), start, ..Holder::me() };
        put(dir.path(), &holder);
        assert_eq!(watch.look(dir.path()), State::Held(holder.clone()));
        assert!(take(dir.path(), None).unwrap().is_none());
        // The number is another process's by now.
        put(dir.path(), &Holder { start: start + 1, ..holder.clone() });
        assert_eq!(watch.look(dir.path()), State::Free);
        put(dir.path(), &holder);
        child.kill().unwrap(); // and is a zombie, as nobody has waited for it
        while start_of(child.id()).is_some() {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(watch.look(dir.path()), State::Free);
        child.wait().unwrap();
        assert!(take(dir.path(), None).unwrap().is_some());
    }

    #[test]
    fn a_process_elsewhere_is_dead_after_its_silence_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        drop(take(dir.path(), None).unwrap());
        let holder = elsewhere();
        put(dir.path(), &holder);
        let file = dir.path().join(FOLDER).join(holder.to_string());
        let watch = Watch::new(Duration::from_millis(300));
        let started = Instant::now();
        for beat in 0..5 {
            fs::write(&file, format!("1 {beat}")).unwrap();
            assert_eq!(watch.look(dir.path()), State::Held(holder.clone()));
            thread::sleep(Duration::from_millis(100));
        }
        while watch.look(dir.path()) != State::Silent(holder.clone()) {
            assert!(started.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(20));
        }
        assert!(started.elapsed() >= Duration::from_millis(700));
        assert!(take(dir.path(), None).unwrap().is_none(), "only for whoever has watched it");
        assert!(take(dir.path(), Some(&elsewhere().to_string())).unwrap().is_none());
        assert!(take(dir.path(), Some(&holder.to_string())).unwrap().is_some());
    }

    #[test]
    fn names_of_files_read_back_and_others_are_nobody() {
        let me = Holder::me();
        assert_eq!(Holder::parse(&me.to_string()), Some(me));
        for name in [FREE, "", ".nfs0001", "a~b~c~1~d", "a~1~c~1", "a~1~c~1~d~e"] {
            assert_eq!(Holder::parse(name), None, "{name}");
        }
    }
}
