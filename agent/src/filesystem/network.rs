//! Which types of file systems are shared with other machines, whose changes the kernel tells nobody of.

/// The name of a type of network file system, by the number that statfs(2) has for it; `None` for local ones.
///
/// FUSE counts as one: sshfs, GlusterFS, S3 and the like come through it, and a local one loses little by being polled.
#[must_use]
pub fn network_name(volume_type: u64) -> Option<&'static str> {
    match volume_type {
        0x6969 => Some("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        0x6573_5546 => Some("FUSE"),
        0x0102_1997 => Some("9p"),
        0x00c3_6400 => Some("Ceph"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        0x0bd0_0bd0 => Some("Lustre"),
        0x7461_636f => Some("OCFS2"),
        0x0116_1970 => Some("GFS2"),
        0x4750_4653 => Some("GPFS"),
        0x1980_0202 => Some("BeeGFS"),
        0x786f_4256 => Some("vboxsf"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_that_other_machines_write_to_are_known_and_local_ones_are_not() {
        for (volume_type, name) in [
            (0x6969, Some("NFS")),
            (0xff53_4d42, Some("SMB")),
            (0xfe53_4d42, Some("SMB")),
            (0x6573_5546, Some("FUSE")),
            (0x0102_1997, Some("9p")),
            (0xef53, None),
            (0x794c_7630, None),
            (0x0102_1994, None),
            (0x5846_5342, None),
            (0x9123_683e, None),
        ] {
            assert_eq!(network_name(volume_type), name, "{volume_type:#x}");
        }
    }
}
