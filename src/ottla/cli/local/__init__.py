"""`ottla cluster up`: a cluster on this machine, for a person to try.

``layout`` says what there is and with which commands it runs (pure); ``child`` is one process;
``supervisor`` starts them, tells of those that die, and stops them in order; ``up`` is the command, which
asks the supervisor of a cluster that runs already.
"""
