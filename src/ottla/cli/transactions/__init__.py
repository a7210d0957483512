"""`ottla transaction`: what producers have open, and how what hangs is ended."""
