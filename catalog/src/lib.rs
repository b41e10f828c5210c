//! The catalog: one document that describes a whole lungate system, and each party's view of it.
//!
//! | module | holds |
//! |---|---|
//! | [`model`] | what the document says |
//! | [`document`] | the document as text |
//! | [`validate`] | its rules |
//! | [`change`] | the changes that commands make |
//! | [`store`] | the file and its journal |
//! | [`view`] | what host, gateway and device are told |

pub mod change;
pub mod document;
pub mod identity;
pub mod model;
pub mod store;
pub mod units;
pub mod validate;
pub mod view;
