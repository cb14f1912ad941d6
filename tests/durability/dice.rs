//! Chance, and how much of it a test takes.

use std::{
    env,
    hash::{BuildHasher as _, Hasher as _, RandomState},
};

/// Random numbers that come again for the same seed (xorshift64*).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Dice that fall another way each time, unless `SOAK_SEED` says how. The seed is printed, and shown if the test fails.
    pub(crate) fn new() -> Self {
        let seed = number("SOAK_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
        println!("SOAK_SEED={seed}");
        Self(seed | 1)
    }

    /// Further dice, which fall independently.
    pub(crate) fn another(&mut self) -> Self {
        Self(self.roll(u64::MAX) | 1)
    }

    /// A number below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % sides
    }

    /// Something of several.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.index(of.len())?)
    }

    /// An index below `length`.
    pub(crate) fn index(&mut self, length: usize) -> Option<usize> {
        let sides = u64::try_from(length).expect("a length is 64 bits at most");
        (length > 0).then(|| usize::try_from(self.roll(sides)).expect("below a length"))
    }

    /// Whether something that happens once in so many times happens.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.roll(times) == 0
    }
}

/// How many rounds the long form of a test takes: `SOAK_ROUNDS`, else `usual`.
pub(crate) fn rounds(usual: u64) -> u64 {
    number("SOAK_ROUNDS").unwrap_or(usual)
}

/// How long the long form of a test takes, in minutes: `SOAK_MINUTES`, else `usual`.
pub(crate) fn minutes(usual: u64) -> u64 {
    number("SOAK_MINUTES").unwrap_or(usual)
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}
