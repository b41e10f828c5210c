//! Neighbours that translated packets go to. The kernel does not see those packets, so it would never ask whether a
//! neighbour is still there: it is told that they are in use.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use tokio::time::{MissedTickBehavior, interval};

use super::report::{Event, Reporter};
use crate::surroundings::{Surroundings, Used, now};

/// How often it is looked which neighbours are in use.
const ROUND: Duration = Duration::from_secs(3);

/// Asks, again and again.
pub(super) async fn ask(mut surroundings: Surroundings, report: Reporter) -> Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
    let _connection = tokio::spawn(connection);
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut since = now();
    loop {
        rounds.tick().await;
        let used = surroundings.hops_since(since)?;
        since = now();
        // What is in use from now on is asked for from now on.
        surroundings.forget_hops()?;
        match ask_after(&handle, &surroundings, &used).await {
            Ok(0) => {}
            Ok(neighbours) => report.say(&Event::Asked { neighbours }),
            Err(error) => {
                let error = format!("cannot ask after neighbours: {error}");
                report.say(&Event::Failed { error });
            }
        }
    }
}

/// Has the kernel ask after those in use that it has not heard from lately; how many.
async fn ask_after(
    handle: &Handle,
    surroundings: &Surroundings,
    used: &BTreeSet<Used>,
) -> Result<usize, rtnetlink::Error> {
    if used.is_empty() {
        return Ok(0);
    }
    let mut asked = 0;
    let neighbours: Vec<_> = handle.neighbours().get().execute().try_collect().await?;
    for neighbour in neighbours.iter().filter(|neighbour| neighbour.header.state == NeighbourState::Stale) {
        let Some((address, link)) = ends(neighbour) else { continue };
        let interface = neighbour.header.ifindex;
        if used.contains(&Used { device: surroundings.device(interface), link }) {
            let request = handle.neighbours().add(interface, address).replace();
            let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use);
            request.execute().await?;
            asked += 1;
        }
    }
    Ok(asked)
}

/// A neighbour's address and its link address.
fn ends(neighbour: &NeighbourMessage) -> Option<(IpAddr, [u8; 6])> {
    let address = neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })?;
    let link = neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(link) => link.as_slice().try_into().ok(),
        _ => None,
    })?;
    Some((address, link))
}
