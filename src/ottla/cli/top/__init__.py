"""`ottla top`: snapshots of a cluster, what is to be seen of them (all of it pure), and a terminal for it."""
