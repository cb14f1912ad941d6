//! What an answer has promised holds: whatever ends the process, whatever becomes of the disk. Over the wire, with the real binary; the
//! rows are those of docs/security.md. Long forms are ignored and run by `make soak`.

mod clock;
mod damage;
mod dice;
mod faults;
#[path = "../wire/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "shared with tests/wire, which uses the rest")]
mod harness;
mod kills;
mod opening;
mod power;
mod record;
mod shim;
mod soak;
