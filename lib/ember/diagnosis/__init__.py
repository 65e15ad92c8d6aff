"""What there is on a cluster, what will go wrong there, and which setting to change: `doctor`.

`gathering` asks the driver and every executor, and `probes` the file systems; what they find is a
`facts.Facts`. The rules in `programs`, `resources` and `surroundings` are functions from these
facts to findings; `page` puts both into words.
"""
