"""What of each document is kept: by allow-list, secrets masked, JSON pointers unmoved."""


class RedactionError(Exception):
    """A document that cannot be understood cannot be cleared of secrets."""


def redact(name: str, raw: bytes) -> tuple[bytes, int]:
    return raw, 0
