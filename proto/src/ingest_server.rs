//! The service `logmesh.v1.Ingest` for gateways: what tonic would generate, but for a codec that keeps the bytes of each
//! batch as they came.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{Body as HttpBody, BoxFuture, Service, StdError, http, tokio_stream::Stream},
    server::{Grpc, NamedService, StreamingService},
};

use crate::{ClientFrame, frame::FrameCodec, v1};

/// What a gateway implements.
#[tonic::async_trait]
pub trait Ingest: Send + Sync + 'static {
    /// Frames that the gateway sends.
    type StreamStream: Stream<Item = Result<v1::ServerFrame, Status>> + Send + 'static;

    /// Serves one session.
    async fn stream(&self, request: Request<Streaming<ClientFrame>>) -> Result<Response<Self::StreamStream>, Status>;
}

/// Serves an [`Ingest`] under its published name.
#[derive(Debug)]
pub struct IngestServer<T> {
    inner: Arc<T>,
    frame_bytes_max: usize,
}

impl<T> Clone for IngestServer<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), frame_bytes_max: self.frame_bytes_max }
    }
}

impl<T: Ingest> IngestServer<T> {
    /// Wraps an implementation. A frame of more than `frame_bytes_max` encoded bytes ends its session with OUT_OF_RANGE
    /// before memory is taken for it.
    pub fn new(inner: T, frame_bytes_max: usize) -> Self {
        Self { inner: Arc::new(inner), frame_bytes_max }
    }
}

struct StreamMethod<T>(Arc<T>);

impl<T: Ingest> StreamingService<ClientFrame> for StreamMethod<T> {
    type Response = v1::ServerFrame;
    type ResponseStream = T::StreamStream;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<ClientFrame>>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.stream(request).await })
    }
}

impl<T: Ingest, B> Service<http::Request<B>> for IngestServer<T>
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != "/logmesh.v1.Ingest/Stream" {
            let detail = format!("logmesh.v1.Ingest has no method {}", request.uri().path());
            return Box::pin(async move { Ok(Status::unimplemented(detail).into_http()) });
        }
        let method = StreamMethod(Arc::clone(&self.inner));
        let mut grpc = Grpc::new(FrameCodec).max_decoding_message_size(self.frame_bytes_max);
        Box::pin(async move { Ok(grpc.streaming(method, request).await) })
    }
}

impl<T> NamedService for IngestServer<T> {
    const NAME: &'static str = "logmesh.v1.Ingest";
}
