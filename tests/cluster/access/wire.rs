//! Calls below every client library: bytes to a path, bytes back.

use std::time::Duration;

use bytes::{Buf, BufMut as _, Bytes};
use futures::StreamExt as _;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

/// A stream that goes on says nothing more for as long.
const QUIET: Duration = Duration::from_millis(300);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `Ok` for a stream that goes on, too.
    pub(crate) code: Code,
    pub(crate) text: String,
    pub(crate) messages: Vec<Bytes>,
    pub(crate) metadata: MetadataMap,
    /// When to come again.
    pub(crate) retry_after: Option<Duration>,
}

impl Answer {
    /// The only message of a call that must succeed.
    pub(crate) fn one<T: Message + Default>(self) -> T {
        assert_eq!(self.code, Code::Ok, "{}", self.text);
        T::decode(self.messages.into_iter().next().unwrap()).unwrap()
    }

    pub(crate) fn contains(&self, text: &str) -> bool {
        let has = |bytes: &[u8]| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        has(self.text.as_bytes()) || self.messages.iter().any(|message| has(message))
    }
}

/// Calls a method with messages, and reads what comes until the end or until nothing comes.
pub(crate) async fn call(
    endpoint: &str,
    key: Option<&str>,
    path: &str,
    messages: Vec<Bytes>,
) -> Answer {
    call_for(endpoint, key, path, messages, QUIET).await
}

/// The same until the end, however long nothing comes.
pub(crate) async fn until_end(endpoint: &str, key: &str, path: &str, message: Bytes) -> Answer {
    call_for(endpoint, Some(key), path, vec![message], Duration::from_mins(5)).await
}

async fn call_for(
    endpoint: &str,
    key: Option<&str>,
    path: &str,
    messages: Vec<Bytes>,
    quiet: Duration,
) -> Answer {
    let channel = Endpoint::from_shared(endpoint.to_owned()).unwrap().connect().await.unwrap();
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    // The caller's side stays open: a stream is one until somebody ends it.
    let requests = futures::stream::iter(messages).chain(futures::stream::pending());
    let is_stream =
        ["PublishStream", "Subscribe"].iter().any(|name| path.ends_with(&format!("/{name}")));
    let path: PathAndQuery = path.parse().unwrap();
    let request = |mut metadata: MetadataMap| {
        if let Some(key) = key {
            metadata.insert("authorization", format!("Bearer {key}").parse().unwrap());
        }
        metadata
    };
    let metadata = request(MetadataMap::new());
    let called = async {
        if is_stream {
            let request = Request::from_parts(metadata, tonic::Extensions::default(), requests);
            grpc.streaming(request, path, Raw).await
        } else {
            let one = requests.take(1);
            let request = Request::from_parts(metadata, tonic::Extensions::default(), one);
            grpc.streaming(request, path, Raw).await
        }
    };
    let failed = |status: Status| Answer {
        code: status.code(),
        text: status.message().to_owned(),
        messages: Vec::new(),
        metadata: status.metadata().clone(),
        retry_after: status.get_error_details().retry_info().and_then(|info| info.retry_delay),
    };
    let response = match called.await {
        Ok(response) => response,
        Err(status) => return failed(status),
    };
    let metadata = response.metadata().clone();
    let mut stream = response.into_inner();
    let mut messages = Vec::new();
    loop {
        match timeout(quiet, stream.message()).await {
            Ok(Ok(Some(message))) => messages.push(message),
            Ok(Ok(None)) | Err(_) => {
                return Answer {
                    code: Code::Ok,
                    text: String::new(),
                    messages,
                    metadata,
                    retry_after: None,
                };
            }
            Ok(Err(status)) => return Answer { messages, ..failed(status) },
        }
    }
}

/// Takes messages as they are.
#[derive(Clone, Copy, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
