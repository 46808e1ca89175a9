"""A process that asks PAM, for `pop3d.auth.pam`; run by its path, and so without anything of pop3d.

A question is a line on standard input, a word and hexadecimal digits with colons between: ``login:NAME:PASSWORD:HOST``
asks whether it is he and whether he may log in, ``account:NAME::HOST`` the latter only. The answer is a line on
standard output: PAM's result, 0 for yes, and what PAM calls it. It ends with its input.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from pam import PAM_DISALLOW_NULL_AUTHTOK, PAM_RHOST, PAM_SILENT, PAM_SUCCESS, PamAuthenticator

__all__ = ["main"]

_NO_RESULT = -1  # none of PAM's


def main() -> None:
    """Answer, one question after the other. The argument is the PAM service."""
    service = sys.argv[1]
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # systemctl kill sends them to all processes, and means the daemon
        signal.signal(number, signal.SIG_IGN)
    os.environ.pop("DISPLAY", None)  # python-pam would tell modules that this is the user's terminal
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", 0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # what modules say there, or ask, is for nobody
        os.dup2(nowhere, descriptor)
    for line in questions:
        what, *fields = line.decode().split(":")
        name, password, host = map(bytes.fromhex, fields)
        result, text = _asked(service, name, password, host, known={"login": False, "account": True}[what])
        answers.write(f"{result} {' '.join(text.split())}\n".encode())


def _asked(service: str, name: bytes, password: bytes, host: bytes, *, known: bool) -> tuple[int, str]:
    one = PamAuthenticator()
    proves = one.pam_authenticate

    def authenticate(handle: Any, _flags: int) -> int:
        if host and (fault := int(one.pam_set_item(handle, PAM_RHOST, host))) != PAM_SUCCESS:
            return fault  # a module that asks where from must not believe that it is from here
        # an account without a password lets nobody in, whatever the service says of that
        return PAM_SUCCESS if known else int(proves(handle, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK))

    one.pam_authenticate = authenticate
    try:
        # both phases: is it he (auth), and may he (account)? No credentials are taken: no program is run for him.
        good = one.authenticate(name, password, service, resetcreds=False)
    except Exception as fault:  # whatever goes wrong, nobody is let in
        return _NO_RESULT, type(fault).__name__
    return (0 if good else one.code or _NO_RESULT), str(one.reason)


if __name__ == "__main__":
    main()
