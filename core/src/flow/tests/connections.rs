//! Connections as segments, and the state, history and events that they must give.

use super::kit::{CLIENT, Packet, SERVER, run, script};
use crate::{
    flow::{FlowConfig, FlowEvent, Integrity},
    record::{ConnState, DirectionReason, EndReason, FlowRecord},
};

fn records(text: &str) -> Vec<FlowRecord> {
    run(&FlowConfig::default(), &script(text)).records
}

fn one(text: &str) -> FlowRecord {
    let mut records = records(text);
    assert_eq!(records.len(), 1, "{records:#?}");
    records.remove(0)
}

const HANDSHAKE: &str = "> S 100 0\n < SA 300 101\n > A 101 301\n";

#[test]
fn every_state_is_reached_by_the_segments_that_define_it() {
    use ConnState as C;
    let cases = [
        ("an attempt without an answer", "> S 100 0", C::S0, "S"),
        ("an attempt tried again", "> S 100 0\n > S 100 0", C::S0, "S"),
        ("established", &[HANDSHAKE, "> PA 101 301 10"].concat(), C::S1, "ShAD"),
        ("half open", "> S 100 0\n < SA 300 101", C::S1, "Sh"),
        (
            "a clean end",
            &[HANDSHAKE, "> PA 101 301 10\n < A 301 111\n > FA 111 301\n < FA 301 112\n > A 112 302"]
                .concat(),
            C::SF,
            "ShADaFf",
        ),
        ("only the originator closed", &[HANDSHAKE, "> FA 101 301\n < A 301 102"].concat(), C::S2, "ShAFa"),
        ("only the responder closed", &[HANDSHAKE, "< FA 301 101\n > A 101 302"].concat(), C::S3, "ShAf"),
        ("rejected", "> S 100 0\n < RA 0 101", C::Rej, "Sr"),
        ("the originator aborted", &[HANDSHAKE, "> R 101 0"].concat(), C::Rsto, "ShAR"),
        ("the responder aborted", &[HANDSHAKE, "< R 301 0"].concat(), C::Rstr, "ShAr"),
        ("SYN, then RST", "> S 100 0\n > R 101 0", C::Rstos0, "SR"),
        ("SYN, then FIN", "> S 100 0\n > F 101 0", C::Sh, "SF"),
        ("SYN-ACK of the responder, then RST", "> A 101 301\n < SA 300 101\n < R 301 0", C::Rstrh, "Ahr"),
        ("FIN of the responder alone", "> A 101 301\n < FA 301 101", C::Shr, "Af"),
        ("midstream", "> A 101 301 5\n < A 301 106 5", C::Oth, "Dd"),
        ("SYN and FIN in one", "> SF 100 0", C::Sh, "Q"),
        ("FIN and RST in one", &[HANDSHAKE, "> FRA 101 301"].concat(), C::Rsto, "ShAI"),
        ("zero window", &[HANDSHAKE, "< A 301 101 0 w0\n < A 301 101 0 w0"].concat(), C::S1, "ShAaw"),
    ];
    for (name, text, state, history) in cases {
        let record = one(text);
        assert_eq!((record.conn_state, record.history.as_str()), (state, history), "{name}");
    }
}

#[test]
fn flags_repeat_in_the_history_only_with_another_sequence_number() {
    let record = one(&[HANDSHAKE, "> R 101 0\n > R 101 0\n > R 150 0"].concat());
    assert_eq!(record.history, "ShARR");
}

#[test]
fn retransmissions_and_gaps_are_counted_and_written_at_powers_of_ten() {
    let again = "> PA 101 301 10\n".repeat(12);
    let record = one(&[HANDSHAKE, &again].concat());
    assert_eq!((record.history.as_str(), record.originator.retransmissions), ("ShADTT", 11));

    let record = one(&[HANDSHAKE, "> PA 121 301 10\n < A 301 131\n > PA 151 301 5\n < A 301 156"].concat());
    assert_eq!(record.originator.missed_bytes, 40);
    assert_eq!(record.history, "ShADaG");
    assert_eq!(record.responder.missed_bytes, 0);

    let reordered = "> PA 111 301 10\n > PA 101 301 10\n < A 301 121";
    let record = one(&[HANDSHAKE, reordered].concat());
    assert_eq!((record.originator.missed_bytes, record.history.as_str()), (0, "ShADTa"));
}

