"""Jobs: corpora of pairs in, files of scores out, whatever happens on the way.

A job reads rows a window at a time (`readers`, `source`, `windows`), scores each window (`scorer`, `workers`; texts
known by their ids come from a `store`), and writes it as a part that is whole or not there (`directory`, `writers`).
"""
