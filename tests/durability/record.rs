//! What clients were told, and whether it still holds.
//!
//! A writer works on a user, an app and sessions of its own, one call after the other, so that it knows what every one of its tokens and
//! codes is worth. A call that was not answered leaves open what it would have done; afterwards it has to be done wholly or not at all.

use std::{fs, path::PathBuf, sync::Arc};

use supos_auth::grpc::pb::supos::auth::admin::v1::{
    AddSigningKeyRequest, DisableAppRequest, EnableAppRequest, EndUserSessionsRequest, ListSigningKeysRequest,
};
use tokio::{sync::mpsc, task::JoinSet};
use tonic::Code as Grpc;

use crate::{
    dice::Dice,
    harness::{App, Call, Case, Op, Reply, Status, Tokens, User, Via, Who, World, authorize, exchange, refresh, valid},
    kills,
};

/// What is known of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    /// It is good.
    Good,
    /// It is not good any more.
    Ended,
    /// Nobody was told.
    Open,
}

#[derive(Clone, Debug)]
struct Session {
    ticket: String,
    is: Fact,
    families: Vec<Family>,
    codes: Vec<Code>,
}

#[derive(Clone, Debug)]
struct Family {
    access: Vec<String>,
    refresh: String,
    /// Tokens that were used before the newest came, oldest first.
    used: Vec<String>,
    is: Fact,
    /// Whether a refresh is under way that nobody was told of.
    refreshing: bool,
}

/// A code: good is not used yet.
#[derive(Clone, Debug)]
struct Code {
    value: String,
    is: Fact,
    /// Which family it gave.
    family: Option<usize>,
}

impl Family {
    fn of(tokens: Tokens) -> Self {
        Self { access: vec![tokens.access], refresh: tokens.refresh, used: Vec::new(), is: Fact::Good, refreshing: false }
    }

    fn took(&mut self, tokens: Tokens) {
        self.access.push(tokens.access);
        self.used.push(std::mem::replace(&mut self.refresh, tokens.refresh));
    }
}

/// The answer did not come: the process is gone, or says that it cannot store.
#[derive(Debug)]
pub(crate) struct Unanswered;

/// What the store could not do, or nobody was there to do. Any other refusal is a fault: writers ask for nothing wrong.
pub(crate) fn answered(reply: Reply) -> Result<Reply, Unanswered> {
    match reply.status {
        // Unknown, Internal and Cancelled are what tonic makes of a connection that breaks.
        Status::Grpc(Grpc::Unavailable | Grpc::Unknown | Grpc::Internal | Grpc::Cancelled | Grpc::DeadlineExceeded) => Err(Unanswered),
        _ => Ok(reply),
    }
}

/// The same for the admin API.
fn told<T>(reply: Result<tonic::Response<T>, tonic::Status>) -> Result<T, Unanswered> {
    match reply {
        Ok(reply) => Ok(reply.into_inner()),
        Err(status) => match answered(crate::harness::native::refusal(Op::SignOut, &status)) {
            Ok(reply) => panic!("refused: {}", reply.text),
            Err(unanswered) => Err(unanswered),
        },
    }
}

/// One who works and keeps a record.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    app: App,
    user: User,
    sessions: Vec<Session>,
    enabled: Fact,
    kids: Vec<String>,
    dice: Dice,
    /// How many answers promised something.
    pub(crate) answers: usize,
    history: Option<History>,
}

/// What a writer's record was at each of its calls.
#[derive(Clone, Debug)]
struct History {
    /// What the operations on files are written down in, whose length says when something was.
    clock: PathBuf,
    /// The record as it was when a call was sent, and when the answer to the call before had come.
    past: Vec<(u64, Writer)>,
}

impl Writer {
    pub(crate) async fn new(world: &World, dice: Dice) -> Self {
        let app = world.app().await;
        let (user, ticket) = world.signed_in().await;
        let session = Session { ticket, is: Fact::Good, families: Vec::new(), codes: Vec::new() };
        Self { app, user, sessions: vec![session], enabled: Fact::Good, kids: Vec::new(), dice, answers: 0, history: None }
    }

    /// Remembers from now on what was known when, by the length of this file.
    pub(crate) fn remember(&mut self, clock: PathBuf) {
        let now = fs::metadata(&clock).map_or(0, |clock| clock.len());
        self.history = Some(History { clock, past: vec![(now, self.clone())] });
    }

    /// The record as it was when the file had this length, if it had begun: with every answer that had come, and open where a call was
    /// under way.
    pub(crate) fn at(&self, moment: u64) -> Option<Self> {
        let history = self.history.as_ref().expect("a writer that remembers");
        let past = history.past.iter().rev().find(|(heard, _)| *heard <= moment);
        past.map(|(_, writer)| writer.clone())
    }

