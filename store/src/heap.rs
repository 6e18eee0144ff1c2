//! A heap that keeps what was freed for what comes next.
//!
//! Blocks come and go by the thousand a second. glibc gives the memory of each back to the kernel as it is freed, and
//! every page is faulted in again for the next: 75 000 to 130 000 faults for each ingested GiB, a tenth of the store's
//! work, where what is set here leaves 3 000. Its switches are read from the environment when a process starts (the
//! call that does the same is unsafe), so this process starts itself again, once.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// glibc's own variables (mallopt(3), `M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD`): so much may stay free at the end of
/// each heap, half of what may be on its way to the log; and blocks of the usual sizes lie in a heap.
const KEPT: [(&str, &str); 2] = [("MALLOC_TRIM_THRESHOLD_", "33554432"), ("MALLOC_MMAP_THRESHOLD_", "4194304")];

/// Starts the process again with such a heap, unless somebody has chosen already. Where that fails, it goes on as it is.
/// To be called before any thread is started.
pub fn keep() {
    let chosen = KEPT.iter().any(|(name, _)| std::env::var_os(name).is_some());
    let mut words = std::env::args_os();
    if let (false, Ok(program), Some(name)) = (chosen, std::env::current_exe(), words.next()) {
        let _ = Command::new(program).arg0(name).args(words).envs(KEPT).exec();
    }
}
