"""Events that were taken over HTTP, on disk until they are processed; it may use
`sources.source` and `records`.
"""
