//! Third-party authorities: who may register one, what administrators do with them, and signing in at one.

mod addresses;
mod admin;
mod answers;
mod dance;
mod provider;
mod registration;
mod stage;
