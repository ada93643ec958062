//! Huge pages for the memory of hashes, and for nothing else.
//!
//! Argon2 reads its memory in random order, which is a tenth faster where that is in pages of 2 MiB. The allocator asks for such pages
//! everywhere, and each service then fills a little of many: so the process switches them off ([`switch_off`]), and a hashing thread
//! switches them on while it allocates. Pages stay as they are once they are written to.

use std::sync::{Mutex, PoisonError};

/// Switches huge pages off for this process.
pub fn switch_off() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        // A failure costs memory only.
        tracing::debug!(%error, "huge pages are not switched off");
    }
}

/// Allocates and writes memory that may be in huge pages. Those that others write meanwhile may be too, for a few milliseconds.
pub(super) fn allocate<T>(allocate: impl FnOnce() -> T) -> T {
    /// The switch is that of the process.
    static SWITCH: Mutex<()> = Mutex::new(());

    let _switch = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_switched_off() {
        return allocate();
    }
    switch(true);
    let allocated = allocate();
    switch(false);
    allocated
}

#[cfg(target_os = "linux")]
fn is_switched_off() -> bool {
    rustix::thread::transparent_huge_pages_are_disabled().unwrap_or(false)
}

#[cfg(target_os = "linux")]
fn switch(on: bool) {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(!on) {
        // A failure costs speed or memory only.
        tracing::debug!(%error, "huge pages are not switched");
    }
}

#[cfg(not(target_os = "linux"))]
fn is_switched_off() -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn switch(_: bool) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn they_are_on_while_memory_is_allocated() {
        assert!(!allocate(is_switched_off), "and stay so where they are");
        switch_off();
        assert!(!allocate(is_switched_off));
        assert!(is_switched_off());
        switch(true);
    }
}
