//! The account of one interface: what the kernel's own counters say came by, held against what was handed over and
//! what is known to be lost, at the same moments of packet time.

use std::io;

use onenet_core::time::Timestamp;
use serde::Serialize;

use super::netlink::{InterfaceCounters, LinkState, Netlink};
use crate::run::wall_time;

/// An interface's own counters since the start of the agent, over resets and over interfaces made anew.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Growth {
    last: Option<(u32, InterfaceCounters)>,
    sum: InterfaceCounters,
}

impl Growth {
    /// Takes what the kernel says now; none where the interface is not there.
    pub(crate) fn tell(&mut self, state: Option<&LinkState>) {
        let Some(state) = state else {
            // What comes under this name is new, and counts from nothing.
            self.last = Some((0, InterfaceCounters::default()));
            return;
        };
        let (now, before) = (state.counters, self.last.replace((state.index, state.counters)));
        let Some((index, before)) = before else { return };
        let anew = index != state.index || fields(&before).into_iter().zip(fields(&now)).any(|(b, n)| n < b);
        let before = if anew { InterfaceCounters::default() } else { before };
        let grown = |now: u64, before: u64, sum: u64| sum.saturating_add(now.saturating_sub(before));
        self.sum = InterfaceCounters {
            rx_packets: grown(now.rx_packets, before.rx_packets, self.sum.rx_packets),
            tx_packets: grown(now.tx_packets, before.tx_packets, self.sum.tx_packets),
            rx_bytes: grown(now.rx_bytes, before.rx_bytes, self.sum.rx_bytes),
            tx_bytes: grown(now.tx_bytes, before.tx_bytes, self.sum.tx_bytes),
            rx_dropped: grown(now.rx_dropped, before.rx_dropped, self.sum.rx_dropped),
            tx_dropped: grown(now.tx_dropped, before.tx_dropped, self.sum.tx_dropped),
        };
    }

    /// What has been counted since the first time.
    pub(crate) const fn sum(&self) -> InterfaceCounters {
        self.sum
    }
}

const fn fields(counters: &InterfaceCounters) -> [u64; 4] {
    [counters.rx_packets, counters.tx_packets, counters.rx_bytes, counters.tx_bytes]
}

/// The account of an interface at one moment, since the start, for people and programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct InterfaceView {
    /// The moment.
    pub(crate) at: String,
    /// Packets that the interface itself has counted, in the directions that the source sees.
    pub(crate) wire: u64,
    /// Of them, received.
    pub(crate) wire_received: u64,
    /// Bytes that the interface itself has counted, as it counts them.
    pub(crate) wire_bytes: u64,
    /// Packets that the sensor has taken. Those that offload has joined, or is yet to divide, count as one.
    pub(crate) captured: u64,
    /// The same as they are on the wire.
    pub(crate) captured_on_wire: u64,
    /// Packets that are known to be lost, at any stage behind the interface.
    pub(crate) dropped: u64,
    /// Packets that the filter left out.
    pub(crate) filtered: u64,
    /// Packets that the interface counted and nothing above explains; less than 0 where more was captured than it
    /// counted.
    pub(crate) unexplained: i64,
    /// Packets that the interface itself, or the kernel before any capture, says it had no room for.
    pub(crate) interface_dropped: u64,
}

/// What a source has counted itself up to a moment, since it was opened first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// Packets lost behind the interface.
    pub(crate) dropped: u64,
    /// Where a filter is set, packets that it let through, lost ones among them.
    pub(crate) let_through: Option<u64>,
}

/// What was taken up to a moment: packets as captured, and as they are on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    frames: u64,
    packets: u64,
}

/// Counters that were read and wait until everything up to then has been taken. They are read in no time at all, but
/// packets come in less: what came meanwhile may be in them or not.
#[derive(Clone, Copy, Debug)]
struct Mark {
    from: Timestamp,
    to: Timestamp,
    wire: InterfaceCounters,
    own: Own,
    at_from: Option<Taken>,
}

/// A mark with all that was taken until it, at least and at most.
#[derive(Clone, Copy, Debug)]
struct Settled {
    mark: Mark,
    low: Taken,
    high: Taken,
}

/// The account of one interface.
#[derive(Debug, Default)]
pub(crate) struct Account {
    netlink: Option<Netlink>,
    growth: Growth,
    taken: Taken,
    mark: Option<Mark>,
    base: Option<Settled>,
    view: Option<InterfaceView>,
    state: LinkState,
    seen: Option<Seen>,
    only_received: bool,
}

/// What an account says for the rules on the sensor's health, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// When.
    pub(crate) time: Timestamp,
    /// Packets taken or lost.
    pub(crate) seen: u64,
    /// Packets that the interface counted.
    pub(crate) offered: u64,
    /// Of them, received.
    pub(crate) received: u64,
    /// Packets lost.
    pub(crate) lost: u64,
}

