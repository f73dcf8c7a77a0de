"""What the program costs and what it is worth: python -m tests.benchmarks --help."""
