//! Makes the calls that are owed to apps: a session has ended.
//!
//! The store says what is due, and is told what became of it; what is kept here is only who is busy. Calls to one app at one origin form a
//! lane. A lane has few calls under way, and one that did not answer waits before the next, so that nobody waits for somebody else's dead
//! host; and lanes that are slow or do not answer have no more than half of all places.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    core::{
        Core, Error,
        clock::Timestamp,
        ids::LogoutId,
        logouts::{Due, Lane, Outcome, OwedLogout, backoff, shown},
        secret::random_bytes,
    },
    outbound::Client,
};

/// How many calls are under way at a time.
const PLACES: usize = 64;
/// How many of them to lanes whose last call had no answer, or a late one.
const PLACES_OF_LATE_LANES: usize = PLACES / 2;
/// How many of them in one lane that answers promptly; one in any other.
const PER_LANE: usize = 2;
/// What takes longer is late.
const PROMPT: Duration = Duration::from_secs(1);
/// How long a lane that does not answer is left alone at the most. Its calls have turns of their own besides.
const MAX_PAUSE: Duration = Duration::from_mins(1);
/// How often it is looked for calls whose turn has come. New ones are seen at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How much longer than counting what is owed took it is not counted again: a database takes its time for a million of them.
const COUNT_AFTER: u32 = 50;
/// But at the latest after so long.
const COUNT_EVERY: Duration = Duration::from_mins(1);
/// For how long a call that is under way is nobody else's to make: longer than it can take.
const TAKEN_FOR: Duration = Duration::from_secs(30);
/// How much of an app's answer is read. It says nothing.
const ANSWER: usize = 4 * 1024;

/// Makes calls as they come to be due, for ever.
pub(super) async fn deliver(core: Arc<Core>, client: Client) {
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lanes = Lanes::default();
    let mut calls = JoinSet::new();
    loop {
        if let Err(error) = look(&core, &client, &mut lanes, &mut calls).await {
            tracing::warn!("the calls that are owed to apps cannot be seen to, which is tried again: {error}");
            tick.tick().await;
        }
        tokio::select! {
            _ = tick.tick() => {}
            () = core.store.logouts_owed() => {}
            Some(ended) = calls.join_next() => lanes.note(ended, &core),
        }
        // All that have ended meanwhile share one look.
        while let Some(ended) = calls.try_join_next() {
            lanes.note(ended, &core);
        }
    }
}

/// Gives up what is too old and starts what is due.
async fn look(core: &Arc<Core>, client: &Client, lanes: &mut Lanes, calls: &mut JoinSet<Ended>) -> Result<(), Error> {
    lanes.count(core).await;
    let now = core.now();
    match core.store.give_up_logouts(now).await {
        Ok(given_up) => given_up.iter().for_each(note_given_up),
        // Those that are due are called all the same.
        Err(error) => tracing::warn!("calls to apps that are owed for too long cannot be given up, which is tried again: {error}"),
    }
    // So many that those under way cannot hide all others.
    let mut due = core.store.due_logouts(2 * PER_LANE, now).await?;
    // Where there are more lanes than places, they do not always begin with the same.
    let begin = usize::from(u16::from_be_bytes(random_bytes()?)).checked_rem(due.len()).unwrap_or(0);
    due.rotate_left(begin);
    for owed in due {
        let lane = owed.lane();
        if lanes.start(lane, owed.id, now) {
            let (core, client) = (Arc::clone(core), client.clone());
            calls.spawn(async move {
                let id = owed.id;
                // In a task of its own, so that a panic gives its place back, too.
                let mut attempt = JoinSet::new();
                attempt.spawn(async move { take_and_call(&core, &client, owed).await });
                let manner = attempt.join_next().await.and_then(Result::ok).unwrap_or(Some(Manner::Silent));
                Ended { lane, id, manner }
            });
        }
    }
    Ok(())
}

