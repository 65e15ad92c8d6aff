"""What tells two tables apart: sums over their rows, and tests on the sums. No Spark here."""
