"""``pop3cli doctor``: a POP3 server, examined from outside.

`pop3cli.doctor.raw_connection` is a connection that shows what is on it, octet for octet, and says what no client
should; `patient` opens such connections and remembers what they brought; each examination is one function, in a module
by what it is about, and all stand in one table, `table.EXAMINATIONS`; `command` runs them and `report` tells what was
found.
"""