impl Account {
    /// An account of what is received; what the interface sends, its source does not see.
    pub(crate) fn of_received() -> Self {
        Self { only_received: true, ..Self::default() }
    }

    /// Counts a packet that is handed over, and how many it was on the wire. Packets come in the order of time.
    pub(crate) fn take(&mut self, time: Timestamp, on_wire: u64) {
        if self.mark.is_some() {
            self.pass(time);
        }
        self.taken.frames = self.taken.frames.saturating_add(1);
        self.taken.packets = self.taken.packets.saturating_add(on_wire);
    }

    /// Everything before this time has been taken.
    pub(crate) fn pass(&mut self, time: Timestamp) {
        let taken = self.taken;
        let Some(mark) = &mut self.mark else { return };
        if time > mark.from {
            mark.at_from.get_or_insert(taken);
        }
        if time > mark.to {
            let mark = *mark;
            self.mark = None;
            self.settle(Settled { mark, low: mark.at_from.unwrap_or(taken), high: taken });
        }
    }

    /// Reads the interface's counters, unless earlier ones still wait. `own` gives the source's.
    pub(crate) fn mark(&mut self, name: &str, own: impl FnOnce() -> Own) {
        if self.mark.is_some() {
            return;
        }
        let from = Timestamp(wall_time());
        let link = self.ask(name);
        let own = own();
        let to = Timestamp(wall_time());
        // Where the kernel cannot be asked, what it said last stands.
        if let Ok(link) = link {
            self.growth.tell(link.as_ref());
            self.state = link.unwrap_or_default();
            self.mark = Some(Mark { from, to: to.max(from), wire: self.growth.sum(), own, at_from: None });
        }
    }

    /// Compares at once what the interface counted with what a source in the kernel has counted, which knows packets
    /// only as they are on the wire: `seen` gives them, lost ones among them.
    pub(crate) fn compare(&mut self, name: &str, mut seen: impl FnMut() -> (u64, Own)) {
        let from = Timestamp(wall_time());
        let Ok(link) = self.ask(name) else { return };
        let (seen, own) = seen();
        let to = Timestamp(wall_time());
        self.growth.tell(link.as_ref());
        self.state = link.unwrap_or_default();
        let packets = seen.saturating_sub(own.dropped);
        let mark = Mark { from, to, wire: self.growth.sum(), own, at_from: None };
        // How many packets offload had made of them where they passed is not known.
        let low = Taken { frames: if self.base.is_some() { 0 } else { packets }, packets };
        self.settle(Settled { mark, low, high: Taken { frames: packets, packets } });
    }

    fn ask(&mut self, name: &str) -> io::Result<Option<LinkState>> {
        let netlink = match self.netlink.take() {
            Some(netlink) => netlink,
            None => Netlink::open()?,
        };
        let answer = self.netlink.insert(netlink).link(name);
        if answer.is_err() {
            self.netlink = None;
        }
        answer
    }

    fn settle(&mut self, now: Settled) {
        let base = *self.base.get_or_insert(now);
        let wire = now.mark.wire;
        let received = wire.rx_packets.saturating_sub(base.mark.wire.rx_packets);
        let sent = wire.tx_packets.saturating_sub(base.mark.wire.tx_packets);
        let counted = if self.only_received { received } else { received.saturating_add(sent) };
        let dropped = now.mark.own.dropped.saturating_sub(base.mark.own.dropped);
        let (frames, packets) = (
            now.high.frames.saturating_sub(base.high.frames),
            now.high.packets.saturating_sub(base.high.packets),
        );
        let least = now.low.frames.saturating_sub(base.high.frames);
        let most_frames = now.high.frames.saturating_sub(base.low.frames);
        let most_packets = now.high.packets.saturating_sub(base.low.packets);
        let (filtered, unexplained) = match (now.mark.own.let_through, base.mark.own.let_through) {
            (Some(now), Some(base)) => {
                // Lost between filter and sensor would be what is not here; what the interface counted beyond the
                // filter was left out by it.
                let through = now.saturating_sub(base);
                (counted.saturating_sub(through), beyond(through, dropped, least, most_frames))
            }
            _ => (0, beyond(counted, dropped, least, most_frames.max(most_packets))),
        };
        self.seen = Some(Seen {
            time: now.mark.to,
            seen: frames.saturating_add(dropped),
            offered: counted,
            received,
            lost: dropped,
        });
        self.view = Some(InterfaceView {
            at: now.mark.to.to_string(),
            wire: counted,
            wire_received: received,
            wire_bytes: wire.bytes().saturating_sub(base.mark.wire.bytes()),
            captured: frames,
            captured_on_wire: packets,
            dropped,
            filtered,
            unexplained,
            interface_dropped: wire
                .rx_dropped
                .saturating_add(wire.tx_dropped)
                .saturating_sub(base.mark.wire.rx_dropped.saturating_add(base.mark.wire.tx_dropped)),
        });
    }

    /// The latest comparison.
    pub(crate) const fn view(&self) -> Option<&InterfaceView> {
        self.view.as_ref()
    }

