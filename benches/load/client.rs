//! Calls, and the connections that they are made over: gRPC by tonic, and HTTP/1.1 with keep-alive. The same for what is measured and
//! for its ceiling: a call is bytes that were prepared beforehand, and so is what is known of its answer.

use std::{net::SocketAddr, path::PathBuf};

use http::{HeaderMap, Method, Request, StatusCode, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use prost::bytes::{Buf as _, BufMut as _, Bytes};
use tokio::net::TcpStream;
use tonic::{
    Code, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};

use crate::Failure;

/// A call, ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// `/package.Service/Method`, or path and query.
    pub(crate) path: PathAndQuery,
    /// Metadata, or headers.
    pub(crate) headers: HeaderMap,
    /// The message, or the body. Over HTTP a call with one is a POST.
    pub(crate) body: Bytes,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// With this message or body.
    Answered(Bytes),
    /// It was turned away, to be made again later.
    Shed,
    /// In any other way.
    Failed(String),
}

/// Where calls go.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// To a gRPC listener.
    Grpc(SocketAddr),
    /// To a gRPC listener on a Unix socket.
    Socket(PathBuf),
    /// To Envoy.
    Http(SocketAddr),
}

/// How many HTTP/2 connections the callers of one place share.
const CONNECTIONS: usize = 4;

/// What one caller makes its calls over.
pub(crate) enum Connection {
    Grpc(Grpc<Channel>),
    Http(SendRequest<Full<Bytes>>),
}

impl Place {
    /// The connections of so many callers: a few for all of them, or with HTTP/1.1 one for each.
    pub(crate) async fn connect(&self, callers: usize) -> Result<Vec<Connection>, Failure> {
        if let Self::Http(address) = self {
            return connect_http(*address, callers).await;
        }
        let shared = self.share(CONNECTIONS.min(callers)).await?;
        Ok(shared.into_iter().cycle().take(callers).map(Connection::Grpc).collect())
    }

    /// HTTP/2 connections, each for any number of callers.
    pub(crate) async fn share(&self, connections: usize) -> Result<Vec<Grpc<Channel>>, Failure> {
        let endpoint = match self {
            Self::Grpc(address) => Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true),
            Self::Socket(path) => Endpoint::from_shared(format!("unix:{}", path.display()))?,
            Self::Http(_) => return Err("HTTP/1.1 connections are not shared".into()),
        };
        let mut shared = Vec::new();
        for _ in 0..connections {
            shared.push(Grpc::new(endpoint.connect().await?));
        }
        Ok(shared)
    }
}

async fn connect_http(address: SocketAddr, callers: usize) -> Result<Vec<Connection>, Failure> {
    let mut connections = Vec::new();
    for _ in 0..callers {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        connections.push(Connection::Http(sender));
    }
    Ok(connections)
}

impl Connection {
    /// Makes a call.
    pub(crate) async fn call(&mut self, call: Call) -> Outcome {
        match self {
            Self::Grpc(grpc) => match call_grpc(grpc, call).await {
                Ok(answer) => Outcome::Answered(answer),
                Err(status) if matches!(status.code(), Code::Unavailable | Code::ResourceExhausted) => Outcome::Shed,
                Err(status) => Outcome::Failed(status.to_string()),
            },
            Self::Http(sender) => match call_http(sender, call).await {
                Ok((StatusCode::OK, answer)) => Outcome::Answered(answer),
                Ok((StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, _)) => Outcome::Shed,
                Ok((status, answer)) => Outcome::Failed(format!("{status}: {}", String::from_utf8_lossy(&answer))),
                Err(error) => Outcome::Failed(error.to_string()),
            },
        }
    }
}

async fn call_grpc(grpc: &mut Grpc<Channel>, call: Call) -> Result<Bytes, Status> {
    grpc.ready().await.map_err(|error| Status::internal(error.to_string()))?;
    let mut request = tonic::Request::new(call.body);
    *request.metadata_mut() = MetadataMap::from_headers(call.headers);
    grpc.unary(request, call.path, Raw).await.map(tonic::Response::into_inner)
}

async fn call_http(sender: &mut SendRequest<Full<Bytes>>, call: Call) -> Result<(StatusCode, Bytes), Failure> {
    sender.ready().await?;
    let method = if call.body.is_empty() { Method::GET } else { Method::POST };
    let mut request = Request::new(Full::new(call.body));
    *request.method_mut() = method;
    *request.uri_mut() = call.path.into();
    *request.headers_mut() = call.headers;
    request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("127.0.0.1"));
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    Ok((status, answer.into_body().collect().await?.to_bytes()))
}

/// Messages as the bytes that they are.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