    /// What is known when a call is about to be sent.
    fn note(&mut self) {
        if let Some(mut history) = self.history.take() {
            let now = fs::metadata(&history.clock).expect("the record of the files").len();
            history.past.push((now, self.clone()));
            self.history = Some(history);
        }
    }

    async fn call(&mut self, world: &World, call: &Call) -> Result<Reply, Unanswered> {
        self.note();
        answered(world.call(Via::Native, call).await)
    }

    /// Works until an answer does not come, and tells `heard` of each that does.
    pub(crate) async fn work(&mut self, world: &World, heard: &mpsc::UnboundedSender<()>) {
        while self.step(world).await.is_ok() {
            self.answers += 1;
            if heard.send(()).is_err() {
                break;
            }
        }
        self.note();
    }

    /// One call, or the few that belong together.
    async fn step(&mut self, world: &World) -> Result<(), Unanswered> {
        if self.enabled == Fact::Ended {
            return self.enable(world).await;
        }
        let Some(index) = self.living_session() else { return self.sign_in(world).await };
        let family = self.living_family(index);
        match (self.dice.roll(100), family) {
            (0..50, Some(family)) => self.refresh(world, index, family).await,
            (0..70, _) => self.code(world, index).await,
            (70..90, _) => self.exchange(world, index).await,
            (90..94, Some(family)) => self.replay(world, index, family).await,
            (94..96, _) => self.sign_out(world, index).await,
            (96, _) => self.end_sessions(world).await,
            (97, _) => self.disable(world).await,
            (98, _) => self.add_key(world).await,
            _ => self.sign_in(world).await,
        }
    }

    fn living_session(&mut self) -> Option<usize> {
        let living: Vec<usize> = (0..self.sessions.len()).filter(|index| self.sessions[*index].is == Fact::Good).collect();
        self.dice.pick(&living).copied()
    }

    fn living_family(&mut self, session: usize) -> Option<usize> {
        let families = &self.sessions[session].families;
        let living: Vec<usize> = (0..families.len()).filter(|index| families[*index].is == Fact::Good).collect();
        self.dice.pick(&living).copied()
    }

    async fn sign_in(&mut self, world: &World) -> Result<(), Unanswered> {
        let call = Call::new(Op::SignIn).with("userName", &self.user.name).with("password", &self.user.password);
        let ticket = self.call(world, &call).await?.text_of("ticket");
        self.sessions.push(Session { ticket, is: Fact::Good, families: Vec::new(), codes: Vec::new() });
        Ok(())
    }

    async fn code(&mut self, world: &World, index: usize) -> Result<(), Unanswered> {
        let call = authorize(Op::Authorize, &self.app).by(Who::ticket(&self.sessions[index].ticket));
        let value = self.call(world, &call).await?.text_of("code");
        self.sessions[index].codes.push(Code { value, is: Fact::Good, family: None });
        Ok(())
    }

    async fn exchange(&mut self, world: &World, index: usize) -> Result<(), Unanswered> {
        let unused = |session: &Session| session.codes.iter().position(|code| code.is == Fact::Good);
        if unused(&self.sessions[index]).is_none() {
            self.code(world, index).await?;
        }
        let code = unused(&self.sessions[index]).expect("there is one");
        self.sessions[index].codes[code].is = Fact::Open;
        let call = exchange(Op::TokenV2, &self.app, &self.sessions[index].codes[code].value);
        let tokens = self.call(world, &call).await?.tokens();
        let session = &mut self.sessions[index];
        session.codes[code].is = Fact::Ended;
        session.codes[code].family = Some(session.families.len());
        session.families.push(Family::of(tokens));
        Ok(())
    }

    async fn refresh(&mut self, world: &World, index: usize, family: usize) -> Result<(), Unanswered> {
        self.sessions[index].families[family].refreshing = true;
        let call = refresh(Op::TokenV2, &self.sessions[index].families[family].refresh).by(self.app.who());
        let tokens = self.call(world, &call).await?.tokens();
        self.sessions[index].families[family].refreshing = false;
        self.sessions[index].families[family].took(tokens);
        Ok(())
    }

    /// Shows a token that was replaced twice, which ends the family.
    async fn replay(&mut self, world: &World, index: usize, family: usize) -> Result<(), Unanswered> {
        while self.sessions[index].families[family].used.len() < 2 {
            self.refresh(world, index, family).await?;
        }
        self.sessions[index].families[family].is = Fact::Open;
        let call = refresh(Op::TokenV2, &self.sessions[index].families[family].used[0]).by(self.app.who());
        self.call(world, &call).await?.refused(Case::Grant);
        self.sessions[index].families[family].is = Fact::Ended;
        Ok(())
    }

