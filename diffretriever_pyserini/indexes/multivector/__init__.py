"""MaxSim over K vectors per passage: exact over a store, or over compressed records of a fixed size."""
