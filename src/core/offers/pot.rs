//! A pot: what the offers of one agent and role have left, and taking from it.
//!
//! Taking is all or nothing. Amounts go down only, so a task that does not fit a pot will not fit it later either.

use std::collections::BTreeSet;

use super::{Amount, Milli, Need, Needs, Offer, Pick, Piece};

/// A part of the pot: one resource of one offer.
#[derive(Clone, Debug)]
struct Slice {
    offer: usize,
    resource: usize,
    left: Amount,
}

/// All slices of one resource, in the order in which they are used.
#[derive(Clone, Debug)]
struct Shelf {
    name: String,
    slices: Vec<Slice>,
}

/// What the offers of one agent and role have left.
#[derive(Clone, Debug)]
pub(super) struct Pot {
    pub(super) offers: Vec<usize>,
    shelves: Vec<Shelf>,
}

/// What was taken for one task.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) pieces: Vec<Piece>,
    pub(super) numbers: Vec<(String, Vec<u64>)>,
}

impl Pot {
    /// Puts offers together. Reserved resources come first on each shelf: others can use the rest.
    pub(super) fn new(offers: &[Offer], members: Vec<usize>) -> Self {
        let mut shelves: Vec<Shelf> = Vec::new();
        for wanted in [true, false] {
            for &offer in &members {
                for (resource, held) in offers[offer].resources.iter().enumerate() {
                    if held.reserved != wanted {
                        continue;
                    }
                    let slice = Slice { offer, resource, left: held.amount.clone() };
                    match shelves.iter_mut().find(|shelf| shelf.name == held.name) {
                        Some(shelf) => shelf.slices.push(slice),
                        None => shelves.push(Shelf { name: held.name.clone(), slices: vec![slice] }),
                    }
                }
            }
        }
        Self { offers: members, shelves }
    }

    /// How much of a scalar is left.
    pub(super) fn scalar(&self, name: &str) -> Milli {
        let shelf = self.shelves.iter().find(|shelf| shelf.name == name);
        shelf.map_or(Milli::ZERO, Shelf::scalar)
    }

    /// Whether there is enough of every scalar; what is cheap to know, first.
    fn suffices(&self, needs: &Needs, beside: Option<&Needs>) -> bool {
        let all = || needs.0.iter().chain(beside.iter().flat_map(|needs| &needs.0));
        all().all(|(name, need)| match need {
            Need::Scalar(Milli::ZERO) | Need::Items { .. } => true,
            Need::Scalar(_) => {
                let same = all().filter(|(other, _)| other == name);
                let wanted = same.fold(Milli::ZERO, |sum, (_, need)| match need {
                    Need::Scalar(amount) => sum.plus(*amount),
                    _ => sum,
                });
                wanted <= self.scalar(name)
            }
            Need::Numbers(picks) => {
                picks.is_empty()
                    || self.shelves.iter().any(|shelf| shelf.name == *name && picks.len() <= shelf.numbers())
            }
        })
    }

    /// Takes a task and what its executor needs beside, or nothing.
    pub(super) fn take(&mut self, needs: &Needs, executor: Option<&Needs>) -> Option<(Taken, Taken)> {
        if !self.suffices(needs, executor) {
            return None;
        }
        let tricky = |needs: &Needs| needs.0.iter().any(|(_, need)| !matches!(need, Need::Scalar(_)));
        // Scalars that suffice cannot fail any more; only the others have to be undone.
        let before = (tricky(needs) || executor.is_some_and(tricky)).then(|| self.shelves.clone());
        let taken = self.take_one(needs).and_then(|task| match executor {
            Some(executor) => Some((task, self.take_one(executor)?)),
            None => Some((task, Taken::default())),
        });
        if let (None, Some(before)) = (&taken, before) {
            self.shelves = before;
        }
        taken
    }

    fn take_one(&mut self, needs: &Needs) -> Option<Taken> {
        let mut taken = Taken::default();
        for (name, need) in &needs.0 {
            if need.is_nothing() {
                continue;
            }
            let shelf = self.shelves.iter_mut().find(|shelf| shelf.name == *name)?;
            match need {
                Need::Scalar(amount) => shelf.take_scalar(*amount, &mut taken.pieces)?,
                Need::Numbers(picks) => {
                    let numbers = shelf.take_numbers(picks, &mut taken.pieces)?;
                    taken.numbers.push((name.clone(), numbers));
                }
                Need::Items { named, any } => shelf.take_items(named, *any, &mut taken.pieces)?,
            }
        }
        Some(taken)
    }
}

impl Need {
    fn is_nothing(&self) -> bool {
        match self {
            Self::Scalar(amount) => *amount == Milli::ZERO,
            Self::Numbers(picks) => picks.is_empty(),
            Self::Items { named, any } => named.is_empty() && *any == 0,
        }
    }
}

impl Shelf {
    fn scalar(&self) -> Milli {
        self.slices.iter().fold(Milli::ZERO, |sum, slice| match slice.left {
            Amount::Scalar(amount) => sum.plus(amount),
            _ => sum,
        })
    }

