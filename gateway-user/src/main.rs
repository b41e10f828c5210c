//! The lungate command: loads, fills and watches the gateway.

fn main() {}
