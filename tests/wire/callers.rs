//! Who is calling, and what each may do.

mod dates;
mod rights;
mod sign;
mod throttle;
mod timing;
mod tokens;
mod usage;
