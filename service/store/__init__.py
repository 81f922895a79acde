"""The database: what survives a crash, one transaction, fenced by epochs; it may use `domain`
and `settings`.
"""
