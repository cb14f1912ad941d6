//! What a newcomer pastes works: the walk, and the examples. And what others wrote to check health understands us.

use std::process::{Command, Output};

use crate::harness::{World, tools};

fn run(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.current_dir(tools::root()).output().expect("it runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?} ended with {status}:\n{stdout}\n{stderr}");
    stdout
}

/// Runs a program away from the threads that the harness needs.
async fn run_beside(command: Command) -> String {
    tokio::task::spawn_blocking(|| run(command)).await.expect("it does not panic")
}

#[tokio::test]
async fn the_walk_that_make_run_prints_works_when_it_is_pasted() {
    let world = World::shared().await;
    let mut walk = Command::new("bash");
    walk.args(["-c", "scripts/walk | bash -e"])
        .env("HTTP_PORT", world.http().port().to_string())
        .env("SUPOS_AUTH", env!("CARGO_BIN_EXE_supos-auth"));
    let said = run_beside(walk).await;
    assert!(said.contains("\"valid\":true") && said.contains("\"valid\":false"), "{said}");
}

#[tokio::test]
async fn health_checkers_that_others_wrote_understand_us() {
    let world = World::shared().await;
    let script = "
import sys, grpc
from grpc_health.v1 import health_pb2 as pb, health_pb2_grpc
stub = health_pb2_grpc.HealthStub(grpc.insecure_channel(sys.argv[1]))
SERVING = pb.HealthCheckResponse.SERVING
for service in ['', 'supos.auth.v1.AuthService', 'supos.auth.v2.AuthService', 'supos.auth.v281.AuthService',
                'supos.auth.admin.v1.AppService', 'supos.auth.admin.v1.UserService',
                'supos.auth.admin.v1.SessionService', 'supos.auth.admin.v1.SigningKeyService']:
    assert stub.Check(pb.HealthCheckRequest(service=service), timeout=10).status == SERVING, service
watch = stub.Watch(pb.HealthCheckRequest(service=''), timeout=10)
assert next(watch).status == SERVING
watch.cancel()
try:
    stub.Check(pb.HealthCheckRequest(service='no.such.Service'), timeout=10)
    raise SystemExit('an unknown service has no status')
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.NOT_FOUND, error
";
    let mut check = Command::new(tools::python());
    check.args(["-c", script, &world.grpc().to_string()]);
    run_beside(check).await;
}
