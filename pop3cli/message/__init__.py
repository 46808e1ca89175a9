"""What a message says: its parts, its text, its attachments, what fills a mailbox.

Content is foreign and hostile: each module works in time and memory that grow with the content and no faster. Needs no
connection. Part of the library.
"""
