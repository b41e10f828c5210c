//! The catalog: one document that describes a whole lungate system, and each party's view of it.

pub mod identity;
pub mod model;
pub mod units;
pub mod view;
