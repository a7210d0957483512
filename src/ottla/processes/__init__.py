"""`ottla serve --processes N`: nodes on one machine as processes of one command.

``layout`` says what each of them is started with (pure); ``child`` is the program of one; ``supervisor``
starts them, starts those again that die, and keeps their metadata store, unless they have one elsewhere.
"""
