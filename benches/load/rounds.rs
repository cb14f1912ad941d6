//! The main run: each operation next to its ceiling, in several rounds.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    thread,
    time::Duration,
};

use supos_auth::core::secret::Secret;
use tokio::time::sleep;

use crate::{
    Failure,
    client::{Call, Place},
    closed::{self, Background, Measured, Window},
    machine::Progress,
    perf::Perf,
    population::{Population, USERS},
    scripts::{self, Codes, Families},
    stage::{self, Ceiling, Envoy, Service},
};

/// How many callers an operation has unless it says so.
const CALLERS: usize = 32;
/// How many callers it has where many are meant.
const MANY: usize = 128;
/// How many tokens are asked about in turn.
const TOKENS: usize = 10_000;
/// How many calls a second are made ready of those that work once: more than can be made.
const ONCE_A_SECOND: f64 = 15_000.0;
/// How many users may wait to have their password checked, for each core (src/core/password.rs).
const QUEUE_PER_CORE: usize = 64;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    EmptyNothingSent,
    Empty,
    EmptyOfMany,
    EmptyOnSocket,
    EmptyThroughEnvoy,
    EmptyThroughBareEnvoy,
    HashAlone,
    Valid,
    ValidByService,
    ValidNeverSeen,
    Nonsense,
    ValidWithoutLog,
    ValidWhileSignIns,
    ValidSigned,
    ValidOnEdge,
    ValidOnEdgeSigned,
    ValidThroughEnvoy,
    Refresh,
    RefreshOfMany,
    RefreshThroughEnvoy,
    Authorize,
    Exchange,
    Flow,
    SignIn,
}

impl What {
    /// Each operation with its ceiling, which is sent what the operation is sent. Exchange takes the codes that authorize has made.
    pub(crate) const PAIRS: [(Self, Self); 19] = [
        (Self::Empty, Self::EmptyNothingSent),
        (Self::Valid, Self::Empty),
        (Self::ValidByService, Self::Empty),
        (Self::ValidNeverSeen, Self::Empty),
        (Self::Nonsense, Self::Empty),
        (Self::ValidWithoutLog, Self::Empty),
        (Self::ValidSigned, Self::Empty),
        (Self::Refresh, Self::Empty),
        (Self::RefreshOfMany, Self::EmptyOfMany),
        (Self::Authorize, Self::Empty),
        (Self::Exchange, Self::Empty),
        (Self::Flow, Self::Empty),
        (Self::ValidOnEdge, Self::EmptyOnSocket),
        (Self::ValidOnEdgeSigned, Self::ValidOnEdge),
        (Self::SignIn, Self::HashAlone),
        (Self::ValidWhileSignIns, Self::Valid),
        (Self::ValidThroughEnvoy, Self::EmptyThroughEnvoy),
        (Self::RefreshThroughEnvoy, Self::EmptyThroughEnvoy),
        (Self::EmptyThroughEnvoy, Self::EmptyThroughBareEnvoy),
    ];

