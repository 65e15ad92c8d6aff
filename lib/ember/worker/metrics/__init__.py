"""Figures and their bootstrap intervals from sums that merge in any order, in numpy."""
