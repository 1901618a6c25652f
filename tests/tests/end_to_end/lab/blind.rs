//! A hook that is taken away under a running sensor: it gives no error, it gives silence. While the interface goes on
//! counting, the sensor is told to be blind within ten seconds.

use std::{process::Command, time::Instant};

use onenet_tests::wire::Wire;

use super::{
    bpf_permitted, inside,
    libpcap::{Tap, frames},
    pair,
};
use crate::harness::{Lab, run, wait_for};

#[test]
fn a_hook_that_goes_silent_while_the_interface_counts_is_a_finding() {
    inside("blind::in_the_lab", &pair("tap0", "wire0"));
}

#[test]
#[ignore = "runs in the namespaces that a_hook_that_goes_silent_while_the_interface_counts_is_a_finding makes"]
fn in_the_lab() {
    if !bpf_permitted() {
        println!("LAB SKIPPED: without eBPF there is no hook to take away");
        return;
    }
    let mut lab = Lab::new(None, "");
    lab.start();
    let tap = Tap::start_by("ebpf", &lab, "blind", &["tap0"], "hook = \"clsact\"\n");
    let wire = Wire::open("wire0").expect("the wire");
    let send = |count| wire.send(&frames(count, 100, false), 2000).expect("sent");
    send(2000);
    let account = tap.account(2000);
    assert_eq!(account["unexplained"], 0, "{account:#}");
    assert!(lab.items("/api/v1/findings").is_empty(), "nothing is wrong yet");

    run(Command::new("tc").args(["qdisc", "del", "dev", "tap0", "clsact"])).success();
    let start = Instant::now();
    let finding = wait_for("the finding", || {
        send(20);
        lab.items("/api/v1/findings").into_iter().find(|finding| finding["rule"] == "sensor.blind")
    });
    let after = start.elapsed();
    assert_eq!(finding["interfaces"], serde_json::json!(["tap0"]), "{finding:#}");
    assert!(finding["summary"].as_str().is_some_and(|text| text.starts_with("ebpf ingress")), "{finding:#}");
    println!("LAB blind after {:.1} s: {}", after.as_secs_f64(), finding["summary"]);
    assert!(after.as_secs() < 10, "{after:?}");
    tap.stop();
}
