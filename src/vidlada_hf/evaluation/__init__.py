"""Measuring: benchmarks whose answers are known, and what a strategy costs and saves on them."""
