"""Where records come from, lane by lane: files, pipes, HTTP and Kafka; it may use `settings`
and `records`.
"""
