//! Limits that every listener has, so that one client cannot take all there is.

use crate::harness::{
    World,
    raw::{self, Listener, h2},
};

fn listeners(world: &World) -> [(&'static str, Listener); 3] {
    [("Envoy", Listener::Tcp(world.http())), ("grpc", Listener::Tcp(world.grpc())), ("edge", Listener::Unix(world.edge()))]
}

fn request(path: &str) -> Vec<u8> {
    h2::fields(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ])
}

fn is_going_away(bytes: &[u8]) -> bool {
    h2::frames(bytes).iter().any(|frame| frame.kind == h2::GOAWAY)
}

/// Whether a fresh connection is served: it gets its settings and its ping back.
fn serves(listener: &Listener) -> bool {
    let hello = [h2::PREFACE.to_vec(), h2::frame(h2::PING, 0, 0, b"are here")].concat();
    answered_ping(&raw::exchange(listener, &hello, answered_ping).0)
}

fn answered_ping(bytes: &[u8]) -> bool {
    h2::frames(bytes).iter().any(|frame| frame.kind == h2::PING && frame.flags == 1)
}

#[tokio::test]
async fn h29_every_listener_says_how_many_streams_it_takes() {
    let world = World::shared().await;
    for (name, listener) in listeners(&world) {
        let has_settings = |bytes: &[u8]| h2::frames(bytes).iter().any(|frame| frame.kind == h2::SETTINGS && frame.flags == 0);
        let answer = raw::exchange(&listener, h2::PREFACE, has_settings);
        let frames = h2::frames(&answer.0);
        let streams = h2::setting(&frames, 3);
        assert!(streams.is_some_and(|streams| (1..=256).contains(&streams)), "{name}: {streams:?}");
        if name != "Envoy" {
            let header_list = h2::setting(&frames, 6);
            assert!(header_list.is_some_and(|bytes| bytes <= 128 * 1024), "{name}: {header_list:?}");
        }
    }
}

#[tokio::test]
async fn h29_headers_beyond_the_limit_are_refused_by_every_listener() {
    let world = World::shared().await;
    let long = "x".repeat(200 * 1024);
    for (name, listener) in listeners(&world) {
        let block = [request("/supos.auth.v2.AuthService/GetJwks"), h2::fields(&[("x-long", &long)])].concat();
        let mut pieces = block.chunks(16_000);
        let mut bytes = h2::PREFACE.to_vec();
        bytes.extend(h2::frame(h2::HEADERS, 0, 1, pieces.next().expect("a first piece")));
        bytes.extend(pieces.flat_map(|piece| h2::frame(h2::CONTINUATION, 0, 1, piece)));
        bytes.extend(h2::frame(h2::CONTINUATION, h2::END_HEADERS, 1, b""));
        bytes.extend(h2::frame(h2::DATA, h2::END_STREAM, 1, b"\0\0\0\0\0"));
        let ended = |bytes: &[u8]| {
            is_going_away(bytes)
                || h2::frames(bytes)
                    .iter()
                    .any(|frame| frame.stream == 1 && (frame.kind == h2::RST_STREAM || frame.flags & h2::END_STREAM != 0))
        };
        let answer = raw::exchange(&listener, &bytes, ended);
        let frames = h2::frames(&answer.0);
        assert!(!frames.iter().any(|frame| frame.kind == h2::DATA && frame.payload.len() > 5), "{name} answered: {frames:?}");
        assert!(serves(&listener), "{name}");
    }
    for listener in [Listener::Tcp(world.ops()), Listener::Tcp(world.http())] {
        let bytes = format!("GET /oauth2/jwks HTTP/1.1\r\nhost: x\r\nx-long: {long}{long}{long}{long}{long}\r\n\r\n");
        let answer = raw::exchange(&listener, bytes.as_bytes(), |bytes| bytes.starts_with(b"HTTP/1.1 4"));
        assert!(matches!(answer.status(), None | Some(400 | 431)), "{}", answer.text());
    }
}

#[tokio::test]
async fn h29_rapid_reset_closes_the_connection() {
    let world = World::shared().await;
    for (name, listener) in listeners(&world) {
        let mut bytes = h2::PREFACE.to_vec();
        let block = request("/supos.auth.v2.AuthService/GetJwks");
        for stream in (1..4000).step_by(2) {
            bytes.extend(h2::frame(h2::HEADERS, h2::END_HEADERS, stream, &block));
            bytes.extend(h2::frame(h2::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
        bytes.extend(h2::frame(h2::PING, 0, 0, b"are here"));
        let answer = raw::exchange(&listener, &bytes, |bytes| is_going_away(bytes) || answered_ping(bytes));
        // Some say why they close the connection, some just do.
        assert!(!answered_ping(&answer.0), "{name}: 2000 streams were opened and reset, and the connection goes on");
        assert!(serves(&listener), "{name} serves everybody else");
    }
}

#[tokio::test]
async fn h29_a_header_block_that_never_ends_closes_the_connection() {
    let world = World::shared().await;
    for (name, listener) in listeners(&world) {
        let mut bytes = h2::PREFACE.to_vec();
        bytes.extend(h2::frame(h2::HEADERS, 0, 1, &request("/supos.auth.v2.AuthService/GetJwks")));
        let piece = h2::fields(&[("x-more", &"y".repeat(15_000))]);
        for _ in 0..400 {
            bytes.extend(h2::frame(h2::CONTINUATION, 0, 1, &piece));
        }
        bytes.extend(h2::frame(h2::PING, 0, 0, b"are here"));
        let answer = raw::exchange(&listener, &bytes, |bytes| is_going_away(bytes) || answered_ping(bytes));
        assert!(!answered_ping(&answer.0), "{name}: 6 MB of headers were taken");
        assert!(serves(&listener), "{name}");
    }
}

#[tokio::test]
async fn h29_a_message_beyond_the_limit_is_refused() {
    use crate::harness::{Call, Op, Status, Via};
    let world = World::shared().await;
    let long = "x".repeat(5 * 1024 * 1024);
    let reply = world.call(Via::Native, &Call::new(Op::SignIn).with("userName", "demo").with("password", long)).await;
    let refused =
        matches!(reply.status, Status::Grpc(tonic::Code::OutOfRange | tonic::Code::ResourceExhausted | tonic::Code::InvalidArgument));
    assert!(refused, "{:?}", reply.status);
}
