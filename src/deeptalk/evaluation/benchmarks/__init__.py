"""Scores on public benchmarks, by named rules: nothing is compared across differently named ones."""
