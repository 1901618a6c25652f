//! What the tests share: a collector's directory, a sensor with its keys, and batches to seal.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use onenet_core::{
    net::{MacAddress, Name},
    record::{
        Aggregate, ConnState, Counting, Direction, DirectionReason, EndReason, FlowId, FlowRecord, FlowSide,
        Ledger, Locality, Tunnel, TunnelKind,
    },
    time::Timestamp,
};
use onenet_proto::{
    seal::{self, ChainHead, Sealer, SigningKey},
    v1::{self, BatchBody, BatchKind, SealedBatch},
};
use prost::Message as _;
use tempfile::TempDir;

use crate::{
    ca::{self, Authority},
    clock,
    config::Config,
    enroll, init,
    store::{self, Contents, Incoming, IssuedCertificate, NewToken, Store, StoreConfig},
};

/// A collector's directory as `init` makes it, with free ports.
pub(crate) struct Site {
    pub(crate) config: Config,
    _directory: TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        init::create(directory.path(), &["localhost".to_owned()], any, any).expect("a collector");
        let config = Config::read(&directory.path().join("collector.toml")).expect("its configuration");
        Self { config, _directory: directory }
    }

    pub(crate) fn token(&self, store: &Store, ttl: i64) -> String {
        self.token_for(store, "boston-1", ttl)
    }

    pub(crate) fn token_for(&self, store: &Store, sensor: &str, ttl: i64) -> String {
        let ca = ca::read_certificate(&self.config.server.ca_certificate).expect("the authority");
        enroll::create_token(store, &ca, sensor, "boston", ttl, clock::now()).expect("a token")
    }

    pub(crate) fn authority(&self) -> Authority {
        Authority::load(&self.config.server.ca_certificate, &self.config.server.ca_key)
            .expect("the authority")
    }
}

/// A configuration of a store in a temporary directory.
pub(crate) fn store_config(directory: &TempDir) -> StoreConfig {
    StoreConfig { directory: directory.path().join("data"), ..StoreConfig::default() }
}

/// A sensor's signing key and chain.
pub(crate) struct Sensor {
    pub(crate) name: Name,
    pub(crate) public_key: [u8; 32],
    pub(crate) fingerprint: store::Sha256,
    key: Vec<u8>,
    sealer: Sealer,
    time: i64,
}

impl Sensor {
    pub(crate) fn new(name: &str) -> Self {
        let (key, pkcs8) = SigningKey::generate().expect("a key");
        let public_key = key.public_key().try_into().expect("32 bytes");
        let head = ChainHead { epoch: 1, ..ChainHead::default() };
        let sealer = Sealer::new(key, name.to_owned(), head);
        Self {
            name: name.into(),
            public_key,
            fingerprint: ca::sha256(name.as_bytes()),
            key: pkcs8,
            sealer,
            time: 0,
        }
    }

    /// Enters the sensor into the store as if it had enrolled.
    pub(crate) fn enter(&self, store: &Store) {
        let now = clock::now();
        let token = ca::random().expect("randomness");
        store
            .add_token(&NewToken {
                hash: token,
                sensor: self.name.to_string(),
                site: "boston".to_owned(),
                created_at: now,
                expires_at: now.plus(1_000_000_000),
            })
            .expect("a token");
        let request = store::Enrollment {
            token_hash: token,
            key_hash: self.fingerprint,
            signing_key: self.public_key,
            sensor: String::new(),
            site: String::new(),
            now,
        };
        let certificate = IssuedCertificate { der: vec![1], fingerprint: self.fingerprint, expires: now };
        store.enroll(&request, |_| Ok(certificate)).expect("the store works").expect("the token holds");
    }

    pub(crate) fn head(&self) -> ChainHead {
        self.sealer.head()
    }

    /// Takes over the keys of another, as a clone of the sensor would.
    pub(crate) fn clone_keys(&mut self, other: &Self) {
        (self.key, self.public_key) = (other.key.clone(), other.public_key);
        self.restore(other.head());
    }

    /// Goes back to an earlier head, as a sensor restored from a backup would, or on to a new epoch.
    pub(crate) fn restore(&mut self, head: ChainHead) {
        let key = SigningKey::from_pkcs8(&self.key).expect("the key reads back");
        self.sealer = Sealer::new(key, self.name.to_string(), head);
    }

    /// A sealer with this sensor's key that states another name.
    pub(crate) fn named(&self, name: &str) -> Sealer {
        let key = SigningKey::from_pkcs8(&self.key).expect("the key reads back");
        Sealer::new(key, name.to_owned(), ChainHead { epoch: 1, ..ChainHead::default() })
    }

    pub(crate) fn seal(&mut self, body: &BatchBody) -> SealedBatch {
        self.time += 1_000;
        self.sealer.seal(body, BatchKind::Records, self.time, self.time)
    }

    /// The next batch as it is sealed at these times.
    pub(crate) fn seal_at(
        &mut self,
        body: &BatchBody,
        kind: BatchKind,
        wall_time: i64,
        monotonic_time: i64,
    ) -> SealedBatch {
        self.sealer.seal(body, kind, wall_time, monotonic_time)
    }

    /// The next batch, with so many flows.
    pub(crate) fn batch(&mut self, flows: u32) -> SealedBatch {
        let start = self.sealer.head().sequence.cast_signed() * 1_000_000;
        let flows = (0..flows).map(|index| flow(index, start + i64::from(index)));
        self.seal(&body(&flows.collect::<Vec<_>>()))
    }

    /// A sealed batch whose seal holds and whose body makes no sense.
    pub(crate) fn poison(&mut self) -> SealedBatch {
        self.seal(&BatchBody {
            flows: vec![v1::Flow { flow_id: Bytes::from_static(b"short"), ..v1::Flow::default() }],
            ..BatchBody::default()
        })
    }

