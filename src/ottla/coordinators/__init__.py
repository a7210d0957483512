"""Coordinators: pure machines (`groups`), and what hosts them over internal topics (`runtime`)."""
