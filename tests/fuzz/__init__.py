"""Fuzzing of whatever reads bytes from outside. A target (targets.py) takes bytes and raises where a promise is broken.

`make fuzz` runs atheris on each, guided by what the bytes reach, from the corpus here; `make test` runs the corpus and
what hypothesis makes of it.
"""
