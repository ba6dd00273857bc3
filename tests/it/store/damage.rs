//! Files that are not what was written: opened only when exactly what was committed is in them, else left alone.

use std::fs;
use std::path::Path;

use setpoint::runtime::record::{SourceRecord, Write};
use setpoint::runtime::store::{Store, StoreError};

use super::{Model, database, everything, model_of, number_of, numbered, source, submit_and_wait};

/// Opens a damaged store: it must give `model` exactly or refuse, and refusing must leave the file as it is.
fn open_damaged(dir: &Path, model: &Model, round: u64, what: &str) -> bool {
    // Looking is cheap. Opening syncs, so of the files that are as good as new only some are opened, too.
    let looked = Store::open_read_only(dir).map(Model::from);
    if looked.is_ok_and(|looked| looked == *model) && !round.is_multiple_of(16) {
        return true;
    }
    let before = fs::read(database(dir)).unwrap();
    match Store::open(dir) {
        Ok((store, stored)) => {
            drop(store);
            assert!(Model::from(stored) == *model, "{what}: opened with other data");
            true
        }
        Err(error) => {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{what}: {error}");
            assert!(error.hint().is_some());
            assert!(fs::read(database(dir)).unwrap() == before, "{what}: the file was changed");
            false
        }
    }
}

/// Runs `damage` on copies of a clean and of an unclean (never closed) store.
fn damage_both(rounds: u64, damage: impl Fn(&mut Vec<u8>, u64) -> String) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    submit_and_wait(&store, everything(30)).unwrap();
    let last = vec![Write::Source("last".into(), source(1)), Write::RemoveTask("web~3.01J".into())];
    submit_and_wait(&store, last.clone()).unwrap();
    let mut model = model_of(&everything(30));
    for write in last {
        model.apply(write);
    }
    let unclean = (fs::read(database(dir.path())).unwrap(), fs::read(dir.path().join("setpoint.mark")).unwrap());
    store.close().unwrap();
    let clean = (fs::read(database(dir.path())).unwrap(), fs::read(dir.path().join("setpoint.mark")).unwrap());

    for (name, (bytes, mark)) in [("clean", clean), ("unclean", unclean)] {
        let (mut refused, mut opened) = (0, 0);
        for round in 0..rounds {
            let dir = tempfile::tempdir().unwrap();
            let mut bytes = bytes.clone();
            let what = damage(&mut bytes, round);
            fs::write(database(dir.path()), bytes).unwrap();
            fs::write(dir.path().join("setpoint.mark"), &mark).unwrap();
            if open_damaged(dir.path(), &model, round, &format!("{name}, {what}")) { opened += 1 } else { refused += 1 }
        }
        println!("{name}: {refused} refused, {opened} opened with exactly the committed data");
        assert!(refused > 0);
    }
}

#[test]
fn flipped_bytes_give_the_committed_data_or_are_refused() {
    // Every byte of the header that matters, then bytes all over the file.
    damage_both(420, |bytes, round| {
        let at = if round < 320 { round as usize } else { fastrand::Rng::with_seed(round).usize(..bytes.len()) };
        let mask = fastrand::Rng::with_seed(round ^ 0xABCD).u8(1..);
        bytes[at] ^= mask;
        format!("byte {at} ^ {mask:#04x}")
    });
}

#[test]
fn overwritten_runs_give_the_committed_data_or_are_refused() {
    damage_both(100, |bytes, round| {
        let mut random = fastrand::Rng::with_seed(round);
        let at = random.usize(..bytes.len());
        let len = random.usize(1..9000).min(bytes.len() - at);
        let zero = random.bool();
        for byte in &mut bytes[at..at + len] {
            *byte = if zero { 0 } else { random.u8(..) };
        }
        format!("{len} bytes from {at}")
    });
}

#[test]
fn truncated_files_give_the_committed_data_or_are_refused() {
    damage_both(100, |bytes, round| {
        let len = match round {
            0 => 0,
            1 => 1,
            2..70 => bytes.len() * round as usize / 70,
            _ => bytes.len() - 1 - fastrand::Rng::with_seed(round).usize(..bytes.len()),
        };
        bytes.truncate(len);
        format!("cut to {len} bytes")
    });
}

#[test]
fn a_commit_that_reached_the_disk_in_part_is_as_if_it_had_not_been() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    let mark = dir.path().join("setpoint.mark");
    let mut random = fastrand::Rng::with_seed(7);
    let (mut old, mut new) = (0, 0);
    for n in 1..=12 {
        // Numbers that change all records, and now and then a file that has to grow.
        submit_and_wait(&store, numbered(2 * n)).unwrap();
        let (before, acknowledged) = (fs::read(database(dir.path())).unwrap(), fs::read(&mark).unwrap());
        let mut writes = numbered(2 * n + 1);
        let grown = SourceRecord { source: "x".repeat(n as usize * 30_000), ..source(n) };
        writes.push(Write::Source("grows".into(), grown));
        submit_and_wait(&store, writes).unwrap();
        let after = fs::read(database(dir.path())).unwrap();
        for _ in 0..12 {
            // A power cut: any of the pages written since the last sync may be there or not.
            let share = random.f64();
            let mut torn = before.clone();
            torn.resize(after.len(), 0);
            for (torn, after) in torn.chunks_mut(512).zip(after.chunks(512)) {
                if random.f64() < share {
                    torn.copy_from_slice(after);
                }
            }
            let copy = tempfile::tempdir().unwrap();
            fs::write(database(copy.path()), torn).unwrap();
            fs::write(copy.path().join("setpoint.mark"), &acknowledged).unwrap();
            let (_store, stored) = Store::open(copy.path()).expect("a torn commit is no damage");
            let found = number_of(&stored);
            assert!(found == 2 * n || found == 2 * n + 1, "{found} after {}", 2 * n);
            if found == 2 * n { old += 1 } else { new += 1 }
        }
    }
    println!("{old} rolled back, {new} complete");
    assert!(old > 0);
}

#[test]
fn an_older_file_put_in_place_of_the_store_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    submit_and_wait(&store, everything(1)).unwrap();
    let older = fs::read(database(dir.path())).unwrap();
    submit_and_wait(&store, vec![Write::Source("later".into(), source(1))]).unwrap();
    drop(store);
    fs::write(database(dir.path()), &older).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("had been written"), "{error}");
    assert!(fs::read(database(dir.path())).unwrap() == older);
    // A store moved aside is a new start, whatever the old one's mark says.
    fs::rename(database(dir.path()), dir.path().join("aside")).unwrap();
    let (_store, stored) = Store::open(dir.path()).unwrap();
    assert_eq!(Model::from(stored), Model::default());
}
