//! One heap for all threads of this process.
//!
//! glibc gives threads heaps of their own and keeps in each what was freed there. Captured bytes are filled by the
//! threads that relay and freed by the thread of the copy, so that each heap grows towards the whole budget: 70 MiB
//! resident where one heap needs 51, at the same speed. It also gives freed blocks back to the kernel as they come,
//! and each of their pages is then faulted in again for the next: 45 000 faults for each captured GiB, where what is
//! set here leaves 1 300. Its switches are read from the environment when a process starts (the call that does the
//! same is unsafe), so this process starts itself again, once.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// glibc's own variable (mallopt(3), `M_ARENA_MAX`).
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// More of them (`M_TRIM_THRESHOLD`, `M_MMAP_THRESHOLD`): so much may stay free at the heap's end, a quarter of the
/// default budget; and what the copy allocates, blocks of up to a megabyte, lies in the heap. Setting one of them ends
/// glibc's own adjusting of both.
const KEPT: [(&str, &str); 2] = [("MALLOC_TRIM_THRESHOLD_", "8388608"), ("MALLOC_MMAP_THRESHOLD_", "1048576")];

/// Says that it was set here, and not by a person.
const OURS: &str = "HAWSER_ONE_HEAP";

/// Starts the process again with one heap, unless somebody has chosen already. Where that fails, it goes on as it is.
/// To be called before any thread is started.
pub fn one() {
    let chosen = std::env::var_os(ARENAS).is_some() || std::env::var_os(OURS).is_some();
    let mut words = std::env::args_os();
    if let (false, Ok(program), Some(name)) = (chosen, std::env::current_exe(), words.next()) {
        let _ = Command::new(program).arg0(name).args(words).env(ARENAS, "1").envs(KEPT).env(OURS, "1").exec();
    }
}

/// Leaves what was set here out of a child's environment: it is not the child's concern.
pub fn leave_out(child: &mut Command) {
    if std::env::var_os(OURS).is_some() {
        child.env_remove(ARENAS).env_remove(OURS);
        for (name, _) in KEPT {
            child.env_remove(name);
        }
    }
}