    async fn sign_out(&mut self, world: &World, index: usize) -> Result<(), Unanswered> {
        self.sessions[index].is = Fact::Open;
        let call = Call::new(Op::SignOut).by(Who::ticket(&self.sessions[index].ticket));
        self.call(world, &call).await?.ok();
        self.sessions[index].is = Fact::Ended;
        Ok(())
    }

    async fn end_sessions(&mut self, world: &World) -> Result<(), Unanswered> {
        self.all_sessions(Fact::Open);
        self.note();
        let request = world.as_admin(EndUserSessionsRequest { user: format!("users/{}", self.user.id) }).await;
        told(world.sessions().end_user_sessions(request).await)?;
        self.all_sessions(Fact::Ended);
        Ok(())
    }

    fn all_sessions(&mut self, now: Fact) {
        for session in self.sessions.iter_mut().filter(|session| session.is != Fact::Ended) {
            session.is = now;
        }
    }

    async fn disable(&mut self, world: &World) -> Result<(), Unanswered> {
        let name = format!("apps/{}", self.app.id);
        self.enabled = Fact::Open;
        self.note();
        told(world.apps().disable_app(world.as_admin(DisableAppRequest { name }).await).await)?;
        self.enabled = Fact::Ended;
        Ok(())
    }

    async fn enable(&mut self, world: &World) -> Result<(), Unanswered> {
        let name = format!("apps/{}", self.app.id);
        self.enabled = Fact::Open;
        self.note();
        told(world.apps().enable_app(world.as_admin(EnableAppRequest { name }).await).await)?;
        self.enabled = Fact::Good;
        Ok(())
    }

    async fn add_key(&mut self, world: &World) -> Result<(), Unanswered> {
        // A key set stays a short list.
        if self.kids.len() < 4 {
            self.note();
            let added = told(world.signing_keys().add_signing_key(world.as_admin(AddSigningKeyRequest {}).await).await)?;
            self.kids.push(added.signing_key.expect("the key that was added").name);
        }
        Ok(())
    }

    // --- afterwards

    /// Checks the record against the service: all of it, or what is new and a sample of the rest. What was left open is found out.
    pub(crate) async fn check(&mut self, world: &World, all: bool) {
        self.check_app(world).await;
        self.check_keys(world).await;
        let mut kept = Vec::new();
        for mut session in std::mem::take(&mut self.sessions) {
            self.check_session(world, &mut session, all).await;
            // What has ended is asked about again now and then, and at the end.
            if all || session.is == Fact::Good || self.dice.once_in(2) {
                kept.push(session);
            }
        }
        self.sessions = kept;
    }

    async fn check_app(&mut self, world: &World) {
        let reply = world.call(Via::Native, &valid("nobody's").by(self.app.who())).await;
        match self.enabled {
            Fact::Good => assert!(reply.is_ok(), "an app that was enabled is disabled: {}", reply.text),
            Fact::Ended => reply.refused(Case::Caller),
            Fact::Open => {}
        }
        if !reply.is_ok() {
            let name = format!("apps/{}", self.app.id);
            world.apps().enable_app(world.as_admin(EnableAppRequest { name }).await).await.expect("it can be enabled");
        }
        self.enabled = Fact::Good;
    }

    async fn check_keys(&self, world: &World) {
        let request = world.as_admin(ListSigningKeysRequest { page_size: 1000, ..Default::default() }).await;
        let listed = world.signing_keys().list_signing_keys(request).await.expect("the keys").into_inner().signing_keys;
        for kid in &self.kids {
            assert!(listed.iter().any(|key| key.name == *kid), "the signing key {kid} was made and is not there");
        }
    }

    async fn is_good(&self, world: &World, access: &str) -> bool {
        world.call(Via::Native, &valid(access).by(self.app.who())).await.valid()
    }

