"""Measure documents once, judge them as often as wanted, and say where every document went.

In: `documents/` and the final state of their images. Out: `signals/`, `repeats/`, one folder of masks per pass, and the
funnel. Nothing here opens a file or knows an engine: functions take rows and tables of one part and return them.
"""
