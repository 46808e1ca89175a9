"""What reaches the terminal: lines, tables, progress, sizes and dates. Nothing gets there but by this.

May touch errors and `pop3cli.sanitize` only.
"""
