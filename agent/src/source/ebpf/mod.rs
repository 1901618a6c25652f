//! A network interface, by eBPF: the kernel counts packets by flow and hands on those that say more.

mod interval;
