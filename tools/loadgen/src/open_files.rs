//! Room for many sockets: the soft limit of open files is raised to what the hard limit allows.
//!
//! Invariant: a run that cannot have all its sockets is refused before it begins.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside the sockets: standard streams, reports, the log, the administrative connection, libraries.
const FILES_BESIDE: u64 = 64;

/// Makes room for so many sockets, or says why there is none.
pub fn make_room(sockets: u64) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    let Some(raised) = raised(limit.current, limit.maximum, sockets + FILES_BESIDE)? else { return Ok(()) };
    setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum })
        .map_err(|cause| format!("the limit of open files cannot be raised to {raised}: {cause}"))
}

/// The soft limit to set; none when it is high enough. A limit of `None` is no limit.
fn raised(soft: Option<u64>, hard: Option<u64>, wanted: u64) -> Result<Option<u64>, String> {
    if soft.is_none_or(|soft| soft >= wanted) {
        return Ok(None);
    }
    if hard.is_some_and(|hard| hard < wanted) {
        return Err(format!(
            "the run needs {wanted} open files and this process may have {}; raise the hard limit (ulimit -Hn) or lower --producers",
            hard.unwrap_or_default()
        ));
    }
    Ok(Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_where_that_is_allowed() {
        assert_eq!(raised(Some(1024), Some(4096), 1000), Ok(None));
        assert_eq!(raised(Some(1024), Some(4096), 2000), Ok(Some(2000)));
        assert_eq!(raised(Some(1024), None, 2000), Ok(Some(2000)));
        assert_eq!(raised(None, None, 2000), Ok(None));
        assert!(raised(Some(1024), Some(4096), 5000).unwrap_err().contains("may have 4096"));
    }
}
