//! Biscuit leases: mint, attenuate, verify, authorize. Pure: no I/O, time is passed in.
