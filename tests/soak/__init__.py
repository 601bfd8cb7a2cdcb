"""Endurance: a gateway of several workers under everything that happens to one, for as long as is asked.

`make soak` runs it. What runs is in world.py, what happens to it in traffic.py, what is measured and judged in
watch.py.
"""
