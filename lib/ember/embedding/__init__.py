"""Row jobs: embed, classify and describe. One output row for each input row."""
