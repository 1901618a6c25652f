//! A bad network between a sensor and its collector: a TCP proxy on loopback that cuts connections, refuses new ones,
//! falls silent without closing anything, delays and throttles. What goes through is TLS, so it works on connections
//! and bytes and changes none of them.

mod proxy;

pub use proxy::{Link, Proxy, Totals};
