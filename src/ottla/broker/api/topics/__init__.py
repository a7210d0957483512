"""Topics: what there is, made, changed and deleted."""
