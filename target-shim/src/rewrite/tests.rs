//! PDUs in, PDUs out.
