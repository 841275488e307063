"""The errors of a consumer. Each says what to do."""


class ConsumerError(Exception):
    """An error that a retry cannot cure. ``code`` identifies it, and the message says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class OptionError(ConsumerError):
    """An option is missing or wrong, or two of them contradict each other. Code ``OPTION``."""

    def __init__(self, message: str) -> None:
        super().__init__("OPTION", message)


class TrimmedError(ConsumerError):
    """Entries that this reader needs are not in the stream: they were trimmed, or its journal starts later. Code ``TRIMMED``."""

    def __init__(self, chain: int, needed: str, first_number: int) -> None:
        super().__init__(
            "TRIMMED",
            f"chain {chain}: {needed}, but the stream is complete only from block {first_number} on. "
            f"Begin there with another name (from_={first_number}), or let the ingestor start below it",
        )
        self.first_number = first_number
        """From this block on every entry is there."""


class ResetError(ConsumerError):
    """The journal was deleted on purpose (``event-ingestor reset``), and begins anew. Code ``RESET``."""

    def __init__(self, chain: int, name: str) -> None:
        super().__init__(
            "RESET",
            f"chain {chain}: the journal was reset, so what {name} has applied may have no entry any more. "
            "Delete what it holds of this chain and begin with another name",
        )


class FilterError(ConsumerError):
    """The ingestor's filter no longer includes what this reader asks for, or it is not known whether it does. Code ``FILTER``."""

    def __init__(self, chain: int, why: str) -> None:
        super().__init__("FILTER", f"chain {chain}: {why}")


class ReplicaError(ConsumerError):
    """The source is a replica. Code ``REPLICA``."""

    def __init__(self) -> None:
        super().__init__(
            "REPLICA",
            "this Redis is a replica, which may lack entries that the master has: connect to the master, or by Sentinel or Cluster",
        )


class NotPermittedError(ConsumerError):
    """A command that the reader needs is not allowed. Code ``PERMISSION``."""

    def __init__(self, message: str, stream: str) -> None:
        super().__init__(
            "PERMISSION",
            f"{message}. A reader needs: ACL SETUSER <user> %R~{stream} %R~{{{stream}}}:head %RW~{{{stream}}}:readers "
            "+xrange +xrevrange +xread +xlen +hgetall +hset +multi +exec +role +info +ping +select",
        )


class VersionError(ConsumerError):
    """The journal was written by a later release. Code ``VERSION``."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            "VERSION",
            f"the journal has version {found}, and this library knows version {known}: install a later one",
        )


class TakenOverError(ConsumerError):
    """Another process reads under this name now. Code ``TAKEN_OVER``."""

    def __init__(self, name: str) -> None:
        super().__init__(
            "TAKEN_OVER", f"another process reads as {name} now: call follow again, to stand by"
        )
