"""Speed and memory as figures: each is a ratio of two things that run in turn on one machine, held against a bound.

`python -m benchmarks` measures, `python -m benchmarks.table` writes the tables of README.md and docs/results.md from what was
measured. `figures` lists what there is, `setting` how it is run, `measures` how times become a figure, `record` keeps them in
assets/results; every other module measures a group of figures, in a process of its own.
"""