#[test]
fn round_trips_are_measured_where_they_are_unambiguous() {
    let record = one("> S 100 0\n +39\n < SA 300 101\n +9\n > A 101 301");
    assert_eq!(record.rtt_syn_to_syn_ack, Some(40_000_000));
    assert_eq!(record.rtt_syn_ack_to_ack, Some(10_000_000));
    let record = one("> S 100 0\n > S 100 0\n < SA 300 101\n > A 101 301");
    assert_eq!((record.rtt_syn_to_syn_ack, record.rtt_syn_ack_to_ack), (None, None));
}

#[test]
fn a_syn_with_another_number_begins_another_connection() {
    let end = "> FA 101 301\n < FA 301 102\n > A 102 302\n";
    let records = records(&[HANDSHAKE, end, "+100\n > S 9000 0\n < SA 400 9001"].concat());
    let told: Vec<_> = records.iter().map(|r| (r.history.as_str(), r.end_reason, r.part)).collect();
    assert_eq!(told, [("ShAFf", EndReason::Ended, 0), ("Sh", EndReason::Forced, 0)]);
    assert_ne!(records[0].flow_id, records[1].flow_id);
    assert_eq!(records[0].community_id, records[1].community_id);
}

#[test]
fn an_attempt_times_out_on_its_own_and_what_is_closed_waits_for_late_packets() {
    let config = FlowConfig::default();
    let host = run(&config, &script("> S 100 0\n +4999\n > S 100 0\n"));
    let reasons: Vec<_> = host.records.iter().map(|r| (r.end_reason, r.originator.packets)).collect();
    assert_eq!(reasons, [(EndReason::Idle, 1), (EndReason::Forced, 1)]);
    assert!(host.event_names().contains(&FlowEvent::Unanswered));

    let closed = [HANDSHAKE, "> R 101 0\n +4900\n > R 101 0\n +200\n > A 101 301"].concat();
    let host = run(&config, &script(&closed));
    let reasons: Vec<_> = host.records.iter().map(|r| (r.end_reason, r.originator.packets)).collect();
    assert_eq!(reasons, [(EndReason::Ended, 4), (EndReason::Forced, 1)]);
}

#[test]
fn at_the_end_of_the_capture_a_connection_whose_end_was_seen_has_ended() {
    for (end, expected) in [
        ("", EndReason::Forced),
        ("> FA 101 301", EndReason::Forced),
        ("> FA 101 301\n < A 301 102", EndReason::Forced),
        ("> FA 101 301\n < FA 301 102", EndReason::Ended),
        ("> FA 101 301\n < FA 301 102\n > A 102 302", EndReason::Ended),
        ("< FA 301 101\n > FA 101 302\n < A 302 102", EndReason::Ended),
        ("> R 101 0", EndReason::Ended),
        ("< RA 301 101", EndReason::Ended),
    ] {
        assert_eq!(one(&[HANDSHAKE, end].concat()).end_reason, expected, "{end}");
    }
}

#[test]
fn a_syn_that_comes_after_its_syn_ack_turns_the_flow_round_with_every_counter() {
    // The SYN-ACK is seen first, so its sender is taken as originator until the SYN shows better.
    let record = one("< SA 300 101\n > S 100 0\n > A 101 301 7\n");
    assert_eq!(record.direction_reason, DirectionReason::Repaired);
    assert_eq!(record.originator.ip.to_string(), "10.0.0.1");
    assert_eq!((record.originator.packets, record.responder.packets), (2, 1));
    assert_eq!((record.originator.payload_bytes, record.responder.payload_bytes), (7, 0));
    assert_eq!((record.originator.tcp_flags, record.responder.tcp_flags), (0x12, 0x12));
    assert_eq!(record.history, "Hs^D");
}

