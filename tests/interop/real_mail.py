"""Mail of real shapes, as files of a Maildir hold it."""

import base64
import random
from email.message import EmailMessage

ATTACHMENT_OCTETS = 20 * 1024 * 1024


def text(subject: str, body: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Jörg Müller <joerg@example.org>"
    message["To"] = "alice@example.org"
    message["Subject"] = subject
    message["Date"] = "Mon, 01 Jan 2024 09:00:00 +0000"
    message["Message-ID"] = f"<{abs(hash(subject))}@example.org>"
    message.set_content(body)
    return message


def with_attachment(octets: int) -> bytes:
    """A message with an attachment of that size, as an MTA stores it: LF line ends, base64 lines of 76."""
    rest = random.Random(1939).randbytes(octets)
    head = (
        b"From: bob@example.org\nSubject: holiday pictures\nMIME-Version: 1.0\n"
        b'Content-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: text/plain\n\nSee attached.\n.\n'
        b"--b\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n"
    )
    return head + base64.encodebytes(rest) + b"--b--\n"


MESSAGES: dict[str, bytes] = {
    "new/01.lf": text("LF line ends", "one\ntwo\n").as_bytes(),
    "cur/02.crlf:2,S": text("CRLF line ends", "one\ntwo\n").as_bytes().replace(b"\n", b"\r\n"),
    "new/03.dots": b".\n..\n.hidden\n...\n.",
    "cur/04.dots-crlf:2,": b"Subject: dots\r\n\r\n.\r\n..\r\n.\r\n",
    "new/05.8bit": b"Subject: caf\xe9 \xff\xfe\n\nM\xfcller\n\x80\x81\n",
    "new/06.utf8": "Subject: naïve ✓\n\n日本語のメール\n".encode(),
    "new/07.no-final-newline": b"Subject: cut short\n\nno newline at the end",
    "new/08.empty": b"",
    "new/09.one-newline": b"\n",
    "new/10.mixed": b"Subject: mixed\r\n\nlf\ncrlf\r\nlf again\n",
    "new/11.long-line": b"Subject: long\n\n" + b"x" * 100_000 + b"\n",
    "new/12.html": text("with HTML", "plain\n").as_bytes(),
    "new/13.attachment": with_attachment(ATTACHMENT_OCTETS),
}


def as_sent(stored: bytes) -> bytes:
    """What RETR must give for a file: every LF as CRLF, the last line ended."""
    sent = stored.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return sent if not sent or sent.endswith(b"\r\n") else sent + b"\r\n"
