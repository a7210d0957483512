"""Users' own asyncio programs under virtual time: their loop, clocks and chance, and the limits of both."""
