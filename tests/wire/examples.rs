//! The examples do what they show.

use std::process::Command;

use crate::harness::{World, tools};

#[expect(dead_code, reason = "its `main` finds the service by itself")]
#[path = "../../examples/rust_client.rs"]
mod rust_client;

#[tokio::test]
async fn the_rust_client_walks() {
    rust_client::walk(World::shared().await.channel.clone()).await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn the_python_client_walks() {
    let world = World::shared().await;
    let client = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python/client.py");
    let output = Command::new(tools::python()).arg(client).arg(world.grpc().to_string()).output().expect("there is a Python");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.ends_with("done\n"), "{printed}{}", String::from_utf8_lossy(&output.stderr));
}
