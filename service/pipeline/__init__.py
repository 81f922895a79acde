"""The loop: poll, watch, one transaction, commit, act; it may use every room but `api` and
`demo`.
"""