    /// A sealed batch whose header states records that its body does not hold. No sealer makes one, so it is
    /// sealed by hand.
    pub(crate) fn miscounted(&self) -> SealedBatch {
        let head = self.sealer.head();
        let header = v1::BatchHeader {
            sensor: self.name.to_string(),
            epoch: head.epoch,
            sequence: head.sequence + 1,
            previous_hash: head.hash.to_vec().into(),
            algorithm: seal::ALGORITHM_ED25519_SHA256,
            records: 9,
            ..v1::BatchHeader::default()
        };
        let header = header.encode_to_vec();
        let key = ring::signature::Ed25519KeyPair::from_pkcs8(&self.key).expect("the key reads back");
        let signature = key.sign(&seal::hash(&header, b""));
        SealedBatch {
            header: header.into(),
            body: Bytes::new(),
            signature: signature.as_ref().to_vec().into(),
        }
    }

    /// The batch as ingest hands it to the writer.
    pub(crate) fn incoming(&self, sealed: &SealedBatch) -> Incoming {
        Incoming {
            sensor: Name::clone(&self.name),
            fingerprint: self.fingerprint,
            verified: seal::verify(sealed, &self.public_key).expect("the seal holds"),
            contents: Contents::check(&sealed.body),
            sealed: sealed.clone(),
        }
    }
}

/// A body with these flows and an account that fits them.
pub(crate) fn body(flows: &[FlowRecord]) -> BatchBody {
    let mut ledger = Ledger::default();
    ledger.packets = flows.len() as u64;
    ledger.parsed = ledger.packets;
    BatchBody {
        flows: flows.iter().map(v1::Flow::from).collect(),
        ledger: Some(v1::Ledger::from(&ledger)),
        ..BatchBody::default()
    }
}

fn side(ip: [u8; 4], port: u16) -> FlowSide {
    FlowSide {
        ip: ip.into(),
        port,
        mac: None,
        packets: 2,
        wire_bytes: 200,
        ip_bytes: 172,
        payload_bytes: 92,
        tcp_flags: 0x12,
        fragments: 0,
        ttl_min: 63,
        ttl_max: 64,
        dscp: 0,
        retransmissions: 0,
        missed_bytes: 0,
        zero_windows: 0,
        bad_checksums: 0,
        overlapping_fragments: 0,
        locality: Locality::Inside,
        segment: None,
        secretariat: None,
    }
}

/// A flow of 10.0.0.`index` that starts at `start`.
pub(crate) fn flow(index: u32, start: i64) -> FlowRecord {
    let [_, _, high, low] = index.to_be_bytes();
    FlowRecord {
        flow_id: FlowId(u128::from(start.cast_unsigned()) << 32 | u128::from(index)),
        community_id: format!("1:{index}"),
        flow_start: Timestamp(start),
        start: Timestamp(start),
        end: Timestamp(start + 500),
        part: 0,
        end_reason: EndReason::Ended,
        protocol: 6,
        originator: side([10, 0, high, low], 40_000),
        responder: side([192, 0, 2, 1], 443),
        conn_state: ConnState::SF,
        history: "ShADadFf".to_owned(),
        direction_reason: DirectionReason::Syn,
        direction: Direction::Outbound,
        site: "boston".into(),
        interface: "eth0".into(),
        vlans: std::iter::empty().collect(),
        mpls_labels: std::iter::empty().collect(),
        tunnel: None,
        tunnel_parents: std::iter::empty().collect(),
        rtt_syn_to_syn_ack: Some(1),
        rtt_syn_ack_to_ack: None,
        counting: Counting::Exact,
        sampling: 1,
        aggregate: None,
    }
}

/// A flow in which every field is set.
pub(crate) fn full_flow(start: i64) -> FlowRecord {
    let mut flow = flow(7, start);
    flow.sampling = 16;
    flow.originator = FlowSide {
        ip: "fd00::1".parse().expect("an address"),
        mac: Some(MacAddress([1, 2, 3, 4, 5, 6])),
        tcp_flags: 0x1ff,
        fragments: 3,
        dscp: 46,
        retransmissions: 4,
        missed_bytes: 5,
        zero_windows: 6,
        bad_checksums: 7,
        overlapping_fragments: 8,
        segment: Some("boston-eohhs".into()),
        secretariat: Some("eohhs".into()),
        ..flow.originator
    };
    flow.responder.packets = i64::MAX.cast_unsigned();
    flow.responder.locality = Locality::Outside;
    flow.vlans = [100, 4094].into_iter().collect();
    flow.mpls_labels = [16, 0xf_ffff].into_iter().collect();
    flow.tunnel = Some(Tunnel { kind: TunnelKind::Vxlan, id: Some(0xff_ffff) });
    flow.tunnel_parents = [FlowId(1), FlowId(u128::MAX)].into_iter().collect();
    flow.rtt_syn_ack_to_ack = Some(2);
    flow.aggregate =
        Some(Aggregate { flows: 3, originators: 2, originator_prefix: 64, responder_prefix: 128 });
    flow.part = 9;
    flow
}

/// The configuration of a TLS client that trusts the authority, with a certificate where one is given.
pub(crate) fn client_tls(
    authority: &Authority,
    identity: Option<(Vec<u8>, &rcgen::KeyPair)>,
) -> Arc<rustls::ClientConfig> {
    use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate().clone()).expect("a root");
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots);
    let mut config = match identity {
        Some((certificate, key)) => {
            let key = PrivatePkcs8KeyDer::from(key.serialize_der());
            builder
                .with_client_auth_cert(vec![CertificateDer::from(certificate)], key.into())
                .expect("they fit")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}
