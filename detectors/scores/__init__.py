"""Score maps: what observations and labels become before a chart watches them; it may use
`learners` and `rows`.
"""
