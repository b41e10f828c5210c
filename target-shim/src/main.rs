//! The lungate-target daemon: one TCP port for each physical LUN of a real iSCSI target.

fn main() {}
