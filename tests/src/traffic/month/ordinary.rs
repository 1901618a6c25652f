//! The hosts that do nothing wrong: most have addresses of their secretariat's own prefix, some of an old claim that
//! others make as well, where nobody else uses the same address.

use anyhow::Result;
use ipnet::IpNet;

use super::{
    super::{
        random::Random,
        world::{Secretariat, Site},
    },
    Month,
    device::{Lease, Place, Stay},
    plan::{claims, own},
    stack::Stack,
};

/// Hosts at scale 1, without those of the cases.
const HOSTS: f64 = 800.0;

/// A kind of host by how common it is.
pub(super) fn common_stack(random: &mut Random, ipv6: bool) -> &'static Stack {
    let kinds = Stack::all(ipv6);
    let mut luck = random.below(kinds.iter().map(|stack| stack.share).sum());
    for stack in &kinds {
        if luck < stack.share {
            return stack;
        }
        luck -= stack.share;
    }
    kinds[0]
}

/// A site by chance.
pub(super) fn any_site(random: &mut Random) -> Site {
    *random.pick(&Site::ALL)
}

/// A place by chance.
pub(super) fn any_place(random: &mut Random) -> Place {
    Place { secretariat: Secretariat(random.octet(0, 9)), site: any_site(random) }
}

/// Hops by chance: half the hosts stand on the VLAN.
pub(super) fn any_hops(random: &mut Random) -> u8 {
    if random.per_mille(450) { 0 } else { random.octet(1, 5) }
}

/// All ordinary hosts. Each claim has at least three, whatever the scale, so that none but those meant to be are
/// dark.
pub(super) fn fill(month: &mut Month) -> Result<()> {
    let mut random = month.random("ordinary");
    let claims = claims()?;
    for _ in 0..3 {
        for (net, secretariat) in &claims {
            host(month, &mut random, *net, *secretariat);
        }
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the scale is positive and bounded"
    )]
    let count = (HOSTS * month.truth.scale).round() as u32;
    for _ in 0..count {
        let secretariat = Secretariat(random.octet(0, 9));
        let ipv6 = random.per_mille(220);
        let old: Vec<IpNet> = claims
            .iter()
            .filter(|(net, whose)| *whose == secretariat && matches!(net, IpNet::V6(_)) == ipv6)
            .filter(|(net, _)| match net {
                // The smallest have no room for hosts that grow with the scale.
                IpNet::V4(net) => net.prefix_len() <= 20,
                IpNet::V6(_) => true,
            })
            .map(|(net, _)| *net)
            .collect();
        let net = if random.per_mille(150) { *random.pick(&old) } else { own(secretariat, ipv6) };
        host(month, &mut random, net, secretariat);
    }
    Ok(())
}

fn host(month: &mut Month, random: &mut Random, net: IpNet, secretariat: Secretariat) {
    let address = month.fresh(random, net);
    let stack = common_stack(random, address.is_ipv6());
    let place = Place { secretariat, site: any_site(random) };
    let mut device = month.device(stack);
    device.restarted = random.per_mille(150);
    let mut stay = Stay::new(address, place, device.mac, any_hops(random));
    // A laptop sleeps on many days; a server works at weekends too.
    stay.awake = *random.pick(&[950, 950, 900, 450]);
    stay.weekends = random.per_mille(100);
    stay.visits = 2;
    stay.lease = if random.per_mille(400) { Lease::Kept } else { Lease::Static };
    device.stays.push(stay);
    month.devices.push(device);
    month.ordinary.push(address);
}
