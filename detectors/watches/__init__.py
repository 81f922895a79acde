"""Stage 1: what watches a stream, learned from its reference; it may use charts, martingales,
adapters and scores.
"""
