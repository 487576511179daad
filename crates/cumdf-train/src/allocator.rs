//! How the process keeps its memory.

/// Lets the allocator keep what is freed instead of giving it back to the system: call it first
/// thing in `main`.
///
/// A training step allocates and frees the same tensors of many megabytes again and again. By
/// default glibc maps each of them afresh, and the kernel fills every page with zeros first, which
/// is a tenth and more of a step. The peak does not grow by this; memory below the peak is not
/// returned before the process ends. Elsewhere than on Linux with glibc nothing happens.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "mallopt has no safe counterpart")]
        // SAFETY: two settings of the allocator, known to every glibc; a refusal changes nothing.
        unsafe {
            libc::mallopt(libc::M_MMAP_MAX, 0);
            libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        }
    }
}