fn note_given_up(owed: &OwedLogout) {
    count(owed, "given_up");
    tracing::error!(
        app = %owed.app, session = %owed.session, jti = %owed.id, uri = %shown(&owed.uri), tries = owed.tries, last_error = %owed.last_error,
        "gave up telling an app that a session has ended: it may still hold it for alive"
    );
}

/// A try that has ended.
#[derive(Debug)]
struct Ended {
    lane: Lane,
    id: LogoutId,
    /// None: somebody else makes the call.
    manner: Option<Manner>,
}

/// How somebody answered, whatever he said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Prompt,
    Slow,
    Silent,
}

/// Makes one try, unless somebody else makes it, and says how it was answered.
async fn take_and_call(core: &Core, client: &Client, owed: OwedLogout) -> Option<Manner> {
    match core.store.take_logout(&owed, core.now().after(TAKEN_FOR)).await {
        Ok(true) => Some(call(core, client, owed).await),
        Ok(false) => None,
        Err(error) => {
            tracing::warn!(app = %owed.app, jti = %owed.id, "a call to an app cannot be taken, which is tried again: {error}");
            Some(Manner::Silent)
        }
    }
}

/// Makes one try, and says how it was answered.
async fn call(core: &Core, client: &Client, owed: OwedLogout) -> Manner {
    let begun = Instant::now();
    let mut manner = Manner::Prompt;
    let uri = shown(&owed.uri);
    let outcome = match core.due_logout(&owed).await {
        Ok(Due::Call { url, token }) => {
            let failure = match client.post_form(&url, &[("logout_token", token.expose())], ANSWER).await {
                Ok(answer) if answer.status.is_success() => None,
                Ok(answer) => Some(format!("the app answered {}", answer.status.as_u16())),
                Err(error) => {
                    manner = Manner::Silent;
                    Some(error.to_string())
                }
            };
            if manner == Manner::Prompt && begun.elapsed() > PROMPT {
                manner = Manner::Slow;
            }
            match failure {
                None => {
                    count(&owed, "delivered");
                    tracing::info!(app = %owed.app, session = %owed.session, jti = %owed.id, uri, tries = owed.tries + 1, "an app was told that a session has ended");
                    Ok(Outcome::Settled)
                }
                Some(error) => {
                    count(&owed, "failed");
                    let next = owed.retry_at(core.now());
                    tracing::warn!(
                        app = %owed.app, session = %owed.session, jti = %owed.id, uri, tries = owed.tries + 1, error,
                        "an app could not be told that a session has ended, which is tried again"
                    );
                    next.map(|at| Outcome::Again { error, at })
                }
            }
        }
        Ok(Due::AppDeleted) => {
            tracing::info!(app = %owed.app, session = %owed.session, jti = %owed.id, "an app was deleted before it was told that a session has ended");
            Ok(Outcome::Settled)
        }
        Ok(Due::Uncallable(reason)) => {
            count(&owed, "given_up");
            tracing::error!(
                app = %owed.app, session = %owed.session, jti = %owed.id, uri, %reason,
                "gave up telling an app that a session has ended: its address may not be called any more"
            );
            Ok(Outcome::GivenUp { error: format!("it may not be called any more: {reason}"), at: core.now() })
        }
        Err(error) => Err(error),
    };
    let settled = match outcome {
        Ok(outcome) => core.store.settle_logout(owed.id, outcome).await,
        Err(error) => Err(error),
    };
    if let Err(error) = settled {
        tracing::warn!(app = %owed.app, jti = %owed.id, "what became of a call to an app cannot be noted, and it will be made again: {error}");
        // As if nobody had answered: the lane waits, so that an app is not called over and over while the store is away.
        return Manner::Silent;
    }
    manner
}

fn count(owed: &OwedLogout, outcome: &'static str) {
    metrics::counter!("supos_auth_logout_calls_total", "app" => owed.app.to_string(), "outcome" => outcome).increment(1);
}

