"""The fusion study: one identity at a time, does it survive being fused? `benchmarks/fusion_study.py` runs it."""
