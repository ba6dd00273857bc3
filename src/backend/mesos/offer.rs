//! Offers between the wire and the matcher, and resources back again.

use std::sync::Arc;
use std::time::Duration;

use crate::core::offers::{self, Amount, Attribute, Attributes, Milli, Piece};
use crate::mesos::wire::{self, Offer, ValueKind};

/// An offer as the matcher sees it. What is lent for a while, shared, or a volume is left out.
pub(super) fn plain(offer: &Offer, default_role: &str) -> offers::Offer {
    offers::Offer {
        agent: offer.agent_id.as_str().to_owned(),
        role: offer.role().unwrap_or(default_role).to_owned(),
        attributes: Arc::new(attributes(offer)),
        resources: offer.resources.iter().map(resource).collect(),
    }
}

/// Whether the offer's agent is being emptied for its maintenance at that time, counted from 1970.
pub(super) fn is_in_maintenance(offer: &Offer, wall: Duration) -> bool {
    let nanoseconds = |count: i64| Duration::from_nanos(u64::try_from(count).unwrap_or(0));
    offer.unavailability.as_ref().is_some_and(|unavailability| {
        let start = nanoseconds(unavailability.start.nanoseconds);
        let over = unavailability.duration.as_ref().map(|duration| start + nanoseconds(duration.nanoseconds));
        start <= wall && over.is_none_or(|over| wall < over)
    })
}

fn resource(resource: &wire::Resource) -> offers::Resource {
    let bare = resource.revocable.is_none() && resource.shared.is_none() && !is_volume(resource);
    let amount = if bare { amount(resource) } else { Amount::Scalar(Milli::ZERO) };
    offers::Resource { name: resource.name.clone(), amount, reserved: resource.reserved_for().is_some() }
}

/// A disk with a volume on it belongs to whoever made the volume.
fn is_volume(resource: &wire::Resource) -> bool {
    resource.disk.as_ref().is_some_and(|disk| disk.get("persistence").is_some() || disk.get("source").is_some())
}

fn amount(resource: &wire::Resource) -> Amount {
    match resource.kind {
        ValueKind::Scalar => Amount::Scalar(Milli::of(resource.scalar.as_ref().map_or(0.0, |scalar| scalar.value))),
        ValueKind::Ranges => Amount::Ranges(ranges(resource.ranges.as_ref())),
        ValueKind::Set => {
            Amount::Set(resource.set.as_ref().map(|set| set.item.iter().cloned().collect()).unwrap_or_default())
        }
        _ => Amount::Scalar(Milli::ZERO),
    }
}

fn ranges(ranges: Option<&wire::Ranges>) -> Vec<(u64, u64)> {
    ranges.iter().flat_map(|ranges| &ranges.range).map(|range| (range.begin, range.end)).collect()
}

fn attributes(offer: &Offer) -> Attributes {
    let given = offer.attributes.iter().filter_map(|attribute| {
        let value = match attribute.kind {
            ValueKind::Scalar => Attribute::Scalar(attribute.scalar.as_ref()?.value),
            ValueKind::Ranges => Attribute::Ranges(ranges(attribute.ranges.as_ref())),
            _ => Attribute::Text(attribute.text.as_ref()?.value.clone()),
        };
        Some((attribute.name.clone(), value))
    });
    Attributes::new(&offer.hostname, given)
}

/// The resources that pieces of offers are: as they were offered, reservation and all, but for their amounts.
pub(super) fn resources(offers: &[Offer], pieces: &[Piece]) -> Vec<wire::Resource> {
    let part = |piece: &Piece| {
        let mut part = offers.get(piece.offer)?.resources.get(piece.resource)?.clone();
        // Only what was taken counts, whatever else the offer has under this name.
        (part.scalar, part.ranges, part.set) = (None, None, None);
        match &piece.amount {
            Amount::Scalar(amount) => part.scalar = Some(wire::Scalar { value: amount.units() }),
            Amount::Ranges(ranges) => {
                let range = ranges.iter().map(|(begin, end)| wire::Range { begin: *begin, end: *end }).collect();
                part.ranges = Some(wire::Ranges { range });
            }
            Amount::Set(items) => part.set = Some(wire::Set { item: items.iter().cloned().collect() }),
        }
        Some(part)
    };
    pieces.iter().filter_map(part).collect()
}
