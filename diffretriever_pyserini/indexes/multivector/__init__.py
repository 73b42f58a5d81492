"""MaxSim over K vectors a passage: exact over a store, or over compressed records of a fixed size."""
