//! The store itself fails: the disk is full, gives errors, or does not answer.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use supos_auth::{
    grpc::pb::supos::auth::admin::v1::{TakeBackupRequest, TakeBackupResponse, backup_service_client::BackupServiceClient},
    store::sled::SledStore,
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    dice::{Dice, rounds},
    harness::{
        App, Call, Case, Op, Setup, Via, Who, World, authorize, exchange,
        process::{Log, PATIENCE, Process},
        sink::{Manner, Sink},
        valid,
    },
    kills, power, record,
    shim::Shim,
};

/// A world whose files can be made to fail.
async fn breakable(more: &[(&str, &str)]) -> (World, Shim, TempDir) {
    let folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    let root = folder.path().join("files");
    fs::create_dir(&root).expect("a folder");
    let shim = Shim::new(&root, folder.path());
    let setup = Setup { data: Some(root.join("data")), environment: shim.environment(), ..kills::setup() };
    let setup = more.iter().fold(setup, |setup, (name, value)| setup.argument(name, value));
    (World::own(setup).await, shim, folder)
}

/// What the service says of its health from now on, once it has said that it is well.
async fn health(world: &World) -> tonic::Streaming<tonic_health::pb::HealthCheckResponse> {
    let mut client = HealthClient::new(world.channel.clone());
    let mut said = client.watch(HealthCheckRequest { service: String::new() }).await.expect("health is served").into_inner();
    let first = said.message().await.expect("an answer").expect("a status");
    assert_eq!(first.status(), ServingStatus::Serving);
    said
}

