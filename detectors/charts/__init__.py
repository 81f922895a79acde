"""Charts over scores and the calibration of their thresholds; it may use `learners` and the
modules at the root.
"""
