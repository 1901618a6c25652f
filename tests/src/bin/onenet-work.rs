//! Feeds packets that cost as much as they can to a sensor, for callgrind to count the instructions: it collects in
//! `measured` and dumps behind `sort_ends`.

use onenet_tests::work;

#[inline(never)]
fn measured(feed: &mut dyn FnMut()) {
    feed();
    // The call must not be the last thing, or there is no return to see.
    std::hint::black_box(());
}

#[inline(never)]
fn sort_ends(name: &str) {
    println!("{name}");
}

fn main() {
    work::run(measured, sort_ends);
}