#[test]
fn a_reply_from_a_server_port_is_the_responder_from_the_start() {
    let mut packets = script("< A 301 101 9\n > A 101 310");
    for packet in &mut packets {
        for end in [&mut packet.from, &mut packet.to] {
            end.1 = if end.1 == 8_001 { 443 } else { end.1 };
        }
    }
    let host = run(&FlowConfig::default(), &packets);
    let record = &host.records[0];
    assert_eq!(record.direction_reason, DirectionReason::ServerPort);
    assert_eq!((record.originator.packets, record.responder.packets), (1, 1));
    assert_eq!((record.responder.port, record.responder.payload_bytes), (443, 9));
    assert_eq!(record.history, "^dA");

    let dns = |from, to| Packet::udp(5, from, to, 1);
    let (client, server) = (("10.0.0.1", 4000), ("192.0.2.53", 53));
    let histories =
        [vec![dns(server, client)], vec![dns(server, client), dns(client, server)]].map(|packets| {
            let record = run(&FlowConfig::default(), &packets).records.remove(0);
            (record.history, record.conn_state, record.originator.port)
        });
    assert_eq!(histories, [("^d".to_owned(), ConnState::Shr, 4000), ("^dD".to_owned(), ConnState::SF, 4000)]);
}

#[test]
fn events_tell_the_life_of_a_connection_in_order() {
    use FlowEvent::{Answered, Established, Refused, Reported, Started, Unanswered};
    let cases = [
        (HANDSHAKE.to_owned(), vec![Started, Answered, Established, Reported(EndReason::Forced)]),
        ("> S 100 0\n < RA 0 101".to_owned(), vec![Started, Answered, Refused, Reported(EndReason::Ended)]),
        ("> S 100 0\n < SA 300 101".to_owned(), vec![Started, Answered, Reported(EndReason::Forced)]),
        (
            "> S 100 0\n +6000\n < A 1 1".to_owned(),
            vec![Started, Unanswered, Reported(EndReason::Idle), Started, Reported(EndReason::Forced)],
        ),
        (
            "> A 101 301 1\n < A 301 102".to_owned(),
            vec![Started, Answered, Established, Reported(EndReason::Forced)],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(run(&FlowConfig::default(), &script(&text)).event_names(), expected, "{text}");
    }
    let udp = [
        Packet::udp(0, ("10.0.0.1", 1), ("192.0.2.1", 2), 3),
        Packet::udp(1, ("192.0.2.1", 2), ("10.0.0.1", 1), 3),
    ];
    let host = run(&FlowConfig::default(), &udp);
    assert_eq!(host.event_names(), [Started, Answered, Reported(EndReason::Forced)]);
    let (_, context) = &host.events[1];
    assert_eq!((context.originator.packets, context.responder.packets), (1, 1));
}

#[test]
fn packets_with_a_wrong_checksum_are_flagged_or_leave_a_letter_alone() {
    let mut packets = script(&[HANDSHAKE, "> PA 101 301 10\n > PA 101 301 10\n < A 301 111"].concat());
    packets[3].integrity = Integrity::Flawed;
    let flagged = run(&FlowConfig::default(), &packets).records.remove(0);
    assert_eq!((flagged.history.as_str(), flagged.originator.packets), ("ShADTa", 4));
    assert_eq!((flagged.originator.bad_checksums, flagged.originator.retransmissions), (1, 1));

    packets[3].integrity = Integrity::Rejected;
    let rejected = run(&FlowConfig::default(), &packets).records.remove(0);
    assert_eq!((rejected.history.as_str(), rejected.originator.packets), ("ShACDa", 3));
    assert_eq!((rejected.originator.bad_checksums, rejected.originator.retransmissions), (1, 0));
    assert_eq!(rejected.originator.wire_bytes, flagged.originator.wire_bytes - 64);
}

#[test]
fn a_flow_of_rejected_packets_has_letters_and_no_counts() {
    let bad =
        |millis, from, to| Packet { integrity: Integrity::Rejected, ..Packet::udp(millis, from, to, 9) };
    let packets: Vec<Packet> = (0..11).map(|n| bad(n, CLIENT, SERVER)).collect();
    let record = run(&FlowConfig::default(), &packets).records.remove(0);
    assert_eq!((record.history.as_str(), record.conn_state), ("CC", ConnState::Oth));
    let side = &record.originator;
    assert_eq!((side.packets, side.ip_bytes, side.bad_checksums, side.ttl_max), (0, 0, 11, 0));

    let good = |millis, from, to| Packet::udp(millis, from, to, 9);
    let dns = ("192.0.2.80", 53);
    let packets = [bad(0, dns, CLIENT), good(1, dns, CLIENT), bad(2, CLIENT, dns), good(3, CLIENT, dns)];
    let record = run(&FlowConfig::default(), &packets).records.remove(0);
    assert_eq!((record.history.as_str(), record.conn_state), ("^cdCD", ConnState::SF));
}
