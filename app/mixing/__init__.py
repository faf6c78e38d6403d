"""The tab Mixing: the learned ratios, how they were learned, what-ifs and the sweep.

Here live its form, its requests, its figures and its HTML. From outside only app/page.py touches it: `tab.build`, `handlers`.
"""
