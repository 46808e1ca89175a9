"""What can be seen of the daemon: the log, metrics, and the report of each session.

May touch nothing else of the daemon: others tell it what happens.
"""
