"""What others hear of it: the outbox, webhooks, topics and dead letters; it may use `store`,
`sources` and what is below.
"""
