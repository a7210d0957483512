"""Regular expressions as Java has them, matched in time that is bounded: for rules that name clients."""
