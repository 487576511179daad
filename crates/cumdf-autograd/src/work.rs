//! How much is computed: the floating-point operations of matrix products and convolutions, as
//! libtorch is called for them, whatever network calls.

unsafe extern "C" {
    fn cumdf_count_begin();
    fn cumdf_count_end();
    fn cumdf_counted() -> u64;
}

/// Counts while it lives, in all threads of the process; costs about a microsecond per operation.
///
/// A multiplication and an addition are two operations, as the field counts them. What is no product
/// of matrices (activations, norms, softmax) is left out. Several may count at once.
#[derive(Debug)]
pub struct Counter {
    before: u64,
}

impl Counter {
    /// Begins to count.
    pub fn begin() -> Self {
        // SAFETY: no arguments; `drop` ends what begins here.
        let before = unsafe {
            cumdf_count_begin();
            cumdf_counted()
        };
        Self { before }
    }

    /// The operations so far.
    pub fn operations(&self) -> u64 {
        // SAFETY: it reads an atomic number.
        unsafe { cumdf_counted() - self.before }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // SAFETY: it was begun in `begin`, once.
        unsafe { cumdf_count_end() }
    }
}
