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
