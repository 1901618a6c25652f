//! What happens when something is full, or there is too much of it: every packet is still in exactly one account.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use onenet_ebpf::{Counters, Hook, HookChoice, Kind, Options, Rates, TestContext};
use onenet_tests::craft::{ACK, Ip, SYN, Tcp, arp, frame};

use crate::kit::{Whole, counters, drained, meter, options, run};

fn udp(flow: u16) -> Vec<u8> {
    let [high, low] = flow.to_be_bytes();
    frame(
        1,
        2,
        &[],
        &Ip::v4([10, 1, high, low], [192, 0, 2, 7], 17).udp_packet(1000, 2000, b"12345678901234567890"),
    )
}

fn closed(all: &Counters) {
    assert_eq!(all.seen_packets(), all.accounted_packets(), "{all:?}");
}

#[test]
fn a_flood_does_not_starve_arp() {
    const RATE: u32 = 1000;
    let rates = Rates::default().with(Kind::Control, RATE).with(Kind::First, RATE);
    let Some(mut meter) = meter(&Options { rates, ..options() }) else { return };
    let start = Instant::now();
    let tcp = Tcp { source: 1, destination: 2, flags: SYN, window: 9, ..Tcp::default() };
    let flood = frame(1, 2, &[], &Ip::v4([10, 0, 0, 1], [10, 0, 0, 2], 6).tcp_packet(&tcp));
    meter.test_run(Hook::Ingress, &flood, TestContext::default(), 300_000).unwrap();
    let arps =
        [arp(1, (1, [10, 0, 0, 1]), (0, [10, 0, 0, 2])), arp(2, (2, [10, 0, 0, 2]), (1, [10, 0, 0, 1]))];
    arps.iter().for_each(|frame| assert!(run(&meter, Hook::Ingress, frame)));
    let mut kinds = BTreeMap::new();
    meter.punts(&mut |punt| *kinds.entry(punt.kind).or_insert(0_u64) += 1);
    assert_eq!(kinds[&Kind::Arp], 2, "{kinds:?}");
    let all = counters(&meter);
    closed(&all);
    // On each CPU the rate of a second at once, and what came by while the flood ran.
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    let most = (start.elapsed().as_secs() + 2) * u64::from(RATE) * cpus;
    let control = all.punted(Kind::Control).packets;
    assert!((1..=most).contains(&control), "{control} of {most}");
    assert_eq!(all.counted + all.punted_packets(), 300_002);
    assert!(all.refused(Kind::Control) + all.ring_full >= all.counted, "{all:?}");
    let counted: u64 = drained(&mut meter).values().map(|sum| sum.packets).sum();
    assert_eq!(counted, all.counted);
}

#[test]
fn a_kind_without_a_rate_is_only_counted() {
    let rates = Rates::default().with(Kind::Control, 0).with(Kind::First, 0);
    let Some(meter) = meter(&Options { rates, ..options() }) else { return };
    let tcp = Tcp { source: 1, destination: 2, flags: SYN, window: 9, ..Tcp::default() };
    assert!(run(&meter, Hook::Ingress, &frame(1, 2, &[], &Ip::v6(1, 2, 6).tcp_packet(&tcp))));
    let all = counters(&meter);
    assert_eq!((all.counted, all.punted_packets(), all.refused(Kind::Control)), (1, 0, 0));
}

#[test]
fn a_full_map_punts_and_then_loses_exactly() {
    for (rate, most_punted) in [(0, 0), (50, 200)] {
        let rates = Rates::NONE.with(Kind::Overflow, rate);
        let Some(mut meter) = meter(&Options { rates, max_flows: 64, ..options() }) else { return };
        for flow in 0..1000 {
            assert!(run(&meter, Hook::Ingress, &udp(flow)));
        }
        // Flows that have their place go on.
        assert!(run(&meter, Hook::Ingress, &udp(3)));
        let all = counters(&meter);
        closed(&all);
        let punted = all.punted(Kind::Overflow).packets;
        assert_eq!((all.counted, all.inserts, all.map_full), (65, [64, 0], 936));
        assert!(punted <= most_punted && (punted > 0) == (rate > 0), "{punted}");
        assert_eq!(all.lost.packets, 936 - punted);
        assert_eq!(all.lost.bytes, all.lost.packets * udp(0).len() as u64);
        let fill = meter.fill().unwrap();
        assert_eq!((fill.entries, fill.limits[0], fill.percent()), ([64, 0], 64, 100));
        let mut told = 0;
        meter.punts(&mut |punt| {
            told += 1;
            assert_eq!(punt.data, &udp(u16::from_be_bytes([punt.data[28], punt.data[29]]))[..]);
        });
        assert_eq!(told, punted);
        assert_eq!(drained(&mut meter).len(), 64);
        assert_eq!(meter.fill().unwrap().percent(), 0, "there is room again");
        assert!(run(&meter, Hook::Ingress, &udp(999)));
        assert_eq!(drained(&mut meter).len(), 1);
    }
}

#[test]
fn a_full_ring_loses_no_packet() {
    let rates = Rates::NONE.with(Kind::Icmp, 1_000_000_000);
    let Some(mut meter) = meter(&Options { rates, ring_kib: 64, ..options() }) else { return };
    let echo = frame(1, 2, &[], &Ip::v4([10, 0, 0, 1], [10, 0, 0, 2], 1).icmp_packet(8, 0, [0; 4], b"data"));
    meter.test_run(Hook::Ingress, &echo, TestContext::default(), 5000).unwrap();
    let all = counters(&meter);
    closed(&all);
    let told = meter.punts(&mut |_| {}) as u64;
    assert_eq!(
        (all.punted(Kind::Icmp).packets, told),
        (told, 511),
        "64 KiB of 128 bytes, less one that keeps head and tail apart"
    );
    assert_eq!((all.counted, all.ring_full), (5000 - told, 5000 - told));
}

