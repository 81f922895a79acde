"""From a verdict to a better champion: jobs, processes, candidates and champions; it may use
`models`, `store`, `sources` and what is below.
"""