    /// What people call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::EmptyNothingSent => "empty method, nothing sent",
            Self::Empty | Self::EmptyOfMany => "empty method",
            Self::EmptyOnSocket => "empty method, Unix socket",
            Self::EmptyThroughEnvoy => "empty method, through Envoy",
            Self::EmptyThroughBareEnvoy => "empty method, through transcoder and router alone",
            Self::HashAlone => "Argon2id alone",
            Self::Valid => "validity, seen before",
            Self::ValidByService => "validity, seen before, a service asks",
            Self::ValidNeverSeen => "validity, never seen",
            Self::Nonsense => "validity of nonsense",
            Self::ValidWithoutLog => "validity, seen before, no request log",
            Self::ValidWhileSignIns => "validity, seen before, sign-ins queued",
            Self::ValidSigned => "validity, signed with date and nonce (durable)",
            Self::ValidOnEdge => "validity, edge socket, by bearer",
            Self::ValidOnEdgeSigned => "validity, edge socket, signed without date",
            Self::ValidThroughEnvoy => "validity, through Envoy",
            Self::Refresh | Self::RefreshOfMany => "refresh (durable)",
            Self::RefreshThroughEnvoy => "refresh, through Envoy (durable)",
            Self::Authorize => "authorize (durable)",
            Self::Exchange => "exchange of a code (durable)",
            Self::Flow => "code flow: authorize and exchange in turn (durable)",
            Self::SignIn => "sign in (durable)",
        }
    }

    /// How long it is measured: where there are few calls a second, longer.
    fn window(self, usual: Window) -> Window {
        let measured = if self == Self::SignIn { usual.measured * 3 } else { usual.measured / self.turns() };
        Window { measured, ..usual }
    }

    /// In how many turns it and its ceiling are measured in a round: what is wanted of Sign is a small difference of two large figures,
    /// which the machine changes from one second to the next.
    fn turns(self) -> u32 {
        if self == Self::ValidOnEdgeSigned { 4 } else { 1 }
    }

    /// How many callers it has.
    pub(crate) fn callers(self) -> usize {
        match self {
            Self::EmptyOfMany | Self::RefreshOfMany => MANY,
            Self::HashAlone => cores(),
            Self::SignIn => 4 * cores(),
            _ => CALLERS,
        }
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// An operation and its ceiling, as often as they were measured.
pub(crate) struct Pair {
    pub(crate) what: What,
    pub(crate) ceiling: What,
    pub(crate) rounds: Vec<Round>,
}

/// One measurement of both.
pub(crate) struct Round {
    pub(crate) measured: Measured,
    pub(crate) ceiling: Measured,
}

/// What the service takes without any load.
#[derive(Clone, Debug)]
pub(crate) struct AtRest {
    /// How long it took to be ready on an empty store, in seconds; the median of several starts.
    pub(crate) ready_after: f64,
    /// Bytes of memory on an empty store.
    pub(crate) memory: u64,
    /// Bytes of the program.
    pub(crate) program: u64,
}

/// All that is running.
struct Stage<'a> {
    population: &'a Population,
    folder: PathBuf,
    service: Service,
    without_log: Service,
    ceiling: Ceiling,
    before_service: Envoy,
    before_ceiling: Envoy,
    bare: Envoy,
    calls: Calls,
    codes: Codes,
    families: Families,
}

/// The calls that can be made again and again.
struct Calls {
    empty: Arc<[Call]>,
    valid: Arc<[Call]>,
    by_service: Arc<[Call]>,
    nonsense: Arc<[Call]>,
    on_edge: Arc<[Call]>,
    on_edge_signed: Arc<[Call]>,
    through_envoy: Arc<[Call]>,
    authorize: Arc<[Call]>,
    sign_in: Arc<[Call]>,
}

fn each<T>(from: &[T], call: impl Fn(&T) -> Result<Call, Failure>) -> Result<Arc<[Call]>, Failure> {
    from.iter().map(call).collect()
}

/// Random texts, and in turn with them tokens whose signature somebody has made up.
fn nonsense(tokens: &[String]) -> Result<Arc<[Call]>, Failure> {
    let call = |(at, token): (usize, &String)| {
        let random = Secret::random()?;
        let (signed, _) = token.rsplit_once('.').unwrap_or_default();
        let shown = if at % 2 == 0 { random.expose().to_owned() } else { format!("{signed}.{0}{0}", random.expose()) };
        scripts::valid(&shown, &shown)
    };
    tokens.iter().enumerate().map(call).collect()
}

impl Calls {
    fn new(population: &Population) -> Result<Self, Failure> {
        let sessions = population.some(TOKENS);
        let tokens = population.access_tokens(&sessions)?;
        let inspector = population.access_tokens(&[population.inspector()])?.concat();
        let users: Vec<usize> = (0..USERS).collect();
        Ok(Self {
            empty: [scripts::empty()].into(),
            valid: each(&tokens, |token| scripts::valid(token, token))?,
            by_service: each(&tokens, |token| scripts::valid(&inspector, token))?,
            nonsense: nonsense(&tokens)?,
            on_edge: each(&tokens, |token| scripts::valid_on_edge_by_bearer(token))?,
            on_edge_signed: each(&tokens, |token| scripts::valid_on_edge_signed(token))?,
            through_envoy: each(&tokens, |token| scripts::valid_http(token))?,
            authorize: each(&sessions, |&session| scripts::authorize(session))?,
            sign_in: each(&users, |&user| Ok(scripts::sign_in(user)))?,
        })
    }
}

