"""The words of replies, in the languages that LANG offers (RFC 6856 §3).

English is the key, so that code reads as what is said. A text may have ``{names}`` to be filled in. What is not in a
language's column stays English: so do the words of a driver's own answers, unless they are in the table too, and what
a SASL mechanism says of a message that is none of its own.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

__all__ = ["DEFAULT_LANGUAGE", "LANGUAGES", "choose", "translate"]

DEFAULT_LANGUAGE: Final = "en"
"""What is spoken before a LANG."""

LANGUAGES: Final = MappingProxyType({"en": "English", "de": "Deutsch", "fr": "Français", "es": "Español"})
"""Language tags (RFC 5646), with the language's name for itself."""

_COLUMNS: Final = ("de", "fr", "es")

# fmt: off
_TEXTS: Final[dict[str, tuple[str, ...]]] = {
    "POP3 server ready":
        ("POP3-Server bereit", "serveur POP3 prêt", "servidor POP3 listo"),
    "bye":
        ("auf Wiedersehen", "au revoir", "adiós"),
    "send PASS":
        ("bitte PASS senden", "envoyez PASS", "envíe PASS"),
    "begin TLS now":
        ("TLS beginnt jetzt", "TLS commence maintenant", "comience TLS ahora"),
    "nothing may follow STLS before TLS; closing":
        ("hinter STLS darf vor TLS nichts folgen; die Verbindung endet",
         "rien ne peut suivre STLS avant TLS ; la connexion se ferme",
         "nada puede seguir a STLS antes de TLS; se cierra la conexión"),
    "UTF8 is on":
        ("UTF8 ist eingeschaltet", "UTF8 est activé", "UTF8 está activado"),
    "this is spoken now":
        ("das wird jetzt gesprochen", "cette langue est parlée maintenant", "este idioma se habla ahora"),
    "languages follow":
        ("es folgen die Sprachen", "voici les langues", "siguen los idiomas"),
    "capabilities follow":
        ("es folgen die Fähigkeiten", "voici les capacités", "siguen las capacidades"),
    "unique-ids follow":
        ("es folgen die Kennungen", "voici les identifiants", "siguen los identificadores"),
    "top of message follows":
        ("es folgt der Anfang der Nachricht", "voici le début du message", "sigue el principio del mensaje"),
    "marked as deleted":
        ("zum Löschen vorgemerkt", "marqué pour suppression", "marcado para borrar"),
    "{messages} messages ({octets} octets)":
        ("{messages} Nachrichten ({octets} Oktette)", "{messages} messages ({octets} octets)",
         "{messages} mensajes ({octets} octetos)"),
    "no such message":
        ("keine solche Nachricht", "aucun message de ce numéro", "no existe tal mensaje"),
    "unknown command":
        ("unbekanntes Kommando", "commande inconnue", "orden desconocida"),
    "{keyword} is not valid in the {state} state":
        ("{keyword} gilt nicht im Zustand {state}", "{keyword} n'est pas valable dans l'état {state}",
         "{keyword} no vale en el estado {state}"),
    "{keyword} is not offered here":
        ("{keyword} wird hier nicht angeboten", "{keyword} n'est pas proposé ici", "{keyword} no se ofrece aquí"),
    "{keyword} needs TLS first: say STLS, or connect to port 995":
        ("{keyword} braucht erst TLS: STLS senden oder mit Port 995 verbinden",
         "{keyword} demande d'abord TLS : envoyez STLS ou utilisez le port 995",
         "{keyword} necesita antes TLS: envíe STLS o use el puerto 995"),
    "{keyword} needs TLS first: connect to port 995":
        ("{keyword} braucht erst TLS: mit Port 995 verbinden", "{keyword} demande d'abord TLS : utilisez le port 995",
         "{keyword} necesita antes TLS: use el puerto 995"),
    "{keyword} is not valid behind TLS":
        ("{keyword} gilt nicht hinter TLS", "{keyword} n'est pas valable sous TLS", "{keyword} no vale bajo TLS"),
    "a command has at most {octets} octets":
        ("ein Kommando hat höchstens {octets} Oktette", "une commande a au plus {octets} octets",
         "una orden tiene como máximo {octets} octetos"),
    "wrong user name or password":
        ("Benutzername oder Passwort falsch", "nom d'utilisateur ou mot de passe incorrect",
         "usuario o contraseña incorrectos"),
    "logins cannot be checked now, try again later":
        ("Anmeldungen können gerade nicht geprüft werden, bitte später wieder versuchen",
         "les identifiants ne peuvent être vérifiés maintenant, réessayez plus tard",
         "los accesos no se pueden comprobar ahora, inténtelo más tarde"),
    "too many failed logins, try again later":
        ("zu viele gescheiterte Anmeldungen, später wieder versuchen",
         "trop de connexions échouées, réessayez plus tard",
         "demasiados inicios de sesión fallidos, inténtelo más tarde"),
    "this login comes too soon after the last one":
        ("diese Anmeldung kommt zu bald nach der letzten", "cette connexion suit la précédente de trop près",
         "esta sesión sigue demasiado pronto a la anterior"),
    "the mailbox is in use by another session":
        ("das Postfach wird gerade von einer anderen Sitzung benutzt", "la boîte est utilisée par une autre session",
         "el buzón está en uso por otra sesión"),
    "authentication was cancelled":
        ("die Anmeldung wurde abgebrochen", "l'authentification a été annulée", "la autenticación fue cancelada"),
    "an answer is base64":
        ("eine Antwort ist Base64", "une réponse est en base64", "una respuesta es base64"),
    "this mechanism is not offered":
        ("dieses Verfahren wird nicht angeboten", "ce mécanisme n'est pas proposé", "este mecanismo no se ofrece"),
    "this language is not spoken":
        ("diese Sprache wird nicht gesprochen", "cette langue n'est pas parlée", "este idioma no se habla"),
    "usage: {usage}":
        ("so: {usage}", "usage : {usage}", "uso: {usage}"),
    "a number has 1 to 10 ASCII digits":
        ("eine Zahl hat 1 bis 10 ASCII-Ziffern", "un nombre a de 1 à 10 chiffres ASCII",
         "un número tiene de 1 a 10 cifras ASCII"),
    "message numbers begin with 1":
        ("Nachrichtennummern beginnen mit 1", "les numéros de message commencent à 1",
         "los números de mensaje empiezan en 1"),
    "an argument is one word without blanks or control characters":
        ("ein Argument ist ein Wort ohne Leer- und Steuerzeichen",
         "un argument est un mot sans blancs ni caractères de contrôle",
         "un argumento es una palabra sin blancos ni caracteres de control"),
    "an argument is ASCII or valid UTF-8":
        ("ein Argument ist ASCII oder gültiges UTF-8", "un argument est en ASCII ou en UTF-8 valide",
         "un argumento es ASCII o UTF-8 válido"),
    "the password is missing":
        ("das Passwort fehlt", "le mot de passe manque", "falta la contraseña"),
    "a password has no control characters":
        ("ein Passwort hat keine Steuerzeichen", "un mot de passe n'a pas de caractères de contrôle",
         "una contraseña no tiene caracteres de control"),
    "a mechanism is 1 to 20 letters, digits, hyphens and underscores":
        ("ein Verfahren hat 1 bis 20 Buchstaben, Ziffern, Binde- und Unterstriche",
         "un mécanisme a de 1 à 20 lettres, chiffres, traits d'union et tirets bas",
         "un mecanismo tiene de 1 a 20 letras, cifras, guiones y guiones bajos"),
    "an empty initial response is written =":
        ("eine leere erste Antwort schreibt sich =", "une première réponse vide s'écrit =",
         "una primera respuesta vacía se escribe ="),
    "a digest is 32 lower-case hexadecimal digits":
        ("ein Digest hat 32 kleine Hexadezimalziffern", "un condensé a 32 chiffres hexadécimaux minuscules",
         "un resumen tiene 32 cifras hexadecimales minúsculas"),
    "a language tag is like de or pt-BR":
        ("eine Sprache schreibt sich wie de oder pt-BR", "une langue s'écrit comme de ou pt-BR",
         "un idioma se escribe como de o pt-BR"),
    "{left} of {marked} deleted messages could not be removed":
        ("{left} von {marked} gelöschten Nachrichten konnten nicht entfernt werden",
         "{left} des {marked} messages supprimés n'ont pas pu être retirés",
         "{left} de {marked} mensajes borrados no se pudieron eliminar"),
}
# fmt: on


def translate(language: str, text: str, **values: object) -> str:
    """``text`` in a language of `LANGUAGES`, with its names filled in."""
    if language != DEFAULT_LANGUAGE and (columns := _TEXTS.get(text)) is not None:
        text = columns[_COLUMNS.index(language)]
    return text.format(**values) if values else text


def choose(tag: str, offered: tuple[str, ...]) -> str | None:
    """The offered language that a tag asks for; None when there is none.

    A tag is compared without case, and from its longest form to its shortest: ``de-AT`` finds ``de`` (RFC 4647 §3.4).
    ``*`` is the default (RFC 6856 §3.2).
    """
    if tag == "*":
        return offered[0] if offered else None
    parts = tag.lower().split("-")
    while parts:
        if (found := "-".join(parts)) in offered:
            return found
        parts.pop()
    return None