    fn numbers(&self) -> usize {
        let count = |ranges: &[(u64, u64)]| {
            let sizes = ranges.iter().filter(|(first, last)| first <= last).map(|(first, last)| last - first);
            sizes.fold(0_u64, |sum, size| sum.saturating_add(size).saturating_add(1))
        };
        let sum = self.slices.iter().fold(0_u64, |sum, slice| match &slice.left {
            Amount::Ranges(ranges) => sum.saturating_add(count(ranges)),
            _ => sum,
        });
        usize::try_from(sum).unwrap_or(usize::MAX)
    }

    fn take_scalar(&mut self, amount: Milli, pieces: &mut Vec<Piece>) -> Option<()> {
        let mut wanted = amount;
        for slice in &mut self.slices {
            let Amount::Scalar(left) = &mut slice.left else { continue };
            let part = wanted.min(*left);
            if part == Milli::ZERO {
                continue;
            }
            *left = left.minus(part);
            wanted = wanted.minus(part);
            pieces.push(Piece { offer: slice.offer, resource: slice.resource, amount: Amount::Scalar(part) });
        }
        (wanted == Milli::ZERO).then_some(())
    }

    /// Takes a number for each pick. Exact ones first; then those within bounds, the lowest upper bound first, each the
    /// lowest number that will do (which finds an assignment whenever there is one); then the rest.
    fn take_numbers(&mut self, picks: &[Pick], pieces: &mut Vec<Piece>) -> Option<Vec<u64>> {
        let bounds = |pick: &Pick| match *pick {
            Pick::Exact(number) => (0, number, number),
            Pick::Within(first, last) => (1, last, first),
            Pick::Any => (2, u64::MAX, 0),
        };
        let mut order: Vec<usize> = (0..picks.len()).collect();
        order.sort_by_key(|at| bounds(&picks[*at]));
        let mut numbers = vec![0; picks.len()];
        let mut taken: Vec<(usize, u64)> = Vec::new();
        for at in order {
            let (_, last, first) = bounds(&picks[at]);
            let (slice, number) = self
                .slices
                .iter()
                .enumerate()
                .filter_map(|(index, slice)| Some((index, lowest(&slice.left, first, last)?)))
                // Among equals the first slice, which is the reserved one.
                .min_by_key(|(index, number)| {
                    if matches!(picks[at], Pick::Any) { (*index as u64, *number) } else { (*number, *index as u64) }
                })?;
            remove(&mut self.slices[slice].left, number);
            numbers[at] = number;
            taken.push((slice, number));
        }
        taken.sort_unstable();
        for (index, number) in taken {
            let slice = &self.slices[index];
            match pieces.last_mut() {
                Some(Piece { offer, resource, amount: Amount::Ranges(ranges) })
                    if (*offer, *resource) == (slice.offer, slice.resource) =>
                {
                    match ranges.last_mut() {
                        Some((_, last)) if *last + 1 == number => *last = number,
                        _ => ranges.push((number, number)),
                    }
                }
                _ => pieces.push(Piece {
                    offer: slice.offer,
                    resource: slice.resource,
                    amount: Amount::Ranges(vec![(number, number)]),
                }),
            }
        }
        Some(numbers)
    }

    fn take_items(&mut self, named: &BTreeSet<String>, any: u32, pieces: &mut Vec<Piece>) -> Option<()> {
        let (mut named, mut any) = (named.clone(), any as usize);
        let mut parts: Vec<BTreeSet<String>> = vec![BTreeSet::new(); self.slices.len()];
        for (slice, part) in self.slices.iter_mut().zip(&mut parts) {
            let Amount::Set(left) = &mut slice.left else { continue };
            for item in std::mem::take(&mut named) {
                let to = if left.remove(&item) { &mut *part } else { &mut named };
                to.insert(item);
            }
        }
        if !named.is_empty() {
            return None;
        }
        for (slice, part) in self.slices.iter_mut().zip(&mut parts) {
            let Amount::Set(left) = &mut slice.left else { continue };
            while 0 < any
                && let Some(item) = left.pop_first()
            {
                part.insert(item);
                any -= 1;
            }
        }
        for (slice, part) in self.slices.iter().zip(parts).filter(|(_, part)| !part.is_empty()) {
            pieces.push(Piece { offer: slice.offer, resource: slice.resource, amount: Amount::Set(part) });
        }
        (any == 0).then_some(())
    }
}

/// The lowest number left within bounds.
fn lowest(left: &Amount, first: u64, last: u64) -> Option<u64> {
    let Amount::Ranges(ranges) = left else { return None };
    ranges
        .iter()
        .filter_map(|(from, to)| {
            let number = first.max(*from);
            (number <= last.min(*to)).then_some(number)
        })
        .min()
}

/// Takes one number out of ranges.
fn remove(left: &mut Amount, number: u64) {
    let Amount::Ranges(ranges) = left else { return };
    let Some(at) = ranges.iter().position(|(from, to)| (*from..=*to).contains(&number)) else { return };
    let (from, to) = ranges.swap_remove(at);
    if from < number {
        ranges.push((from, number - 1));
    }
    if number < to {
        ranges.push((number + 1, to));
    }
}
