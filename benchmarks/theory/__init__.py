"""The pages of docs/theory: what is measured, drawn and said, one module a page."""
