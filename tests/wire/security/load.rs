//! Many at once: what cannot be done is said to be so, and nobody makes the service do work for which he does not wait.

use std::{fs, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::harness::{Call, Op, Reply, Setup, Status, User, Via, World, native};

fn sign_in(user: &User) -> Call {
    Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password)
}

/// The most memory that the service has had at once, in MiB.
fn peak_memory(world: &World) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", world.service_id())).expect("the service runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
    peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d8_sign_ins_beyond_what_can_be_done_are_told_when_to_come_back() {
    let world = Arc::new(World::own(Setup::default()).await);
    let user = world.user().await;
    let mut callers = JoinSet::new();
    let many = 40 + 80 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for caller in 0..many {
        let (world, call) = (Arc::clone(&world), sign_in(&user));
        callers.spawn(async move { world.call(Via::BOTH[caller % 2], &call).await });
    }
    let (done, refused): (Vec<_>, Vec<_>) = callers.join_all().await.into_iter().partition(Reply::is_ok);
    // On a slow machine some are told that it took too long.
    let (late, refused): (Vec<_>, Vec<_>) = refused.into_iter().partition(|reply| reply.body["code"] == 100_106_504);
    assert!(!done.is_empty() && !refused.is_empty(), "{} were done, {} refused, {} late", done.len(), refused.len(), late.len());
    for reply in refused {
        assert_eq!(reply.body["code"], 100_106_503, "{}", reply.text);
        match reply.status {
            Status::Http(status) => {
                assert_eq!(status, 503);
                assert!(reply.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0)));
            }
            Status::Grpc(code) => {
                assert_eq!(code, tonic::Code::Unavailable);
                assert!(reply.body["retryAfter"].as_u64().is_some_and(|seconds| seconds > 0), "{}", reply.text);
            }
        }
    }
    world.call(Via::Envoy, &sign_in(&user)).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d8_sign_ins_that_nobody_waits_for_cost_no_more_than_those_that_somebody_does() {
    let world = World::own(Setup::default()).await;
    let user = world.user().await;
    let before = peak_memory(&world);
    for _ in 0..60 {
        // They come, leave before they can have been answered, and take their connection with them.
        let connection = world.connection();
        let mut callers = JoinSet::new();
        for _ in 0..8 {
            let (connection, call) = (connection.clone(), sign_in(&user));
            callers.spawn(async move { tokio::time::timeout(Duration::from_millis(10), native::call(connection, &call)).await });
        }
        callers.join_all().await;
    }
    world.call(Via::Native, &sign_in(&user)).await.ok();
    // Each takes 19 MiB while it is hashed, and an allocator keeps some of that. All of them at once would be 9 GiB.
    let grown = peak_memory(&world) - before;
    assert!(grown < 512, "the service has grown by {grown} MiB");
}
