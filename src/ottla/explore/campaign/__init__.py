"""Our own campaign: clients, faults and invariants; a seed decides all that happens (`ottla simulate`)."""
