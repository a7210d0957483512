"""How much the coordinators' machines do before other work may have its turn."""

# How many groups, members or offsets are looked at in one piece: some milliseconds' worth.
PIECE = 500
