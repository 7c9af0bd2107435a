"""Why a push got no answer."""


class PushFailed(Exception):
    """No answer; the text is for those who look after the endpoint."""


class Unreachable(PushFailed):
    """The request never left, so the endpoint has not seen the message."""


class Refused(Unreachable):
    """The settings of the server do not allow this endpoint."""
