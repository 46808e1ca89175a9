"""What a store can do wrong. Each kind is an exception of its own, so that Hypothesis shrinks each by itself."""


class Fault(AssertionError):
    """The store broke a promise."""


class Lost(Fault):
    """Octets are gone that nobody had marked."""


class Resurrected(Fault):
    """A message is there although its removal was confirmed."""


class WrongMessage(Fault):
    """RETR gave octets that are not those of the listed message."""


class WrongSize(Fault):
    """LIST says a size that the message has not got."""


class WrongListing(Fault):
    """The listing has more or fewer messages than the mailbox: an error shows as a shorter mailbox."""


class UniqueIdMoved(Fault):
    """A message is listed under another unique-id than before, or a unique-id stands for another message."""


class Intruded(Fault):
    """What belongs to somebody else was listed, read, changed or removed."""


class Littered(Fault):
    """Something was made or renamed that nobody asked for."""


class Refused(Fault):
    """An error although nothing was wrong: a client or an administrator is stuck."""


class NotRefused(Fault):
    """No error although something was wrong."""


class Crashed(Fault):
    """An exception that is none of the contract."""


class Leaked(Fault):
    """A descriptor is still open behind the end of a session."""