impl<'a> Stage<'a> {
    async fn set(server: &Path, folder: &Path, population: &'a Population, progress: &Progress) -> Result<Self, Failure> {
        progress.show("starting the processes");
        population.copy_to(&folder.join("data"))?;
        let service = Service::start(server, folder, &population.master_key_file(), &[]).await?;
        let beside = folder.join("no-log");
        std::fs::create_dir_all(&beside)?;
        population.copy_to(&beside.join("data"))?;
        // The listeners still say where they listen.
        let quiet = ["--log", "warn,supos_auth::app::listeners=info"];
        let without_log = Service::start(server, &beside, &population.master_key_file(), &quiet).await?;
        let ceiling = Ceiling::start(folder).await?;
        let before_service = Envoy::before_service(folder, &service).await?;
        let before_ceiling = Envoy::before_ceiling(folder, &ceiling).await?;
        let bare = Envoy::bare(folder, &ceiling).await?;
        progress.show("making tokens");
        let calls = Calls::new(population)?;
        // The last sessions: those that are asked about come from everywhere.
        let sessions: Vec<usize> = (population.sessions - 2 * MANY..population.sessions).collect();
        let families = Families::new(scripts::families(population, &sessions)?.into());
        let codes = Codes::default();
        let folder = folder.to_owned();
        Ok(Self { population, folder, service, without_log, ceiling, before_service, before_ceiling, bare, calls, codes, families })
    }

    /// Asks once about each token, so that all have been seen.
    async fn see_tokens(&self) -> Result<(), Failure> {
        let long = Window { warm: Duration::ZERO, measured: Duration::from_mins(5) };
        for service in [&self.service, &self.without_log] {
            let calls = self.calls.valid.to_vec();
            closed::run(&Place::Grpc(service.grpc), scripts::once(calls, CALLERS, scripts::says_valid), long, &[]).await?;
        }
        Ok(())
    }