/// Who is busy, and who answers how.
#[derive(Debug, Default)]
struct Lanes {
    known: HashMap<Lane, State>,
    under_way: HashSet<LogoutId>,
    /// How many of those under way are in lanes that did not answer promptly when they began.
    late: usize,
    /// When to count next how many calls are owed.
    count_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    /// How many of those were begun as late ones.
    late: usize,
    /// How the last call was answered; none: there was none yet.
    last: Option<Manner>,
    /// How many calls in a row have had no answer.
    failures: u32,
    wait_until: Timestamp,
}

impl Lanes {
    /// Takes a place for a call, if there is one for it now.
    fn start(&mut self, lane: Lane, id: LogoutId, now: Timestamp) -> bool {
        let state = self.known.entry(lane).or_default();
        // One call is enough to see whether anybody answers.
        let per_lane = if state.last == Some(Manner::Prompt) { PER_LANE } else { 1 };
        let is_late = matches!(state.last, Some(Manner::Slow | Manner::Silent));
        let has_place = self.under_way.len() < PLACES
            && state.under_way < per_lane
            && now >= state.wait_until
            && !(is_late && self.late >= PLACES_OF_LATE_LANES);
        if !has_place || !self.under_way.insert(id) {
            return false;
        }
        state.under_way += 1;
        if is_late {
            state.late += 1;
            self.late += 1;
        }
        true
    }

    /// Notes that a call has ended.
    fn end(&mut self, ended: &Ended, now: Timestamp) -> Result<(), Error> {
        self.under_way.remove(&ended.id);
        let Some(state) = self.known.get_mut(&ended.lane) else { return Ok(()) };
        state.under_way = state.under_way.saturating_sub(1);
        if state.late > 0 {
            state.late -= 1;
            self.late -= 1;
        }
        let Some(manner) = ended.manner else { return Ok(()) };
        state.last = Some(manner);
        if manner == Manner::Silent {
            let pause = backoff(state.failures, MAX_PAUSE)?;
            state.failures = state.failures.saturating_add(1);
            state.wait_until = now.after(pause);
        } else {
            state.failures = 0;
            state.wait_until = Timestamp::default();
        }
        Ok(())
    }

    /// Counts how many calls are owed, if that was not done lately. Calls are made whether it can be counted or not.
    async fn count(&mut self, core: &Core) {
        let began = Instant::now();
        if self.count_at.is_some_and(|at| began < at) {
            return;
        }
        match core.store.owed_logouts().await {
            Ok(owed) => {
                #[expect(clippy::cast_precision_loss, reason = "nobody owes 2^53 calls")]
                metrics::gauge!("supos_auth_logouts_owed").set(owed as f64);
                if owed == 0 {
                    self.forget();
                }
            }
            Err(error) => tracing::warn!("how many calls are owed to apps cannot be counted: {error}"),
        }
        self.count_at = Some(Instant::now() + began.elapsed().saturating_mul(COUNT_AFTER).min(COUNT_EVERY));
    }

    /// Forgets how lanes have answered, when nobody is owed anything.
    fn forget(&mut self) {
        if self.under_way.is_empty() {
            self.known.clear();
        }
    }