    /// The latest comparison, for the rules.
    pub(crate) const fn seen(&self) -> Option<Seen> {
        self.seen
    }

    /// Longest network packet of the interface in bytes; 0 where that is not known.
    pub(crate) const fn mtu(&self) -> u32 {
        self.state.mtu
    }
}

/// How far a count is outside of what lies between `least` and `most` captured packets and those that were dropped.
fn beyond(counted: u64, dropped: u64, least: u64, most: u64) -> i64 {
    let (low, high) = (least.saturating_add(dropped), most.saturating_add(dropped));
    let signed = |difference: u64| i64::try_from(difference).unwrap_or(i64::MAX);
    if counted > high { signed(counted - high) } else { -signed(low.saturating_sub(counted)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(index: u32, packets: u64) -> LinkState {
        let counters =
            InterfaceCounters { rx_packets: packets, rx_bytes: packets * 60, ..Default::default() };
        LinkState { index, mtu: 1500, is_virtual: true, counters }
    }

    #[test]
    fn growth_goes_on_over_resets_and_interfaces_made_anew() {
        let mut growth = Growth::default();
        let mut packets = |state: Option<LinkState>| {
            growth.tell(state.as_ref());
            growth.sum().rx_packets
        };
        assert_eq!(packets(Some(state(1, 1000))), 0, "what was before the start is not counted");
        assert_eq!(packets(Some(state(1, 1010))), 10);
        assert_eq!(packets(Some(state(1, 5))), 15, "set back to zero by the driver");
        assert_eq!(packets(Some(state(2, 7))), 22, "another interface of the same name");
        assert_eq!(packets(None), 22);
        assert_eq!(packets(Some(state(2, 9))), 31, "it came back");
    }

    fn account_at(account: &mut Account, time: i64, packets: u64, own: Own) {
        account.growth.tell(Some(&state(1, packets)));
        let (from, to) = (Timestamp(time), Timestamp(time + 10));
        account.mark = Some(Mark { from, to, wire: account.growth.sum(), own, at_from: None });
    }

    fn take(account: &mut Account, times: impl IntoIterator<Item = i64>) {
        for time in times {
            account.take(Timestamp(time), 1);
        }
    }

    #[test]
    fn an_account_compares_what_was_taken_up_to_the_same_moment() {
        let mut account = Account::default();
        account_at(&mut account, 100, 500, Own::default());
        // Captured before the first look, and handed over after it.
        take(&mut account, [90, 95, 150, 160]);
        account_at(&mut account, 200, 505, Own { dropped: 1, let_through: None });
        take(&mut account, [170, 180, 201, 999]);
        let view = account.view().expect("settled").clone();
        // Five came, four of them were taken, one was lost; the one at 201 may be in the counters or not.
        assert_eq!((view.wire, view.captured, view.dropped, view.unexplained), (5, 5, 1, 0));
        account_at(&mut account, 1000, 510, Own { dropped: 1, let_through: None });
        assert_eq!(account.view(), Some(&view), "the moment has not come");
        account.pass(Timestamp(2000));
        let view = account.view().expect("settled");
        assert_eq!((view.wire, view.captured, view.dropped, view.unexplained), (10, 6, 1, 3));
        assert_eq!(account.seen().map(|seen| (seen.seen, seen.offered, seen.lost)), Some((7, 10, 1)));
    }

    #[test]
    fn more_than_the_interface_counted_is_told_too_and_offload_explains_either_count() {
        let mut account = Account::default();
        account_at(&mut account, 0, 0, Own::default());
        account.take(Timestamp(100), 44);
        account_at(&mut account, 200, 44, Own::default());
        account.pass(Timestamp(300));
        assert_eq!(account.view().map(|view| view.unexplained), Some(0), "a card counts packets on the wire");
        account_at(&mut account, 400, 45, Own::default());
        take(&mut account, [350, 360]);
        account.pass(Timestamp(500));
        assert_eq!(account.view().map(|view| view.unexplained), Some(0), "software counts them as captured");
        assert_eq!(account.view().map(|view| (view.captured, view.captured_on_wire)), Some((3, 46)));
        account_at(&mut account, 600, 45, Own::default());
        take(&mut account, 510..560);
        account.pass(Timestamp(700));
        assert_eq!(account.view().map(|view| view.unexplained), Some(-8));
    }

    #[test]
    fn what_a_filter_left_out_is_the_rest() {
        let mut account = Account::default();
        account_at(&mut account, 0, 0, Own { dropped: 0, let_through: Some(0) });
        take(&mut account, [100, 110]);
        account_at(&mut account, 200, 10, Own { dropped: 1, let_through: Some(4) });
        account.pass(Timestamp(300));
        let view = account.view().expect("settled");
        assert_eq!((view.wire, view.captured, view.dropped), (10, 2, 1));
        assert_eq!((view.filtered, view.unexplained), (6, 1));
    }
}
