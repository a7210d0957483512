"""The group coordinator: `runtime` and `shard` do the I/O, the machines that they drive are pure."""
