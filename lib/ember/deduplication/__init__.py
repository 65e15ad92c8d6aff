"""Copies in a corpus: found by tiers, grouped, and all but one of each group removed."""
