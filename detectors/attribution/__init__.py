"""Tests of the factors on two windows, and the verdict that follows; it may use `learners` and
`base`.
"""
