//! How a flow begins: who started it, which way it takes, and what it is inside of.

use super::{
    compact::{Flow, flag},
    direction::judge,
    host::FlowHost,
    key::{FlowKey, Side},
    live::{NO_ENTRY, Origin, Tally, Wrapping},
    path::{self, Path},
    table::{FlowTable, TcpPart},
    tcp::TcpState,
};

impl FlowTable {
    /// Fills an entry with a new flow, armed and queued but without counts. The key is in the index already, or
    /// is linked by the caller.
    #[expect(clippy::too_many_arguments, reason = "the facts of a packet, already split")]
    pub(super) fn begin<H: FlowHost>(
        &mut self,
        entry: u32,
        key: FlowKey,
        side: Side,
        origin: &Origin<'_>,
        tally: &Tally,
        tcp: Option<TcpPart<'_>>,
        host: &mut H,
    ) {
        let at = entry as usize;
        let (flip, reason) =
            judge(key.protocol(), key.end(side), key.end(1 - side), tcp.map(|tcp| tcp.header));
        let serial = if tally.first > self.gone_until {
            0
        } else {
            // One bit of the number tells tunnelled flows from others.
            self.repeats = if self.repeats >= 0x7fff { 1 } else { self.repeats + 1 };
            self.repeats
        };
        let mut flow = Flow {
            key: self.addresses.pack(&key),
            created: tally.first,
            end: tally.last,
            seen: self.clock,
            part_since: self.clock,
            serial,
            ..Flow::default()
        };
        flow.set(flag::LIVE, true);
        flow.set_originator(if flip { 1 - side } else { side });
        flow.set_reason(reason);
        if let Some(wrapping) = wrapping(origin) {
            self.extensions.change(&mut flow, |more| more.wrapping = Some(wrapping));
        }
        if tcp.is_some() {
            let mut state = TcpState::default();
            if flip {
                state.note_flip();
            }
            flow.tcp = self.tcp.insert(state);
        }
        self.put(entry, flow);
        match self.way_of(&key, side, origin, host) {
            Ok(number) => self.flows[at].path = number,
            Err(path) => self.carry_path(at, path),
        }
        self.line.push(entry);
    }

    /// Puts a flow into an entry that is free, or the next one.
    pub(super) fn put(&mut self, entry: u32, flow: Flow) {
        let at = entry as usize;
        if at < self.flows.len() {
            self.flows[at] = flow;
        } else {
            self.flows.push(flow);
        }
    }

    /// The way of a new flow, by its first packet: its number, or the way itself where there is no room for it.
    pub(super) fn way_of<H: FlowHost>(
        &mut self,
        key: &FlowKey,
        side: Side,
        origin: &Origin<'_>,
        host: &H,
    ) -> Result<u32, Path> {
        let from = host.side_place(origin, &key.end(side).0, origin.link.source_mac);
        let to = host.side_place(origin, &key.end(1 - side).0, None);
        let places = if side == 0 { [from, to] } else { [to, from] };
        let (scope, interface, space) = (key.scope(), origin.interface, origin.place.space);
        let vlans = &origin.link.vlans;
        if let Some(number) = self.paths.take_again(scope, interface, space, vlans, &places) {
            return Ok(number);
        }
        let digest = self.reporter.scope_digest(scope, || host.scope_name(scope, space));
        let path = Path { scope: digest, interface, space, vlans: vlans.clone(), places };
        self.paths.take(&path, scope).ok_or(path)
    }

    /// The way of a flow.
    pub(super) fn path(&self, flow: &Flow) -> &Path {
        self.paths
            .get(flow.path)
            .or_else(|| self.extensions.of(flow)?.path.as_deref())
            .unwrap_or(&path::NOWHERE)
    }

    /// Sets the way of a flow, in place of the one it had.
    pub(super) fn set_path(&mut self, at: usize, path: Path) {
        let flow = &mut self.flows[at];
        let before = flow.path;
        match self.paths.take(&path, flow.key.scope()) {
            Some(number) => flow.path = number,
            None => self.carry_path(at, path),
        }
        self.paths.release(before);
    }

    /// Lets a flow carry its way by itself.
    #[cold]
    fn carry_path(&mut self, at: usize, path: Path) {
        let Self { flows, extensions, .. } = self;
        let flow = &mut flows[at];
        flow.path = NO_ENTRY;
        extensions.change(flow, |more| more.path = Some(Box::new(path)));
    }
}

fn wrapping(origin: &Origin<'_>) -> Option<Box<Wrapping>> {
    let plain = origin.link.mpls_labels.is_empty() && origin.tunnel.is_none() && origin.parents.is_empty();
    (!plain).then(|| {
        Box::new(Wrapping {
            mpls_labels: origin.link.mpls_labels.clone(),
            tunnel: origin.tunnel,
            parents: origin.parents.iter().copied().take(4).collect(),
        })
    })
}
