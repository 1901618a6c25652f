//! A hostile sensor: it has the keys and the certificate of one that is enrolled, and sends its chain with batches taken
//! out, put in, exchanged, changed, forked, set back, of epochs that are past. Each is refused for its own reason, none
//! changes what is stored, and the true chain is taken right after.

use std::time::Duration;

use onenet_core::record::RuleId;
use onenet_proto::{
    seal::{ChainHead, Sealer, SigningKey},
    v1::{BatchBody, BatchKind, Flow, SealedBatch},
};
use tonic::{Code, transport::Channel};

use crate::{
    harness::Lab,
    kit::{Case, QUICK, Sensor, found, seed, size},
    oracle,
    wire::{Delivered, as_sensor, connect, deliver, runtime, signing_key},
};

/// Batches of the true chain that a mutation works on.
const BATCHES: usize = 5;
/// What is promised: that nothing more comes is told within this time.
const TOLD: Duration = Duration::from_secs(60);

/// What is done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    /// One is left out.
    Delete,
    /// One more, well signed, stands in between.
    Insert,
    /// Two change places.
    Swap,
    /// One follows another past than the one that is held.
    Fork,
    /// The end comes again, sealed otherwise, behind the whole.
    ForkBehind,
    /// The sensor is set back to an earlier state and seals on from there.
    SetBack,
    /// A batch of an epoch that is past, with other content.
    PastEpoch,
    /// A new epoch that does not begin at its beginning.
    HalfEpoch,
    /// A bit is changed, in header, body or signature.
    Flip,
    /// Signed by another key.
    OtherKey,
    /// In the name of another sensor.
    OtherName,
}

const MUTATIONS: [Mutation; 11] = [
    Mutation::Delete,
    Mutation::Insert,
    Mutation::Swap,
    Mutation::Fork,
    Mutation::ForkBehind,
    Mutation::SetBack,
    Mutation::PastEpoch,
    Mutation::HalfEpoch,
    Mutation::Flip,
    Mutation::OtherKey,
    Mutation::OtherName,
];

impl Mutation {
    /// How the collector refuses it (collector/src/ingest/mod.rs).
    const fn refused_by(self) -> Code {
        match self {
            Self::Delete | Self::Swap | Self::HalfEpoch => Code::OutOfRange,
            Self::Insert | Self::Fork | Self::ForkBehind | Self::SetBack | Self::PastEpoch => {
                Code::FailedPrecondition
            }
            Self::Flip | Self::OtherKey => Code::InvalidArgument,
            Self::OtherName => Code::PermissionDenied,
        }
    }
}

/// The sensor in other hands.
struct Hostile {
    name: String,
    key: Vec<u8>,
    seed: u64,
    /// Where the true chain stands.
    head: ChainHead,
    /// Flows that it has delivered.
    made: u64,
    chance: fastrand::Rng,
}

impl Hostile {
    /// With everything that this sensor has.
    fn of(sensor: &Sensor) -> Self {
        Self {
            name: sensor.edge.sensor.clone(),
            key: signing_key(sensor),
            seed: sensor.seed,
            head: ChainHead { epoch: 7, ..ChainHead::default() },
            made: 0,
            chance: fastrand::Rng::with_seed(seed()),
        }
    }

    fn sealer(&self, head: ChainHead) -> Sealer {
        Sealer::new(SigningKey::from_pkcs8(&self.key).expect("a key"), self.name.clone(), head)
    }

    /// The next batches of the true chain, a flow in each, and the heads before and behind each.
    fn next(&self) -> (Vec<SealedBatch>, Vec<ChainHead>) {
        let mut sealer = self.sealer(self.head);
        let (mut batches, mut heads) = (Vec::new(), vec![self.head]);
        for number in self.made..self.made + BATCHES as u64 {
            batches.push(seal(&mut sealer, self.seed, number));
            heads.push(sealer.head());
        }
        (batches, heads)
    }

    /// A batch behind `head` that the true chain does not have.
    fn foreign(&self, head: ChainHead) -> SealedBatch {
        seal(&mut self.sealer(head), self.seed + 1, self.made)
    }

    /// What is sent in the place of the true batches.
    fn mutated(&mut self, mutation: Mutation) -> Vec<SealedBatch> {
        let (mut batches, heads) = self.next();
        // Something follows it, so that each is seen at once.
        let at = self.chance.usize(0..BATCHES - 1);
        match mutation {
            Mutation::Delete => drop(batches.remove(at)),
            Mutation::Insert => batches.insert(at + 1, self.foreign(heads[at])),
            Mutation::Swap => batches.swap(at, at + 1),
            Mutation::Fork => {
                let mut hash = heads[at].hash;
                hash[self.chance.usize(0..32)] ^= 1;
                batches[at] = self.foreign(ChainHead { hash, ..heads[at] });
            }
            Mutation::ForkBehind => batches.push(self.foreign(heads[at])),
            Mutation::SetBack => {
                let mut sealer = self.sealer(heads[at]);
                batches.extend((0..3).map(|number| seal(&mut sealer, self.seed + 1, number)));
            }
            Mutation::PastEpoch => {
                let epoch = self.head.epoch - 1;
                batches.insert(at, self.foreign(ChainHead { epoch, ..ChainHead::default() }));
            }
            Mutation::HalfEpoch => {
                let epoch = self.head.epoch + 1;
                batches.insert(at, self.foreign(ChainHead { epoch, sequence: 4, ..self.head }));
            }
            Mutation::Flip => {
                let batch = &mut batches[at];
                let part = match self.chance.u8(0..3) {
                    0 => &mut batch.header,
                    1 => &mut batch.body,
                    _ => &mut batch.signature,
                };
                let mut bytes = part.to_vec();
                let byte = self.chance.usize(0..bytes.len());
                bytes[byte] ^= 1 << self.chance.u8(0..8);
                *part = bytes.into();
            }
            Mutation::OtherKey => {
                let (key, _) = SigningKey::generate().expect("a key");
                batches[at] = seal(&mut Sealer::new(key, self.name.clone(), heads[at]), self.seed, self.made);
            }
            Mutation::OtherName => {
                let key = SigningKey::from_pkcs8(&self.key).expect("a key");
                batches[at] =
                    seal(&mut Sealer::new(key, "lowell-1".to_owned(), heads[at]), self.seed, self.made);
            }
        }
        batches
    }

