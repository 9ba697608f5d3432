"""What can go wrong between sealing a request and opening the response.

On purpose none of these is a `TransportError` of httpx: code that repeats requests after network errors should not take
a response that nobody sealed for one. A sealed response that is malformed, cut off or not authentic raises the native
`MalformedMessageError`, or `FrameTooLargeError`, while it is read.
"""


class SealedTransportError(Exception):
    """A request could not be sealed, or its response was not."""


class KeyConfigurationError(SealedTransportError):
    """The server published no key that can be used; the message names the URL and what came instead."""


class KeyRejectedError(SealedTransportError):
    """`verify_key` refused the server's key. Nothing was sealed to it."""


class UnsealedResponseError(SealedTransportError):
    """A sealed request was answered with a success that is not sealed, or with a redirect: who sent it is not known.

    Or with an unsealed 422 that is too long to be read.
    """
