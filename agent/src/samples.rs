//! One record of each kind with every field set, for tests of outputs and of the documentation.

use onenet_core::record::{DropStage, FindingChange, FlowRecord, Layer, Ledger, Observation, Reason};
use serde::de::DeserializeOwned;

fn parse<T: DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).expect("the sample is a record")
}

pub(crate) const FLOW: &str = r#"{"flow_id":"000102030405060708090a0b0c0d0e0f","community_id":"1:LQU9qZlK+B5F3KDmev6m5PMibrg=","flow_start":"2026-11-21T08:00:00.123456789Z","start":"2026-11-21T08:00:00.123456789Z","end":"2026-11-21T08:00:02.623457789Z","part":0,"end_reason":"ended","protocol":6,"originator":{"ip":"10.1.2.3","port":49152,"mac":"00:1b:21:3c:4d:5e","packets":6,"wire_bytes":900,"ip_bytes":816,"payload_bytes":500,"tcp_flags":27,"fragments":1,"ttl_min":62,"ttl_max":63,"dscp":10,"retransmissions":2,"missed_bytes":3,"zero_windows":1,"bad_checksums":2,"overlapping_fragments":4,"locality":"inside","segment":"boston-eohhs","secretariat":"eohhs"},"responder":{"ip":"192.0.2.80","port":443,"mac":"00:1b:21:00:00:01","packets":5,"wire_bytes":1900,"ip_bytes":1830,"payload_bytes":1600,"tcp_flags":26,"fragments":0,"ttl_min":55,"ttl_max":55,"dscp":0,"retransmissions":0,"missed_bytes":4,"zero_windows":5,"bad_checksums":0,"overlapping_fragments":0,"locality":"outside","segment":"boston-isp","secretariat":"eotss"},"conn_state":"SF","history":"ShADadFf","direction_reason":"syn","direction":"outbound","site":"boston","interface":"inside0","vlans":[100,7],"mpls_labels":[16,17],"tunnel":{"kind":"vxlan","id":5000},"tunnel_parents":["0000000000000000000000000000003e","ffffffffffffffffffffffffffffffff"],"rtt_syn_to_syn_ack":10000000,"rtt_syn_ack_to_ack":200000,"counting":"exact","sampling":1,"aggregate":{"flows":1,"originators":1,"originator_prefix":32,"responder_prefix":24}}"#;

pub(crate) const OBSERVATION: &str = r#"{"kind":"dhcp4-lease","strength":"strong","address":"10.1.2.3","address_space":"eohhs","secretariat":"eohhs","segment":"boston-eohhs","site":"boston","interface":"inside0","vlans":[100],"mac":"00:1b:21:3c:4d:5e","first_seen":"2026-11-21T08:00:00.000000000Z","last_seen":"2026-11-21T08:00:01.000000000Z","packets":2,"conversations":1,"active_hours":3,"ttl_min":64,"ttl_max":64,"hostname":"=cmd|'x'","lease_seconds":3600,"server":"10.1.0.1","relay":"10.1.2.1","vendor_class":"MSFT 5.0","duid":"000100012a","stack":{"signatures":[{"signature":"4:64:0:1460:64240,7:mss,sok,ts,nop,ws:df,id+:0","segments":3}],"changes":1,"clock":{"hertz":1000,"origin":"2026-11-20T08:00:00.000000000Z"},"timestamp_breaks":2,"ip_id":"counter"},"aggregate":{"prefix_length":16,"addresses":300,"top":[{"address":"10.1.2.3","packets":2}]}}"#;

pub(crate) const FINDING: &str = r#"{"finding_id":"a9993e364706816aba3e25717850c26c","key":"overlap.address|10.1.2.3","rule":"overlap.address","rule_version":1,"change":"raised","revision":0,"time":"2026-11-21T08:00:03.000000000Z","first_seen":"2026-11-21T08:00:00.000000000Z","last_seen":"2026-11-21T08:00:02.000000000Z","severity":"high","confidence":90,"summary":"10.1.2.3 is in use by EOHHS, and by \"MassDOT\"","subject":{"source":"10.1.2.3","target":"192.0.2.80","address":"10.1.2.3","prefix":"10.1.2.0/24","port":443,"protocol":6},"site":"boston","interface":"inside0","address_spaces":["eohhs","massdot"],"secretariats":["eohhs","massdot"],"contacts":["ipam@eohhs.example","net@massdot.example"],"evidence":{"flow_ids":["000102030405060708090a0b0c0d0e0f"],"observations":[{"address_space":"eohhs","site":"boston","segment":"boston-eohhs","kind":"arp-reply","strength":"strong","address":"10.1.2.3","mac":"00:1b:21:3c:4d:5e","first_seen":"2026-11-21T08:00:00.000000000Z","last_seen":"2026-11-21T08:00:01.000000000Z"}],"counts":{"packets":12},"scores":{"score":0.5},"verdict":"two-hosts"}}"#;

pub(crate) fn flow() -> FlowRecord {
    parse(FLOW)
}

pub(crate) fn observation() -> Observation {
    parse(OBSERVATION)
}

pub(crate) fn finding() -> FindingChange {
    parse(FINDING)
}

pub(crate) fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    (ledger.packets, ledger.parsed, ledger.wire_bytes) = (12, 11, 2800);
    ledger.count_unparsed(Layer::Network, Reason::NotIp);
    ledger.set_dropped(DropStage::Mirror, 2);
    ledger
}
