"""The language study: small models that know one task learn another. `benchmarks/language_study.py` runs it."""
