"""Topics of Kafka behind two clients with one contract; it may use `sources.source`, `settings`
and `records`.
"""
