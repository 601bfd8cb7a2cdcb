"""The composition root: it turns settings into objects and runs the servers. No other package reads settings to build
objects.
"""
