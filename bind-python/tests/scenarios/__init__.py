"""The scenario files of `tests/scenarios`, driven through Python byte by byte and in virtual time.

`language` reads the files, `layout` makes their mesh (of `workloads` or of `pods`), `network` carries bytes between proxies and `peer`s, `world` lets the
commands happen, `journal` writes down what was seen, and `runner` compares it.
"""