#[test]
fn a_sample_has_whole_flows_and_accounts_for_what_it_leaves_out() {
    let Some(mut meter) = meter(&Options { sample: 10, rates: Rates::NONE, ..options() }) else { return };
    let (one, other) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let run = |meter: &onenet_ebpf::Meter, packet: &[u8], repeat| {
        meter.test_run(Hook::Ingress, &frame(1, 2, &[], packet), TestContext::default(), repeat).unwrap();
    };
    for flow in 0..4000_u16 {
        let (there, back) = (Ip::v4(one, other, 17), Ip::v4(other, one, 17));
        run(&meter, &there.udp_packet(1000 + flow, 53, b"question"), 3);
        run(&meter, &back.udp_packet(53, 1000 + flow, b"answer"), 3);
    }
    // Question and answer of ICMP have keys of their own, and are in the sample together.
    for host in 0..200_u8 {
        let (there, back) = (Ip::v4([10, 1, 0, host], other, 1), Ip::v4(other, [10, 1, 0, host], 1));
        run(&meter, &there.icmp_packet(8, 0, [0; 4], b"x"), 1);
        run(&meter, &back.icmp_packet(0, 0, [0; 4], b"x"), 1);
    }
    let all = counters(&meter);
    closed(&all);
    assert_eq!(all.counted + all.sampled_out.packets, 24_000 + 400);
    let (mut flows, mut echoes) = (0, [0, 0]);
    meter
        .drain(&mut |delta| {
            if delta.protocol == 1 {
                echoes[usize::from(delta.ends[0].1 == 0)] += 1;
                return;
            }
            flows += 1;
            assert_eq!(delta.ways.each_ref().map(|way| way.packets), [3, 3], "{delta:?}");
        })
        .unwrap();
    // 400 are expected, with a standard deviation of 19.
    assert!((300..500).contains(&flows), "{flows}");
    assert_eq!(echoes[0], echoes[1]);
    assert!(echoes[0] > 0);
    meter.test_run(Hook::Ingress, &arp(1, (1, one), (2, other)), TestContext::default(), 50).unwrap();
    assert_eq!(counters(&meter).sampled_out, all.sampled_out, "ARP is never left out");
}

/// Two threads run packets of a few flows in both directions while the maps are swapped and drained all the time.
fn swaps(hook: HookChoice, hooks: [Hook; 2]) {
    const ROUNDS: u32 = 480;
    const REPEAT: u32 = 10_000;
    let Some(mut meter) = meter(&Options { rates: Rates::NONE, hook, ..options() }) else { return };
    let runners = hooks.map(|hook| meter.runner(hook).unwrap());
    let is_done = AtomicBool::new(false);
    let (mut sums, mut drains) = (BTreeMap::new(), 0);
    std::thread::scope(|scope| {
        let send = |runner: &onenet_ebpf::Runner| {
            for round in 0..ROUNDS {
                // Every fourth round is a flow of IPv6, and each flow is on both CPUs.
                let frame = if round % 4 == 0 {
                    let tcp = Tcp { source: 9, destination: 10, flags: ACK, window: 9, ..Tcp::default() };
                    frame(1, 2, &[], &Ip::v6(1, 2, 6).tcp_packet(&tcp))
                } else {
                    udp(u16::try_from(round % 3).unwrap())
                };
                runner.run(&frame, TestContext::default(), REPEAT).unwrap();
            }
        };
        let [one, other] = &runners;
        let threads = [scope.spawn(move || send(one)), scope.spawn(move || send(other))];
        let is_done = &is_done;
        scope.spawn(move || {
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            is_done.store(true, Ordering::Release);
        });
        loop {
            let is_last = is_done.load(Ordering::Acquire);
            drains += 1;
            meter
                .drain(&mut |delta| {
                    let sum = sums.entry(delta.ends).or_insert([0_u64; 4]);
                    let way = &delta.ways[0];
                    let parts = [way.packets, way.wire_bytes, way.ip_bytes, way.payload_bytes];
                    sum.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
                    assert_eq!(delta.ways[1].packets, 0);
                })
                .unwrap();
            if is_last {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let packets = u64::from(2 * ROUNDS * REPEAT);
    assert!(drains > 3, "too few swaps to say anything: {drains}");
    for (ends, [count, wire, ip, payload]) in &sums {
        let (frame, header) = if ends[0].0.is_ipv6() { (74, 60) } else { (62, 28) };
        assert_eq!(
            (*wire, *ip, *payload),
            (count * frame, count * (frame - 14), count * (frame - 14 - header))
        );
        assert_eq!(*count, packets / 4, "{ends:?}");
    }
    assert_eq!(sums.len(), 4);
    let all = counters(&meter);
    closed(&all);
    assert_eq!(all.counted, packets);
}

#[test]
fn swaps_under_load_lose_nothing() {
    swaps(HookChoice::Auto, [Hook::Ingress, Hook::Egress]);
    swaps(HookChoice::Auto, [Hook::Ingress, Hook::Ingress]);
}

#[test]
fn options_that_cannot_be_are_refused_with_what_may_be() {
    let refused = |options: Options| onenet_ebpf::Meter::open(&options).err().map(|error| error.to_string());
    if meter(&options()).is_none() {
        return;
    }
    let none = refused(Options { interface: "no-such-wire".into(), ..options() }).unwrap();
    assert!(none.starts_with("no interface \"no-such-wire\" here"), "{none}");
    let lo = || Options { interface: "lo".into(), ..options() };
    let snap = refused(Options { snap: 60, ..lo() }).unwrap();
    assert_eq!(snap, "snap is 60, expected 96 to 2048 bytes");
}