    /// Delivers a mutation, which must be refused, then the truth, which must be taken whole.
    async fn round(&mut self, mutation: Mutation, channel: &Channel) {
        let sent = self.mutated(mutation);
        let Delivered { refusal, .. } = deliver(channel, sent).await;
        let refusal = refusal.unwrap_or_else(|| panic!("{mutation:?} was taken at {:?}", self.head));
        assert_eq!(refusal.code(), mutation.refused_by(), "{mutation:?}: {refusal}");
        let (batches, heads) = self.next();
        let delivered = deliver(channel, batches).await;
        assert!(delivered.refusal.is_none(), "the truth after {mutation:?}: {delivered:?}");
        let last = delivered.acks.last().expect("an ack");
        let behind = heads[BATCHES];
        assert_eq!((last.epoch, last.sequence), (behind.epoch, behind.sequence), "{mutation:?}");
        assert_eq!(&last.hash[..], behind.hash, "{mutation:?}");
        self.head = behind;
        self.made += BATCHES as u64;
    }

    /// What is sent again as it was is acked again and changes nothing.
    async fn again(&self, channel: &Channel, batches: &[SealedBatch]) {
        let delivered = deliver(channel, batches.to_vec()).await;
        assert!(delivered.refusal.is_none(), "{delivered:?}");
        let last = delivered.acks.last().expect("an ack");
        assert_eq!((last.epoch, last.sequence), (self.head.epoch, self.head.sequence));
    }
}

/// Seals the next batch: one flow, and times that depend on its number alone, so that it is always the same.
pub(crate) fn seal(sealer: &mut Sealer, seed: u64, number: u64) -> SealedBatch {
    let flow = Flow::from(&onenet_tests::feed::flow(seed, number));
    let body = BatchBody { flows: vec![flow], ..BatchBody::default() };
    let time = i64::try_from(number).expect("a small number") * 1_000_000;
    sealer.seal(&body, BatchKind::Records, time, time)
}

#[test]
fn a_chain_that_is_changed_in_any_way_is_refused_and_the_true_one_taken_after() {
    let case = Case::begin("hostile sensor", size(110, 10_000));
    let mut lab = Lab::new(None, "");
    lab.start();
    let sensor = Sensor::enrol(&lab, "boston-1", seed(), QUICK, None);
    let mut hostile = Hostile::of(&sensor);
    let runtime = runtime();
    runtime.block_on(async {
        let channel = connect(lab.ingest, as_sensor(&sensor)).await.expect("connected");
        let (first, heads) = hostile.next();
        deliver(&channel, first.clone()).await;
        hostile.head = heads[BATCHES];
        hostile.made = BATCHES as u64;
        for round in 0..case.rounds {
            let mutation = MUTATIONS[usize::try_from(round).expect("a small number") % MUTATIONS.len()];
            hostile.round(mutation, &channel).await;
        }
        hostile.again(&channel, &first).await;
    });
    drop(runtime);
    lab.settle();
    told(&lab);
    lab.collector.as_mut().expect("it runs").stop();
    let account = oracle::settle(&lab, &sensor, hostile.made);
    case.end(&account, "each refused, the true chain taken right after");
}

/// What was refused for what it says is told to an operator, too.
fn told(lab: &Lab) {
    for rule in [RuleId::SensorFork, RuleId::SensorRollback, RuleId::SensorSeal] {
        found(lab, rule);
    }
}

#[test]
fn a_chain_whose_end_is_cut_off_is_told_within_a_minute() {
    let mut case = Case::begin("tail cut off", 1);
    let mut lab = Lab::new(None, "");
    lab.start();
    let sensor = Sensor::enrol(&lab, "boston-1", seed(), QUICK, None);
    let mut hostile = Hostile::of(&sensor);
    let runtime = runtime();
    let channel = runtime.block_on(async {
        let channel = connect(lab.ingest, as_sensor(&sensor)).await.expect("connected");
        let (batches, heads) = hostile.next();
        // The rest of what was sealed never comes, although the connection stays.
        deliver(&channel, batches[..2].to_vec()).await;
        (hostile.head, hostile.made) = (heads[2], 2);
        channel
    });
    case.resumed(found(&lab, RuleId::SensorSilent));
    drop((channel, runtime));
    assert!(case.resume <= TOLD, "it took {:?}", case.resume);
    lab.collector.as_mut().expect("it runs").stop();
    let account = oracle::settle(&lab, &sensor, hostile.made);
    case.end(&account, "from the last batch until the finding");
}