/// What a client sees of a store that fails: nothing is answered from then on, health says so, and the process ends by itself with words
/// for the operator. What was answered before holds after the next start, when the fault is gone.
async fn what_was_answered_holds(fault: &str) {
    let mut dice = Dice::new();
    let (world, shim, _folder) = breakable(&[]).await;
    let world = Arc::new(world);
    let (_, ticket) = world.signed_in().await;
    let mark = world.service_log.mark();
    let writers = record::writers(&world, 4, &mut dice).await;
    let mut said = health(&world).await;
    let mut broken = None;
    let writers = record::work(&world, writers, async |mut heard| {
        for _ in 0..60 {
            heard.recv().await.expect("an answer");
        }
        shim.breaks(fault);
        broken = Some(Instant::now());
        // Of what is begun from now on nothing may be answered.
        let reply = world.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await;
        assert!(reply.body["code"].is_null() || reply.body["code"] == 100_106_503, "{fault}: {}", reply.text);
        record::answered(reply).expect_err("it was answered");
        let next = said.message().await.expect("health is served to the end").expect("a status");
        assert_eq!(next.status(), ServingStatus::NotServing, "{fault}");
    })
    .await;
    let mut world = Arc::into_inner(world).expect("the writers are done");
    let status = world.ended();
    println!("{fault}: ended after {} ms", broken.expect("it was broken").elapsed().as_millis());
    assert_eq!(status.code(), Some(1), "{fault}");
    let log = world.service_log.since(mark).join("\n");
    assert!(log.contains("the store takes no more writes") && log.contains("Make room"), "{fault}: {log}");
    shim.mends();
    world.restart(|_| ());
    record::check(&Arc::new(world), writers, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h21_c5_nothing_is_answered_once_a_write_has_failed() {
    what_was_answered_holds("write EIO").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h21_c5_nothing_is_answered_once_a_flush_has_failed() {
    what_was_answered_holds("range EIO").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h21_c5_nothing_is_answered_once_a_sync_has_failed() {
    // The kernel says it to everybody who has the file open, once: to sled, and to us.
    what_was_answered_holds("fsync,fdatasync EIO").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h21_c5_nothing_is_answered_once_a_flush_was_interrupted() {
    what_was_answered_holds("range EINTR").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h21_c4_nothing_is_answered_once_nothing_more_can_be_written() {
    what_was_answered_holds("write,truncate ENOSPC").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h20_c6_a_disk_that_does_not_answer_ends_the_service() {
    what_was_answered_holds("fdatasync HANG").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h20_c6_a_disk_that_takes_no_writes_ends_the_service() {
    what_was_answered_holds("write,range,fsync,fdatasync DELAY 10").await;
}

/// sled lets nobody read who comes after a writer that waits, and a writer waits for whoever flushes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h20_c6_whoever_only_asks_does_not_wait_for_the_disk_with_those_who_change_something() {
    let (mut world, shim, _folder) = breakable(&[]).await;
    let (_, _, _, tokens) = world.family().await;
    let mut tickets = Vec::new();
    for _ in 0..8 {
        tickets.push(world.signed_in().await.1);
    }
    world.terminate();
    world.restart(|_| ());
    let world = Arc::new(world);
    let mut said = health(&world).await;
    shim.breaks("write,range,fsync,fdatasync DELAY 10");
    let mut sign_outs = JoinSet::new();
    let asked = async {
        for (number, ticket) in tickets.into_iter().enumerate() {
            // The first of them is on its way to the disk while the next ones look for what they have to end.
            let other = Arc::clone(&world);
            sign_outs.spawn(async move { other.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await });
            for asked in 0..4 {
                // Nobody has seen it, so the store has to be asked.
                let unknown = format!("{number}{asked}{}", "A".repeat(41));
                assert!(!world.call(Via::Native, &valid(&unknown).by(Who::bearer(&tokens.access))).await.valid());
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("they were answered");
    let next = said.message().await.expect("health is served to the end").expect("a status");
    assert_eq!(next.status(), ServingStatus::NotServing);
    for reply in sign_outs.join_all().await {
        record::answered(reply).expect_err("it was answered");
    }
    assert_eq!(Arc::into_inner(world).expect("they are done").ended().code(), Some(1));
}

/// Nothing is written to answer this but that the signature was used: were it answered before that is on disk, a crash would let whoever has
/// read the call make it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_question_is_not_answered_before_its_signature_is_used_up_on_disk() {
    for fault in ["fdatasync EIO", "fdatasync HANG"] {
        let (mut world, shim, _folder) = breakable(&[]).await;
        let (app, _, _, tokens) = world.family().await;
        let question = valid(&tokens.access).by(app.who());
        assert!(world.call(Via::Native, &question).await.valid());
        shim.breaks(fault);
        let reply = world.call(Via::Native, &question).await;
        record::answered(reply).expect_err("it was answered");
        assert_eq!(world.ended().code(), Some(1), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_app_is_told_of_a_sign_out_that_is_not_on_disk() {
    let (mut world, shim, _folder) = breakable(&[]).await;
    let sink = Sink::start(Manner::Status(200, None));
    let uri = sink.url("/logout");
    let app = world.app_with(|app| app.logout_uris = vec![uri.clone()]).await;
    let app = App { logout: uri, ..app };
    let (_, ticket) = world.signed_in().await;
    world.tokens(&app, &ticket).await;
    shim.breaks("fdatasync HANG");
    let reply = world.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await;
    record::answered(reply).expect_err("it was answered");
    assert_eq!(world.ended().code(), Some(1));
    assert_eq!(sink.connections(), 0, "it was told");
    shim.mends();
    // The kill left what was written, so it has happened now.
    world.restart(|_| ());
    world.call(Via::Native, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.refused(Case::Caller);
    assert!(sink.next().await.target.ends_with("/logout"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h20_c6_a_service_that_is_told_to_stop_while_its_store_moves_on_a_slow_disk_goes_on_to_the_next_start_with_everything() {
    let mut dice = Dice::new();
    let (mut world, shim, folder) = breakable(&[]).await;
    let data = folder.path().join("files/data");
    let (app, _, _, tokens) = world.family().await;
    for _ in 0..rounds(2) {
        world.terminate();
        power::fill_with_what_is_gone(&data).await;
        shim.breaks("fsync DELAY 1");
        world.restart(|_| ());
        let begun = Instant::now();
        while !data.join("store.next").exists() {
            assert!(begun.elapsed() < PATIENCE, "the store does not move");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The old files are removed a second or two later.
        tokio::time::sleep(Duration::from_micros(dice.roll(2_500_000))).await;
        world.terminate();
        shim.mends();
        world.restart(|_| ());
        assert!(world.call(Via::Native, &valid(&tokens.access).by(app.who())).await.valid());
    }
}

/// sled takes what it cannot read for the end of its log, and overwrites what comes after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_a_start_that_cannot_read_the_log_says_so_and_destroys_nothing() {
    const CALLERS: usize = 16;
    const SEGMENT: u64 = 512 * 1024;
    let (world, shim, _folder) = breakable(&[]).await;
    let (app, _, ticket, _) = world.family().await;
    let world = Arc::new(world);
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (world, app, ticket) = (Arc::clone(&world), app.clone(), ticket.clone());
        callers.spawn(async move {
            let mut codes = Vec::new();
            for _ in 0..150 {
                codes.push(world.code(&app, Who::ticket(&ticket)).await);
            }
            codes
        });
    }
    let codes = callers.join_all().await;
    let mut world = Arc::into_inner(world).expect("the callers are done");
    world.kill();
    let length = fs::metadata(world.data().join("store/db")).expect("the log").len();
    let segments = length.div_ceil(SEGMENT);
    println!("{segments} segments");
    assert!(segments >= 4, "{length} bytes");
    for segment in 0..segments {
        for fault in [format!("header{segment} EIO"), format!("body{segment} EIO")] {
            shim.breaks(&fault);
            let log = world.try_to_restart_with(|_| (), |_| ()).expect_err(&fault);
            assert!(log.contains("cannot read") && log.contains("see to the disk"), "{fault}: {log}");
            shim.mends();
        }
    }
    world.restart(|_| ());
    for code in codes.iter().filter_map(|codes| codes.last()) {
        world.call(Via::Native, &exchange(Op::TokenV2, &app, code)).await.tokens();
    }
}

async fn work_goes_on(faults: &[&str], answers: usize) {
    let mut dice = Dice::new();
    let (world, shim, _folder) = breakable(&[]).await;
    let mut world = Arc::new(world);
    let mut writers = record::writers(&world, 8, &mut dice).await;
    for fault in faults {
        println!("{fault}");
        shim.breaks(fault);
        writers = record::work_and_kill(&world, writers, answers).await;
        let mut own = Arc::into_inner(world).expect("the writers are done");
        shim.mends();
        own.restart(crate::harness::Pair::kill);
        world = Arc::new(own);
        writers = record::check(&world, writers, true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_a_write_that_is_cut_short_or_interrupted_is_finished() {
    work_goes_on(&["write SHORT", "write,fdatasync EINTR"], 60).await;
}

/// Eight callers wait for each other here, longer in all than the watchdog waits for one write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h20_a_disk_that_is_slow_is_not_one_that_hangs() {
    work_goes_on(&["fdatasync DELAY 1"], 40).await;
}

/// A small file system of its own, which goes with the process that holds it.
struct SmallDisk {
    holder: Process,
    folder: TempDir,
}

impl SmallDisk {
    /// One of 16 MiB. None where this machine does not let one be made.
    fn new() -> Option<Self> {
        Self::of_size("16m")
    }

    fn of_size(size: &str) -> Option<Self> {
        let folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
        let script = format!("mount -t tmpfs -o size={size} none '{}' && echo mounted && exec sleep infinity", folder.path().display());
        let log = Log::default();
        let arguments = ["--mount", "sh", "-c", &script].map(Into::into).into();
        let holder = Process::start("unshare".as_ref(), folder.path(), arguments, &[], &log);
        let mounted = log.wait_for(0, |line| (line == "mounted").then_some(()));
        if mounted.is_none() {
            println!("no file system of its own for this test: {}", log.since(0).join("\n"));
        }
        mounted.map(|()| Self { holder, folder })
    }

    /// The path of a file on it, for this process.
    fn at(&self, name: &str) -> PathBuf {
        let inside = self.folder.path().strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(inside).join(name)
    }

    fn setup(&self) -> Setup {
        let under = vec!["nsenter".into(), format!("--mount=/proc/{}/ns/mnt", self.holder.id()).into()];
        Setup { data: Some(self.folder.path().join("data")), under, ..kills::setup() }
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.at("filler")).expect("a file");
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    }

    /// The path of a file on it, for a process that has it, too.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a command of the program says that fails, and has the disk.
    fn refuses(&self, environment: &[(&str, &str)], arguments: &[PathBuf]) -> String {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg(env!("CARGO_BIN_EXE_supos-auth")).args(arguments);
        command.envs(environment.iter().copied());
        let output = command.output().expect("nsenter can be run");
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The names on it that have this in them.
    fn names_with(&self, part: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at("")).expect("a folder").flatten();
        entries.map(|entry| entry.file_name().into_string().expect("a name")).filter(|name| name.contains(part)).collect()
    }

    fn make_room(&self) {
        fs::remove_file(self.at("filler")).expect("the file that fills it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h21_c4_a_disk_that_is_full_ends_the_service_and_room_brings_it_back() {
    // The same without a file system of its own: h21_c4_nothing_is_answered_once_nothing_more_can_be_written.
    let Some(disk) = SmallDisk::new() else { return };
    let mut dice = Dice::new();
    let world = Arc::new(World::own(disk.setup()).await);
    let mark = world.service_log.mark();
    let writers = record::writers(&world, 4, &mut dice).await;
    let mut said = health(&world).await;
    let writers = record::work(&world, writers, async |mut heard| {
        for _ in 0..60 {
            heard.recv().await.expect("an answer");
        }
        disk.fill();
        let next = said.message().await.expect("an answer").expect("a status");
        assert_eq!(next.status(), ServingStatus::NotServing);
    })
    .await;
    let mut world = Arc::into_inner(world).expect("the writers are done");
    assert_eq!(world.ended().code(), Some(1));
    let log = world.service_log.since(mark).join("\n");
    assert!(log.contains("No space left") && log.contains("Make room"), "{log}");

    let again = world.try_to_restart_with(|_| (), |_| ());
    assert!(again.as_ref().is_err_and(|log| log.contains("No space left") && log.contains("Make room")), "a full disk: {again:?}");
    disk.make_room();
    world.restart(|_| ());
    record::check(&Arc::new(world), writers, true).await;
}

/// The bytes of the backup that a stream ends with; none: it ends with an error.
async fn received(mut backup: tonic::Streaming<TakeBackupResponse>, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    loop {
        match backup.message().await {
            Ok(Some(piece)) => bytes.extend(piece.chunk),
            Ok(None) => return Some(bytes),
            Err(_) => return None,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_a_disk_that_fills_up_while_a_backup_is_taken_loses_nothing_and_no_half_backup_is_taken_for_a_whole_one() {
    let Some(disk) = SmallDisk::new() else { return };
    let mut dice = Dice::new();
    let world = Arc::new(World::own(disk.setup()).await);
    let take = async |world: &World| {
        let request = world.as_admin(TakeBackupRequest {}).await;
        BackupServiceClient::new(world.channel.clone()).take_backup(request).await.expect("a backup is taken").into_inner()
    };
    let is_whole = |bytes: &[u8]| supos_auth::backup::check(bytes, |_, _| ()).is_ok();
    let writers = record::writers(&world, 4, &mut dice).await;
    let mut begun = None;
    let writers = record::work(&world, writers, async |mut heard| {
        for _ in 0..200 {
            heard.recv().await.expect("an answer");
        }
        let mut backup = take(&world).await;
        let first = backup.message().await.expect("a piece").expect("a piece");
        disk.fill();
        begun = Some((backup, first.chunk));
        while heard.recv().await.is_some() {}
    })
    .await;
    let (backup, first) = begun.expect("it was begun");
    // All of it may have been on its way by then.
    let taken = received(backup, first).await;
    assert!(taken.is_none_or(|bytes| is_whole(&bytes)), "half a backup");
    let mut world = Arc::into_inner(world).expect("the writers are done");
    assert_eq!(world.ended().code(), Some(1));

    // Nor does one that is to be on the full disk leave anything there.
    let said = disk.refuses(&[], &["backup".into(), disk.path("backup.jsonl"), "--data-dir".into(), disk.path("data")]);
    assert!(said.contains("Make room"), "{said}");
    assert_eq!(disk.names_with("backup"), [""; 0]);

    disk.make_room();
    world.restart(|_| ());
    let taken = received(take(&world).await, Vec::new()).await.expect("a backup");
    assert!(is_whole(&taken));
    record::check(&Arc::new(world), writers, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_a_backup_leaves_the_service_that_is_on_the_same_disk_its_room() {
    let Some(disk) = SmallDisk::of_size("24m") else { return };
    let world = World::own(disk.setup()).await;
    let signed_in = Call::new(Op::SignIn).with("userName", "admin").with("password", "admin-password");
    let ticket = world.call(Via::Native, &signed_in).await.text_of("ticket");
    fs::write(disk.at("filler"), vec![0; 9 << 20]).expect("there is room for it");
    let arguments = ["backup".into(), disk.path("backup.jsonl"), "--server".into(), format!("http://{}", world.grpc()).into()];
    let said = disk.refuses(&[("SUPOS_AUTH_TICKET", &ticket)], &arguments);
    assert!(said.contains("16.0 MiB of room, which a service there needs") && said.contains("Make room"), "{said}");
    assert_eq!(disk.names_with("backup"), [""; 0]);
    world.signed_in().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_a_restore_onto_a_full_disk_says_what_to_do_and_leaves_nothing() {
    let Some(disk) = SmallDisk::new() else { return };
    let mut world = World::own(kills::setup()).await;
    world.terminate();
    power::put_codes(&SledStore::open(&world.data()).expect("a store"), 1).await;
    let own = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    let backup = own.path().join("backup");
    let arguments = ["backup".into(), backup.clone(), "--data-dir".into(), world.data()];
    let taken = Command::new(env!("CARGO_BIN_EXE_supos-auth")).args(arguments).output().expect("it runs");
    assert!(taken.status.success(), "{taken:?}");
    fs::copy(&backup, disk.at("backup")).expect("there is room for it");
    disk.fill();
    let full = fs::metadata(disk.at("filler")).expect("it is there").len();
    // At the beginning, and in the middle.
    let mut begun = 0;
    for room in [0, 256, 512, 1024, 1536] {
        fs::OpenOptions::new().write(true).open(disk.at("filler")).and_then(|file| file.set_len(full - room * 1024)).expect("made smaller");
        let said = disk.refuses(&[], &["restore".into(), disk.path("backup"), "--data-dir".into(), disk.path("data")]);
        assert!(said.contains("No space left on device") && said.to_lowercase().contains("make room"), "{room}: {said}");
        assert!(!said.contains("Os {") && !said.contains("store: store:"), "{room}: {said}");
        assert!(!disk.at("data").join("store").exists());
        begun += usize::from(said.contains("Nothing is left of it"));
    }
    assert!(begun > 0, "none failed once it was begun");
}
