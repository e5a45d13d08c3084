"""The errors a user can cause. Each says what was given, what is allowed and what to do."""


class DeepTalkError(Exception):
    """A mistake of the caller, told in one line; the command line prints it and exits with 2."""


class ConfigError(DeepTalkError):
    """A setting is out of its range or does not fit another one."""


class CheckpointError(DeepTalkError):
    """A checkpoint is missing, damaged, unsafe to open or of another format."""


class DataError(DeepTalkError):
    """A manifest or a data file can't be used."""


class AudioError(DeepTalkError):
    """A recording can't be used."""


class ProtocolError(DeepTalkError):
    """A message breaks the protocol it claims to speak."""


def reason(error: Exception) -> str:
    """Why something could not be read, in a few words and without what was read."""
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    if isinstance(error, UnicodeDecodeError):
        return "it is not text"
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
