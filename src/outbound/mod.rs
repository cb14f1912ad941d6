//! Calls that the service makes by itself: to apps, that a session has ended, and to third-party certification authorities.

pub mod address;
