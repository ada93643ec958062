//! The memory that the process may use.

use std::{fs, path::Path};

/// The memory available to this process in bytes: the limit of its control group, such as that of its container, or what
/// the machine has. `None` if neither is known.
#[must_use]
pub fn available() -> Option<u64> {
    available_in(Path::new("/"))
}

fn available_in(root: &Path) -> Option<u64> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| total(&text));
    let group = fs::read_to_string(root.join("proc/self/cgroup")).ok().and_then(|text| limit(root, &text));
    [machine, group].into_iter().flatten().min()
}

/// `MemTotal` of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The lowest limit of the control group and those above it. The line `0::PATH` is that of version 2, and one with the
/// controller `memory` that of version 1.
fn limit(root: &Path, cgroup: &str) -> Option<u64> {
    let groups = cgroup.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        match controllers {
            "" => Some(("sys/fs/cgroup", "memory.max", path)),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some(("sys/fs/cgroup/memory", "memory.limit_in_bytes", path))
            }
            _ => None,
        }
    });
    groups
        .flat_map(|(mount, file, path)| {
            let mount = root.join(mount);
            // A container sees its own group as the root, and the path of the host.
            Path::new(path.trim_start_matches('/'))
                .ancestors()
                .map(|path| mount.join(path).join(file))
                .collect::<Vec<_>>()
        })
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_lowest_limit_applies() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        assert_eq!(available_in(root), None);
        write(root, "proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\n");
        assert_eq!(available_in(root), Some(16 << 20));
        write(root, "proc/self/cgroup", "0::/system.slice/edge.service\n");
        write(root, "sys/fs/cgroup/system.slice/edge.service/memory.max", "max\n");
        assert_eq!(available_in(root), Some(16 << 20));
        write(root, "sys/fs/cgroup/system.slice/memory.max", "8388608\n");
        assert_eq!(available_in(root), Some(8 << 20));
        write(root, "sys/fs/cgroup/system.slice/edge.service/memory.max", "4194304\n");
        assert_eq!(available_in(root), Some(4 << 20));
    }

    #[test]
    fn a_container_and_version_1_are_understood() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(root, "proc/self/cgroup", "0::/../../docker/abc\n");
        write(root, "sys/fs/cgroup/memory.max", "1048576\n");
        assert_eq!(available_in(root), Some(1 << 20));
        write(root, "proc/self/cgroup", "5:cpu,memory:/docker/abc\n1:name=systemd:/\n");
        write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "2097152\n");
        assert_eq!(available_in(root), Some(2 << 20));
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(available().unwrap() > 64 << 20);
    }
}