    /// New tokens of sessions from everywhere, as many as are asked about in the time, at the most.
    fn new_tokens(&self, window: Window) -> Result<Vec<String>, Failure> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some ten thousand")]
        let number = ((window.warm + window.measured).as_secs_f64() * ONCE_A_SECOND) as usize;
        let sessions: Vec<usize> = self.population.some(number).into_iter().cycle().take(number).collect();
        self.population.access_tokens(&sessions)
    }

    /// What an operation sends, for its ceiling to be sent the same.
    fn sent_by(&self, what: What) -> Result<Arc<[Call]>, Failure> {
        let calls = &self.calls;
        Ok(match what {
            What::ValidByService => Arc::clone(&calls.by_service),
            What::Nonsense => Arc::clone(&calls.nonsense),
            What::ValidOnEdge => Arc::clone(&calls.on_edge),
            What::Authorize | What::Flow => Arc::clone(&calls.authorize),
            What::ValidSigned => each(&self.population.access_tokens(&self.population.some(MANY))?, |token| scripts::valid_signed(token))?,
            What::Exchange => each(&[(); MANY], |()| scripts::exchange(Secret::random()?.expose()))?,
            What::Refresh | What::RefreshOfMany => scripts::refreshes(&self.families, false)?.into(),
            What::RefreshThroughEnvoy => scripts::refreshes(&self.families, true)?.into(),
            What::ValidThroughEnvoy | What::EmptyThroughEnvoy => Arc::clone(&calls.through_envoy),
            _ => Arc::clone(&calls.valid),
        })
    }

    /// Measures `what`, as an operation or as the ceiling `of` one.
    async fn measure(&self, what: What, of: What, window: Window) -> Result<Measured, Failure> {
        let Calls { empty, valid, by_service, nonsense, on_edge, on_edge_signed, through_envoy, authorize, sign_in } = &self.calls;
        let (callers, service, ceiling) = (what.callers(), self.service.id(), self.ceiling.id());
        let native = Place::Grpc(self.service.grpc);
        let edge = Place::Socket(self.service.edge.clone());
        let (place, script, watched) = match what {
            What::EmptyNothingSent => (Place::Grpc(self.ceiling.grpc), scripts::again(empty, callers, scripts::is_empty), vec![ceiling]),
            What::Empty | What::EmptyOfMany | What::EmptyOnSocket => {
                let sent = scripts::empty_like(&self.sent_by(of)?);
                let place =
                    if what == What::EmptyOnSocket { Place::Socket(self.ceiling.socket.clone()) } else { Place::Grpc(self.ceiling.grpc) };
                (place, scripts::again(&sent, callers, scripts::is_empty), vec![ceiling])
            }
            What::EmptyThroughEnvoy | What::EmptyThroughBareEnvoy => {
                let envoy = if what == What::EmptyThroughEnvoy { &self.before_ceiling } else { &self.bare };
                let sent = self.sent_by(of)?;
                (Place::Http(envoy.http), scripts::again(&sent, callers, scripts::is_anything), vec![ceiling, envoy.id()])
            }
            What::HashAlone => return self.hash_alone(window).await,
            What::Valid => (native, scripts::again(valid, callers, scripts::says_valid), vec![service]),
            What::ValidByService => (native, scripts::again(by_service, callers, scripts::says_valid), vec![service]),
            What::ValidNeverSeen => {
                let calls = self.new_tokens(window)?.iter().map(|token| scripts::valid(token, token)).collect::<Result<_, _>>()?;
                (native, scripts::once(calls, callers, scripts::says_valid), vec![service])
            }
            What::Nonsense => (native, scripts::again(nonsense, callers, scripts::is_empty), vec![service]),
            What::ValidWithoutLog => {
                let place = Place::Grpc(self.without_log.grpc);
                (place, scripts::again(valid, callers, scripts::says_valid), vec![self.without_log.id()])
            }
            What::ValidWhileSignIns => return self.valid_while_sign_ins(window).await,
            What::ValidSigned => {
                let calls = self.new_tokens(window)?.iter().map(|token| scripts::valid_signed(token)).collect::<Result<_, _>>()?;
                (native, scripts::once(calls, callers, scripts::says_valid), vec![service])
            }
            What::ValidOnEdge => (edge, scripts::again(on_edge, callers, scripts::says_valid), vec![service]),
            What::ValidOnEdgeSigned => (edge, scripts::again(on_edge_signed, callers, scripts::says_valid), vec![service]),
            What::ValidThroughEnvoy => {
                let place = Place::Http(self.before_service.http);
                (place, scripts::again(through_envoy, callers, scripts::says_valid_http), vec![service, self.before_service.id()])
            }
            What::Refresh | What::RefreshOfMany => (native, scripts::refreshing(&self.families, callers, false), vec![service]),
            What::RefreshThroughEnvoy => {
                let place = Place::Http(self.before_service.http);
                (place, scripts::refreshing(&self.families, callers, true), vec![service, self.before_service.id()])
            }
            What::Authorize => (native, scripts::authorizing(authorize, callers, &self.codes), vec![service]),
            What::Exchange => {
                let codes = std::mem::take(&mut *self.codes.lock().unwrap_or_else(PoisonError::into_inner));
                let calls = codes.iter().map(|code| scripts::exchange(code)).collect::<Result<_, _>>()?;
                (native, scripts::once(calls, callers, scripts::is_anything), vec![service])
            }
            What::Flow => (native, scripts::flowing(authorize, callers), vec![service]),
            What::SignIn => (native, scripts::again(sign_in, callers, scripts::is_anything), vec![service]),
        };
        let measured = closed::run(&place, script, window, &watched).await.map_err(|error| format!("{}: {error}", what.name()))?;
        if measured.calls == 0 { Err(format!("{}: no call was answered", what.name()).into()) } else { Ok(measured) }
    }

    async fn hash_alone(&self, window: Window) -> Result<Measured, Failure> {
        let hashed = stage::hash_alone(&self.folder, window.measured).await?;
        let latencies = closed::histogram();
        Ok(Measured { calls: hashed.checks, shed: 0, seconds: hashed.seconds, latencies, cpu: vec![0.0], own_cpu: 0.0, memory: 0 })
    }

    /// As many sign-ins wait all the while as may.
    async fn valid_while_sign_ins(&self, window: Window) -> Result<Measured, Failure> {
        let native = Place::Grpc(self.service.grpc);
        let sign_ins = scripts::again(&self.calls.sign_in, cores() * QUEUE_PER_CORE, scripts::is_anything);
        let background = Background::start(&native, sign_ins).await?;
        // Until they have all arrived.
        sleep(Duration::from_millis(300)).await;
        let script = scripts::again(&self.calls.valid, CALLERS, scripts::says_valid);
        let measured = closed::run(&native, script, window, &[self.service.id()]).await;
        background.stop().await;
        measured
    }
}

