//! Rules that every store applies inside its atomic steps, beside [`super::judge`].

use super::{Arrival, MAX_PENDING, MAX_PENDING_OF_NETWORK};
use crate::core::{
    Error,
    clock::Timestamp,
    model::{Authority, Link, LinkOrigin, Pending, User},
};

/// Sessions of a user that were ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// How many.
    pub(super) number: usize,
    /// There are more to end, in another step.
    pub(super) has_more: bool,
    /// Something is left of those that have ended.
    pub(super) leaves_some: bool,
}

/// Refuses when so many authorities wait, of one network or of all, that one more is too much.
pub(super) fn make_room(waiting: &[Pending], network: &str, now: Timestamp) -> Result<(), Error> {
    let expiries = |network: Option<&str>| {
        let waits = waiting.iter().filter(|waits| network.is_none_or(|network| waits.network == network));
        let mut expiries: Vec<Timestamp> = waits.map(|waits| waits.expires_at).collect();
        expiries.sort_unstable();
        expiries
    };
    for (expiries, most) in [(expiries(None), MAX_PENDING), (expiries(Some(network)), MAX_PENDING_OF_NETWORK)] {
        if expiries.len() >= most {
            let first = expiries.first().copied().unwrap_or_default();
            return Err(Error::TooManyTries { retry_after: first.since(now) });
        }
    }
    Ok(())
}

/// Says who somebody is whom an authority has signed in: `user` is whom his link names, or where he has none, who has his name. The
/// second value is how the link comes about that is stored now; none: he has one.
pub(super) fn recognise(
    arrival: &Arrival,
    authority: Option<Authority>,
    link: Option<Link>,
    user: Option<User>,
) -> Result<(User, Option<LinkOrigin>), Error> {
    let authority = authority.filter(|authority| authority.enabled).ok_or(Error::AuthorityOff)?;
    if let Some(link) = link {
        // He may have got rights since he was linked by his name alone, which anybody at the authority could have had.
        let may = |user: &User| link.origin != LinkOrigin::Name || user.is_ordinary();
        return user.filter(may).map(|user| (user, None)).ok_or(Error::AuthorityUserUnknown);
    }
    let found = match user {
        Some(user) if authority.link_by_name && user.is_ordinary() => Some((user, LinkOrigin::Name)),
        None if authority.create_users && arrival.name.is_some() => {
            arrival.newcomer.clone().map(|newcomer| (newcomer, LinkOrigin::Creation))
        }
        Some(_) | None => None,
    };
    found.map(|(user, origin)| (user, Some(origin))).ok_or(Error::AuthorityUserUnknown)
}
