//! What can be wrong with a pickle, and where.

use std::{fmt, io};

/// A `Result` of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a pickle was not decoded, or an array not read.
///
/// Printed as `byte 34: unknown opcode 0xff; ..`; the caller puts the path in front.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    at: Option<u64>,
}

/// The kinds of [`Error`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The reader failed.
    #[error("cannot read: {0}")]
    Io(#[source] io::Error),
    /// The file ends before its pickle does.
    #[error("the file ends here, {missing} bytes short; it was cut off, so fetch it again")]
    Truncated {
        /// How many bytes more were announced, at least 1.
        missing: u64,
    },
    /// The pickle names something that is not data; it was not called.
    #[error(
        "refuses {name}: this pickle wants to call it, which a data file has no reason to do; \
         save its content as plain arrays, lists and dicts"
    )]
    Refused {
        /// Module and name, as in `posix.system`.
        name: String,
    },
    /// One of the [`Limits`](crate::Limits) was reached.
    #[error("more than {limit} {what}; raise Limits::{name} if you trust the file")]
    Limit {
        /// The field of [`Limits`](crate::Limits).
        name: &'static str,
        /// What it counts.
        what: &'static str,
        /// Its value.
        limit: u64,
    },
    /// The bytes are not a pickle, or contradict themselves.
    #[error("{0}")]
    Malformed(String),
    /// A pickle of something that this crate does not decode.
    #[error("{0}")]
    Unsupported(String),
    /// A value does not hold what was asked of it.
    #[error("{0}")]
    Read(String),
}

impl Error {
    /// What was wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The byte of the file where it was noticed: of the opcode, or of an array's content.
    pub fn offset(&self) -> Option<u64> {
        self.at
    }

    /// Adds the place, unless a more exact one is known already.
    pub(crate) fn or_at(mut self, at: u64) -> Self {
        self.at.get_or_insert(at);
        self
    }

    pub(crate) fn malformed(what: impl Into<String>) -> Self {
        ErrorKind::Malformed(what.into()).into()
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        ErrorKind::Unsupported(what.into()).into()
    }

    pub(crate) fn read(what: impl Into<String>) -> Self {
        ErrorKind::Read(what.into()).into()
    }

    pub(crate) fn refused(module: &[u8], name: &[u8]) -> Self {
        let path = [module, b".", name].concat();
        let shown: String = String::from_utf8_lossy(&path).escape_debug().take(120).collect();
        ErrorKind::Refused { name: shown }.into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "byte {at}: {}", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.kind)
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, at: None }
    }
}

impl From<io::Error> for Error {
    fn from(err: io::Error) -> Self {
        match err.kind() {
            io::ErrorKind::UnexpectedEof => ErrorKind::Truncated { missing: 1 }.into(),
            _ => ErrorKind::Io(err).into(),
        }
    }
}
