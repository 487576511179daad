//! What a decode may use of the machine.

/// Bounds on what a decode may use.
///
/// Memory is bounded by these, time by these and the length of the file. The defaults let every
/// public data set through that we know of and keep a hostile file below about 1.5 GB: eight
/// million empty dicts take 1.1 GB, most other values less than half of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Values that the pickle may make, counting each time that one is used again.
    pub max_nodes: usize,
    /// Values that the pickle may number in order to use them again.
    pub max_memo: usize,
    /// Bytes of text and of small payloads held in memory, all together.
    ///
    /// Of note for protocol 0, whose payloads are escaped text: they are held whole.
    pub max_inline_bytes: usize,
    /// Payloads and texts of this many bytes or more stay in the file; at least 64, the length of
    /// the names that numpy needs.
    pub inline_below: u64,
    /// How deep values may lie inside one another. Recursion over the items is safe below it.
    pub max_depth: u32,
    /// Values that a walk over all items meets, a shared one once for each place that holds it.
    ///
    /// A few hundred bytes can describe a tree of 2^60 leaves by sharing. Decoding it is cheap,
    /// walking it is not.
    pub max_walk: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_nodes: 1 << 23,
            max_memo: 1 << 23,
            max_inline_bytes: 256 << 20,
            inline_below: 4 << 10,
            max_depth: 256,
            max_walk: 1 << 26,
        }
    }
}
