"""How rows lie in words of integers: what packing, rounding and the kernel agree on."""

LEADING = 16
"""Coordinates in int16."""
PANEL_COLUMNS = 16
"""Rows of the right side whose values lie side by side."""