    fn note(&mut self, ended: Result<Ended, tokio::task::JoinError>, core: &Core) {
        let noted = ended.map_err(|error| Error::Internal(error.to_string())).and_then(|ended| self.end(&ended, core.now()));
        if let Err(error) = noted {
            tracing::error!("a call to an app has failed: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::{AppId, Incarnation, SessionId, UserId};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn lane(app: usize) -> Lane {
        OwedLogout {
            id: LogoutId::random().unwrap(),
            app: AppId::new(&format!("app-{app}")).unwrap(),
            incarnation: Incarnation::random().unwrap(),
            uri: "http://a/".into(),
            user: UserId::random().unwrap(),
            session: SessionId::random().unwrap(),
            created_at: NOW,
            next_try_at: NOW,
            tries: 0,
            last_error: String::new(),
            given_up_at: None,
        }
        .lane()
    }

    fn id() -> LogoutId {
        LogoutId::random().unwrap()
    }

    /// Starts a call in the lane and has it end without an answer.
    fn fail(lanes: &mut Lanes, lane: Lane, now: Timestamp) {
        let id = id();
        assert!(lanes.start(lane, id, now));
        lanes.end(&Ended { lane, id, manner: Some(Manner::Silent) }, now).unwrap();
    }

    /// Has the lane answer promptly once.
    fn answer(lanes: &mut Lanes, lane: Lane) {
        let id = id();
        assert!(lanes.start(lane, id, NOW));
        lanes.end(&Ended { lane, id, manner: Some(Manner::Prompt) }, NOW).unwrap();
    }

    #[test]
    fn a_lane_that_answers_has_two_calls_under_way_and_a_call_is_made_once_at_a_time() {
        let mut lanes = Lanes::default();
        let first = id();
        assert!(lanes.start(lane(1), first, NOW));
        assert!(!lanes.start(lane(1), id(), NOW), "nobody knows yet whether it answers");
        assert!(lanes.start(lane(2), id(), NOW));
        lanes.end(&Ended { lane: lane(1), id: first, manner: Some(Manner::Prompt) }, NOW).unwrap();
        assert!(lanes.start(lane(1), first, NOW));
        assert!(!lanes.start(lane(1), first, NOW), "it is under way");
        assert!(lanes.start(lane(1), id(), NOW));
        assert!(!lanes.start(lane(1), id(), NOW));
    }

    #[test]
    fn a_lane_that_does_not_answer_waits_longer_each_time_and_is_tried_by_one_call() {
        let mut lanes = Lanes::default();
        let mut now = NOW;
        for failures in 0..12 {
            fail(&mut lanes, lane(1), now);
            assert!(!lanes.start(lane(1), id(), now.after(Duration::from_millis(999))));
            now = now.after(Duration::from_secs(2 << failures).min(MAX_PAUSE));
        }
        let probe = id();
        assert!(lanes.start(lane(1), probe, now));
        assert!(!lanes.start(lane(1), id(), now));
        lanes.end(&Ended { lane: lane(1), id: probe, manner: Some(Manner::Prompt) }, now).unwrap();
        assert!(lanes.start(lane(1), id(), now) && lanes.start(lane(1), id(), now));
    }

    #[test]
    fn however_many_lanes_are_slow_or_dead_there_is_a_place_for_one_that_answers() {
        let mut lanes = Lanes::default();
        answer(&mut lanes, lane(2000));
        for dead in 0..500 {
            fail(&mut lanes, lane(dead), NOW);
        }
        for slow in 500..1000 {
            let id = id();
            assert!(lanes.start(lane(slow), id, NOW));
            lanes.end(&Ended { lane: lane(slow), id, manner: Some(Manner::Slow) }, NOW).unwrap();
        }
        let later = NOW.after(MAX_PAUSE);
        let started = (0..1000).filter(|late| lanes.start(lane(*late), id(), later)).count();
        assert_eq!(started, PLACES_OF_LATE_LANES);
        assert!(lanes.start(lane(2000), id(), later) && lanes.start(lane(2001), id(), later));
    }

    #[test]
    fn places_are_given_back() {
        let mut lanes = Lanes::default();
        for round in 0..1000 {
            let id = id();
            let now = NOW.after(Duration::from_mins(2) * round);
            assert!(lanes.start(lane(1), id, now));
            let manner = [Manner::Prompt, Manner::Slow, Manner::Silent][usize::try_from(round).unwrap() % 3];
            lanes.end(&Ended { lane: lane(1), id, manner: Some(manner) }, now).unwrap();
        }
        assert!(lanes.under_way.is_empty());
        assert_eq!(lanes.late, 0);
        lanes.forget();
        assert!(lanes.known.is_empty());
    }
}
