//! `run`: shows a parser what nobody meant to write, for a bounded time, on the stable compiler.
//!
//! The inputs of a target are its seeds, changed: cut, joined, repeated, overwritten with words of
//! its grammar and with anything. A seed that once broke something stays in the target's list. What
//! fails is shrunk by proptest and printed with the number that leads there again.
//!
//! `WISR_FUZZ_SECONDS` is each target's budget (1 without it), `WISR_FUZZ_SEED` where a run begins.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

/// The budget in the suite: enough to find again what has been found before.
const SECONDS: f64 = 1.0;

/// Inputs that follow from one number; few, so that a failure is reached again at once.
const BATCH: u32 = 256;

/// Changes to one seed: more would leave nothing of it.
const CHANGES: usize = 8;

/// What a property says of one input.
pub(crate) type Verdict = Result<(), TestCaseError>;

/// Holds `property` against `inputs` until the budget is spent.
#[track_caller]
pub(crate) fn run<S: Strategy>(target: &str, inputs: &S, property: impl Fn(S::Value) -> Verdict) {
    let seconds = number("WISR_FUZZ_SECONDS").unwrap_or(SECONDS);
    let first = number("WISR_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    match search(Duration::from_secs_f64(seconds), first, inputs, property) {
        Ok(executions) => {
            eprintln!("fuzz {target}: {executions} inputs in {seconds} s, seed {first}");
        }
        Err(failure) => panic!("fuzz {target}: {failure}"),
    }
}

/// How many inputs held, or the smallest that did not.
fn search<S: Strategy>(
    budget: Duration,
    first: u64,
    inputs: &S,
    property: impl Fn(S::Value) -> Verdict,
) -> Result<u64, String> {
    let start = Instant::now();
    let mut executions = 0;
    loop {
        let seed = first.wrapping_add(executions);
        let config = Config {
            cases: BATCH,
            rng_seed: RngSeed::Fixed(seed),
            failure_persistence: None,
            ..Config::default()
        };
        match TestRunner::new(config).run(inputs, &property) {
            Ok(()) => executions += u64::from(BATCH),
            Err(TestError::Abort(reason)) => return Err(reason.to_string()),
            Err(TestError::Fail(reason, input)) => {
                return Err(format!(
                    "{reason}\n\
                     the smallest such input: {input:?}\n\
                     again: WISR_FUZZ_SEED={seed}"
                ));
            }
        }
        if start.elapsed() >= budget {
            return Ok(executions);
        }
    }
}

fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse().ok();
    assert!(number.is_some(), "{variable} is a number, {text:?} is none");
    number
}

/// Texts that are like one of `seeds`; `words` are what the grammar is made of.
pub(crate) fn text(seeds: &[&str], words: &[&str]) -> impl Strategy<Value = String> + use<> {
    let letters = |texts: &[&str]| texts.iter().map(|text| text.chars().collect()).collect();
    let letter = prop_oneof![any::<char>(), prop::char::range(' ', '~')];
    changed(letters(seeds), letters(words), letter).prop_map(|text| text.into_iter().collect())
}

/// Bytes that are like one of `seeds`.
pub(crate) fn bytes(
    seeds: Vec<Vec<u8>>,
    words: &[&[u8]],
) -> impl Strategy<Value = Vec<u8>> + use<> {
    let words = words.iter().map(|word| word.to_vec()).collect();
    changed(seeds, words, any::<u8>())
}

/// A place and what happens there.
#[derive(Debug, Clone)]
enum Change<T> {
    Set(Index, T),
    Insert(Index, Vec<T>),
    Remove(Index, usize),
    Repeat(Index, usize),
    Cut(Index),
    /// The rest is that of another seed.
    Join(Index, Vec<T>, Index),
}

fn changed<T: Debug + Clone + 'static>(
    seeds: Vec<Vec<T>>,
    words: Vec<Vec<T>>,
    unit: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Vec<T>> {
    let unit = unit.boxed();
    let place = any::<Index>;
    let length = 1..16_usize;
    let changes = prop_oneof![
        3 => (place(), unit.clone()).prop_map(|(at, unit)| Change::Set(at, unit)),
        2 => (place(), unit).prop_map(|(at, unit)| Change::Insert(at, vec![unit])),
        4 => (place(), select(words)).prop_map(|(at, word)| Change::Insert(at, word)),
        2 => (place(), length.clone()).prop_map(|(at, length)| Change::Remove(at, length)),
        2 => (place(), length).prop_map(|(at, length)| Change::Repeat(at, length)),
        1 => place().prop_map(Change::Cut),
        2 => (place(), select(seeds.clone()), place())
            .prop_map(|(at, other, from)| Change::Join(at, other, from)),
    ];
    let changes = prop::collection::vec(changes, 0..=CHANGES);
    (select(seeds), changes).prop_map(|(mut input, changes)| {
        for change in changes {
            apply(&mut input, change);
        }
        input
    })
}

fn apply<T: Clone>(input: &mut Vec<T>, change: Change<T>) {
    let place = |at: &Index| at.index(input.len() + 1);
    let until = |at: usize, length: usize| (at + length).min(input.len());
    match change {
        Change::Set(at, unit) => {
            let at = place(&at);
            input.splice(at..until(at, 1), [unit]);
        }
        Change::Insert(at, units) => {
            let at = place(&at);
            input.splice(at..at, units);
        }
        Change::Remove(at, length) => {
            let at = place(&at);
            input.drain(at..until(at, length));
        }
        Change::Repeat(at, length) => {
            let at = place(&at);
            let part = input[at..until(at, length)].to_vec();
            input.splice(at..at, part);
        }
        Change::Cut(at) => input.truncate(place(&at)),
        Change::Join(at, other, from) => {
            input.truncate(place(&at));
            input.extend_from_slice(&other[from.index(other.len() + 1)..]);
        }
    }
}

#[test]
fn what_fails_is_shrunk_and_its_seed_is_told() {
    let inputs = text(&["harmless"], &["bad"]);
    let failure = search(Duration::MAX, 0, &inputs, |input| {
        prop_assert!(!input.contains("bad"), "it is bad");
        Ok(())
    });
    let failure = failure.unwrap_err();
    assert!(failure.starts_with("it is bad"), "{failure}");
    let (_, told) = failure.split_once("such input: ").unwrap();
    let (smallest, seed) = told.split_once("\nagain: WISR_FUZZ_SEED=").unwrap();
    assert!(smallest.len() <= "\"badharmless\"".len(), "{smallest}");
    let again = search(Duration::ZERO, seed.parse().unwrap(), &inputs, |input| {
        prop_assert!(!input.contains("bad"));
        Ok(())
    });
    assert!(again.is_err(), "the seed leads to it at once");
}
