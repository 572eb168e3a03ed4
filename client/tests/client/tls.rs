//! A client shows its certificate to a server that asks for one, and only one that it signed.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use weft_client::{Client, Error, Options, Secret, Timeouts, Tls};
use weft_proto::v1::{self, cluster_server};

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: SanType, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn client(&self) -> (String, Secret) {
        let name = SanType::URI("spiffe://example.org/writer".try_into().unwrap());
        let (certificate, key) = self.sign(name, ExtendedKeyUsagePurpose::ClientAuth);
        (certificate, Secret::new(key))
    }
}

/// Answers with the number of certificates that the caller has shown.
struct Counter;

#[tonic::async_trait]
impl cluster_server::Cluster for Counter {
    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let shown = request.peer_certs().map_or(0, |shown| shown.len());
        let node_id = u64::try_from(shown).unwrap();
        Ok(Response::new(v1::StatusResponse { node_id, ..v1::StatusResponse::default() }))
    }

    async fn remove_node(
        &self,
        _: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn drain(
        &self,
        _: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn route(
        &self,
        _: Request<v1::RouteRequest>,
    ) -> Result<Response<v1::RouteResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// A server that lets in whom the authority has signed; its address.
#[expect(clippy::disallowed_methods, reason = "it ends with the runtime of the test")]
async fn serve(authority: &Authority) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let name = SanType::IpAddress("127.0.0.1".parse().unwrap());
    let (certificate, key) = authority.sign(name, ExtendedKeyUsagePurpose::ServerAuth);
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(&authority.pem));
    let server = Server::builder()
        .tls_config(tls)
        .unwrap()
        .add_service(cluster_server::ClusterServer::new(Counter))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    address
}

fn client(
    address: &str,
    authority: &Authority,
    identity: Option<(String, Secret)>,
) -> Result<Client, Error> {
    let tls = Tls { ca_pem: authority.pem.clone(), identity_pem: identity, ..Tls::default() };
    // Gives up soon: what is wrong stays wrong.
    let call = std::time::Duration::from_secs(1);
    let timeouts = Timeouts { call, ..Timeouts::default() };
    Client::connect(&Options { tls: Some(tls), timeouts, ..Options::new([address]) })
}

#[tokio::test]
async fn only_a_certificate_that_the_authority_signed_is_let_in() {
    let (authority, other) = (Authority::new(), Authority::new());
    let address = serve(&authority).await;

    let known = client(&address, &authority, Some(authority.client())).unwrap();
    assert_eq!(known.status().await.unwrap().node_id, 1);
    for identity in [None, Some(other.client())] {
        let stranger = client(&address, &authority, identity).unwrap();
        let error = stranger.status().await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }
}

#[tokio::test]
async fn a_key_of_another_certificate_is_found_before_anything_is_sent() {
    let authority = Authority::new();
    let ((certificate, _), (_, key)) = (authority.client(), authority.client());
    let pem = key.expose().to_owned();

    let error = client("https://127.0.0.1:1", &authority, Some((certificate, key))).unwrap_err();

    assert_eq!(error.field(), Some("endpoints"), "{error}");
    assert!(!format!("{error:?}").contains(&pem), "{error}");
}