/// What the main run has found.
pub(crate) struct Found {
    pub(crate) pairs: Vec<Pair>,
    pub(crate) at_rest: AtRest,
    /// Bytes of memory of the service with all its sessions, before and after all rounds.
    pub(crate) memory: (u64, u64),
}

/// Measures everything, in so many rounds.
pub(crate) async fn run(
    server: &Path,
    folder: &Path,
    population: &Population,
    (rounds, window): (u32, Window),
    only: Option<&str>,
    profiles: Option<&Path>,
    progress: &Progress,
) -> Result<Found, Failure> {
    let at_rest = at_rest(server, &folder.join("empty"), population, progress).await?;
    let stage = Stage::set(server, folder, population, progress).await?;
    let before = crate::child::memory(stage.service.id());
    progress.show("asking about each token once");
    stage.see_tokens().await?;
    let named = |what: What| only.is_none_or(|only| what.name().contains(only));
    let wanted = |what: What| named(what) || (what == What::Authorize && named(What::Exchange));
    let mut pairs: Vec<Pair> = What::PAIRS
        .into_iter()
        .filter(|&(what, _)| wanted(what))
        .map(|(what, ceiling)| Pair { what, ceiling, rounds: Vec::new() })
        .collect();
    for round in 0..rounds {
        for pair in &mut pairs {
            progress.show(&format!("round {} of {rounds}: {}", round + 1, pair.what.name()));
            for turn in 0..pair.what.turns() {
                let window = pair.what.window(window);
                let operation = async || {
                    let name = format!("{}, {} callers", pair.what.name(), pair.what.callers());
                    let profiles = profiles.filter(|_| round == 0 && turn == 0);
                    let perf = profiles.map(|folder| Perf::start(stage.service.id(), folder, &name)).transpose()?;
                    let measured = stage.measure(pair.what, pair.what, window).await;
                    if let Some(perf) = perf {
                        perf.stop().await?;
                    }
                    measured
                };
                let ceiling = async || stage.measure(pair.ceiling, pair.what, window).await;
                // Whichever comes first has it harder or easier, so they take turns.
                let (measured, ceiling) = if (round + turn).is_multiple_of(2) {
                    let ceiling = ceiling().await?;
                    (operation().await?, ceiling)
                } else {
                    (operation().await?, ceiling().await?)
                };
                pair.rounds.push(Round { measured, ceiling });
            }
        }
    }
    let memory = (before, crate::child::memory(stage.service.id()));
    stage.service.terminate().await?;
    Ok(Found { pairs, at_rest, memory })
}

/// How often the service is started on an empty store.
const STARTS: usize = 5;
/// How long after a start its memory is looked at.
const SETTLED: Duration = Duration::from_secs(4);

async fn at_rest(server: &Path, folder: &Path, population: &Population, progress: &Progress) -> Result<AtRest, Failure> {
    let mut took = Vec::new();
    let mut memory = 0;
    for start in 0..STARTS {
        progress.show(&format!("starting on an empty store, {} of {STARTS}", start + 1));
        std::fs::create_dir_all(folder)?;
        let service = Service::start(server, folder, &population.master_key_file(), &[]).await?;
        took.push(service.ready_after.as_secs_f64());
        if start + 1 == STARTS {
            // Until what was taken for the start has been given back.
            sleep(SETTLED).await;
            memory = crate::child::memory(service.id());
        }
        service.terminate().await?;
        std::fs::remove_dir_all(folder)?;
    }
    took.sort_by(f64::total_cmp);
    Ok(AtRest { ready_after: took[STARTS / 2], memory, program: std::fs::metadata(server)?.len() })
}
