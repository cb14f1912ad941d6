//! The generations of the interface: V1, V2 and V2.8.1 are names and error numbers for the same few operations of [`crate::core`]. Nothing
//! is decided here.

pub mod error;
pub mod language;

/// A generation of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// V1 and V2: operations 1 to 3 and 10 to 14.
    Current,
    /// V2.8.1: operations 4 to 9.
    V281,
    /// The admin API.
    Admin,
}
