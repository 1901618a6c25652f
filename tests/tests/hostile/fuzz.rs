//! The short fuzz run: a mutator with a fixed seed over the seeds, the committed corpus and packets of real captures,
//! in every target. `ONENET_FUZZ_RUNS` multiplies the executions.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use onenet_core::decode::LinkType;
use onenet_tests::fuzz::{
    LINK_TYPES,
    mutate::Mutator,
    seeds::{TARGETS, seeds},
};

use crate::kit::{captures, packets, say};

/// Mutated inputs of each target, in order of [`TARGETS`].
const EXECUTIONS: [usize; 5] = [400_000, 6_000, 40_000, 40_000, 200_000];

/// Where libFuzzer's finds are kept, one folder for each target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let Ok(entries) = directory.read_dir() else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("the corpus can be listed").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("the corpus can be read")).collect()
}

/// Packets of real captures as inputs of `decode`.
fn captured() -> Vec<Vec<u8>> {
    let index = |link_type: LinkType| LINK_TYPES.iter().position(|&known| known == link_type.0);
    let found = captures().iter().flat_map(|file| packets(file, 12, 300)).collect::<Vec<_>>();
    let input = |(link_type, data): (LinkType, Vec<u8>)| {
        Some([&[u8::try_from(index(link_type)?).ok()?, 0][..], &data].concat())
    };
    found.into_iter().filter_map(input).collect()
}

#[test]
fn mutated_inputs_break_no_promise_of_any_target() {
    let factor: usize =
        std::env::var("ONENET_FUZZ_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1);
    let mut told = Vec::new();
    for ((target, run, longest), executions) in TARGETS.into_iter().zip(EXECUTIONS) {
        let mut inputs = seeds(target);
        let own = inputs.len();
        inputs.extend(corpus(target));
        let kept = inputs.len() - own;
        if target == "decode" {
            inputs.extend(captured());
        }
        let executions = executions * factor;
        let mut mutator = Mutator::new(20_261_121);
        let mutated = (0..executions).map(|_| mutator.next(&inputs, longest));
        for input in inputs.iter().cloned().chain(mutated) {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&input))) {
                say(&format!("fuzz target {target} breaks on {} bytes: {input:02x?}", input.len()));
                std::panic::resume_unwind(panic);
            }
        }
        told.push(format!(
            "{target} {} (seeds {own}, corpus {kept}, inputs {})",
            executions + inputs.len(),
            inputs.len()
        ));
    }
    say(&format!("fuzz run, executions without a finding: {}", told.join(", ")));
}
