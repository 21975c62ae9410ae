"""Benchmarks of celeriac against what people use instead. See README.md beside this file.

Run from the root of a clone, with the package installed: `python -m benchmarks.cache`,
`python -m benchmarks.queue`, `python -m benchmarks.celery`. Not part of the installed package.
"""
