"""The words of the command line: arguments, options, completion, and how a run begins and ends.

May touch everything. Nothing is done about a command here, and its modules are imported when it is run.
"""