    async fn check_session(&mut self, world: &World, session: &mut Session, all: bool) {
        let reply = world.call(Via::Native, &authorize(Op::Authorize, &self.app).by(Who::ticket(&session.ticket))).await;
        match session.is {
            Fact::Good => reply.ok(),
            Fact::Ended => {
                reply.refused(Case::Caller);
                &reply.body
            }
            Fact::Open => &reply.body,
        };
        if !reply.is_ok() {
            reply.refused(Case::Caller);
            session.is = Fact::Ended;
            for family in &mut session.families {
                // All or nothing: what hangs on the session is gone with it.
                for access in family.access.iter().rev().take(2) {
                    assert!(!self.is_good(world, access).await, "a token of a session that has ended is good");
                }
                world.call(Via::Native, &refresh(Op::TokenV2, &family.refresh).by(self.app.who())).await.refused(Case::Grant);
                family.is = Fact::Ended;
            }
            for code in &mut session.codes {
                world.call(Via::Native, &exchange(Op::TokenV2, &self.app, &code.value)).await.refused(Case::Grant);
                code.is = Fact::Ended;
            }
            return;
        }
        session.is = Fact::Good;
        session.codes.push(Code { value: reply.text_of("code"), is: Fact::Good, family: None });
        for family in &mut session.families {
            self.check_family(world, family, all).await;
        }
        self.check_codes(world, session, all).await;
    }

    async fn check_family(&mut self, world: &World, family: &mut Family, all: bool) {
        let newest = family.access.last().expect("a family has a token");
        let is_good = self.is_good(world, newest).await;
        match family.is {
            Fact::Good => assert!(is_good, "a token that was given out is not good"),
            Fact::Ended => assert!(!is_good, "a family that was ended lives"),
            Fact::Open => {}
        }
        family.is = if is_good { Fact::Good } else { Fact::Ended };
        if !is_good {
            world.call(Via::Native, &refresh(Op::TokenV2, &family.refresh).by(self.app.who())).await.refused(Case::Grant);
        } else if all || family.refreshing || self.dice.once_in(4) {
            // Whether the refresh that was not answered was done or not, its token gives one successor, and again the same one.
            let call = refresh(Op::TokenV2, &family.refresh).by(self.app.who());
            let first = world.call(Via::Native, &call).await.tokens();
            let second = world.call(Via::Native, &call).await.tokens();
            assert_eq!(first.refresh, second.refresh, "a family has two living heads");
            family.refreshing = false;
            family.took(second);
        }
    }

    /// Every code that was used is used, which ends what it gave; so some are left for later, unless there is none.
    async fn check_codes(&mut self, world: &World, session: &mut Session, all: bool) {
        let mut left = Vec::new();
        for mut code in std::mem::take(&mut session.codes) {
            if !all && code.is != Fact::Open && self.dice.once_in(3) {
                left.push(code);
                continue;
            }
            let reply = world.call(Via::Native, &exchange(Op::TokenV2, &self.app, &code.value)).await;
            match code.is {
                Fact::Good => _ = reply.ok(),
                Fact::Ended => reply.refused(Case::Grant),
                Fact::Open => {}
            }
            if reply.is_ok() {
                code.is = Fact::Ended;
                code.family = Some(session.families.len());
                session.families.push(Family::of(reply.tokens()));
                left.push(code);
            } else if let Some(family) = code.family {
                let family = &mut session.families[family];
                let newest = family.access.last().expect("a family has a token");
                assert!(!self.is_good(world, newest).await, "a code was used twice, and what it gave lives");
                family.is = Fact::Ended;
            }
        }
        session.codes = left;
    }
}

/// Lets all writers work until `ended` says that the service is gone or unable, and gives them back.
pub(crate) async fn work(world: &Arc<World>, writers: Vec<Writer>, ended: impl AsyncFnOnce(mpsc::UnboundedReceiver<()>)) -> Vec<Writer> {
    let (heard, hearing) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for mut writer in writers {
        let (world, heard) = (Arc::clone(world), heard.clone());
        tasks.spawn(async move {
            writer.work(&world, &heard).await;
            writer
        });
    }
    drop(heard);
    ended(hearing).await;
    tasks.join_all().await
}

/// Lets all writers work until they have had so many answers, kills the service, and gives them back.
pub(crate) async fn work_and_kill(world: &Arc<World>, writers: Vec<Writer>, answers: usize) -> Vec<Writer> {
    let process = world.service_id();
    work(world, writers, async move |mut heard| {
        for _ in 0..answers {
            heard.recv().await.expect("an answer");
        }
        kills::kill(process);
    })
    .await
}

/// Checks what all writers were told.
pub(crate) async fn check(world: &Arc<World>, writers: Vec<Writer>, all: bool) -> Vec<Writer> {
    let mut tasks = JoinSet::new();
    for mut writer in writers {
        let world = Arc::clone(world);
        tasks.spawn(async move {
            writer.check(&world, all).await;
            writer
        });
    }
    tasks.join_all().await
}

/// So many writers.
pub(crate) async fn writers(world: &World, number: usize, dice: &mut Dice) -> Vec<Writer> {
    let mut writers = Vec::new();
    for _ in 0..number {
        writers.push(Writer::new(world, dice.another()).await);
    }
    writers
}
