//! Traffic generator with planted truth, and the tests that run the real programs.

pub mod chaos;
pub mod craft;
pub mod feed;
pub mod fuzz;
pub mod load;
pub mod meter;
pub mod programs;
pub mod traffic;
pub mod wire;
pub mod work;
