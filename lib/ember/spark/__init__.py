"""What every job stands on: session, tables, staging and publishing, accounting, GPUs."""
