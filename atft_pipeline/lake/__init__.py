"""Where data lies: atomic, self-describing, verifiable files, and a DuckDB warehouse over all of them."""
