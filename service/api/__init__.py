"""What people and machines touch: the life of the process, HTTP, the page, replay; it may use
every room but `demo`.
"""
