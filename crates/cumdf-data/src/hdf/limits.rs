//! What an HDF5 file can claim before it is refused, in one list. A file of some bytes may describe
//! arrays of petabytes; nothing is allocated on its word alone. No data set that is known comes near.

/// Deflate packs at most 1032 to 1; what claims to hold more was not written by anybody.
pub(crate) const MOST_PACKED: u64 = 1100;
/// Bytes of an array that may be there without taking space in the file: never-written arrays (all
/// zeros) do not.
pub(crate) const FREE_BYTES: u64 = 1 << 30;
/// The same for the arrays of one video of a `.csd` file, of which as many are held as there are
/// cores.
pub(crate) const FREE_BYTES_OF_A_VIDEO: u64 = 1 << 28;
/// Features of one row; the largest known sets have some thousands.
pub(crate) const MOST_COLUMNS: usize = 1 << 15;
/// Members of a group looked at for a list of its arrays: links may lead round in circles.
pub(crate) const MEMBERS_SEEN: usize = 1000;
/// Bytes of the longest string in an array or attribute of a native file, read or written: ids and
/// names are held at this width.
pub(crate) const LONGEST_TEXT: usize = 1 << 10;
/// Bytes of the longest text among a `.csd` file's metadata, which holds whole licences.
pub(crate) const LONGEST_METADATA: usize = 1 << 20;
/// Bytes of the largest heap of variable-length strings, which is read whole.
pub(crate) const LARGEST_TEXT_HEAP: u64 = 1 << 24;
/// Bytes of the largest heap of members' names that is looked at.
pub(crate) const LARGEST_NAME_HEAP: u64 = 1 << 28;
