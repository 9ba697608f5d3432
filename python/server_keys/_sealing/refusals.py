"""The reasons for which the middleware refuses requests: for each the answer, and the advice for the operator's log."""

from dataclasses import dataclass, replace

from server_keys._native import FrameTooLargeError, KeyMismatchError, ReplayTableError, ReplayTableFullError
from server_keys._sealing.answers import Answer, plain_text, problem
from server_keys._sealing.buffers import BuffersFullError, GivenUpError
from server_keys._sealing.protocol import KEY_CONFIG_PATH, KEY_MISMATCH_PROBLEM
from server_keys.errors import KeysUnavailableError


@dataclass(frozen=True, slots=True)
class Refusal:
    """One kind of refusal."""

    reason: str
    """The name that it is counted by."""
    answer: Answer
    """The response that the client gets."""
    advice: str
    """The log's words for the operator: the likely cause, and what to do. They contain nothing of the request."""


KEY_MISMATCH = Refusal(
    "key_mismatch",
    # After this answer a client fetches the key anew and tries again.
    problem(
        422,
        f"sealed to a key that this server process does not accept: fetch {KEY_CONFIG_PATH} anew",
        KEY_MISMATCH_PROBLEM,
    ),
    "sealed to a key that this process does not accept. After a rotation or a restart clients fetch the new key by "
    "themselves. If it goes on: either several processes behind one address have keys of their own, then let them "
    "share one ring (share=, or --key-share under vLLM; status.sharing.why_not tells why one does not); or a cache "
    f"serves an old {KEY_CONFIG_PATH}",
)
MALFORMED = Refusal(
    "malformed",
    # It does not say which step failed.
    problem(400, "the sealed request is malformed, incomplete or not authentic"),
    "a sealed body was malformed, incomplete or not authentic. Look for a proxy that changes request bodies or the "
    "header Ehbp-Encapsulated-Key, or for a client that does not speak EHBP",
)
PLAINTEXT = Refusal(
    "plaintext",
    problem(400, f"this server takes bodies sealed with EHBP only: its key is at {KEY_CONFIG_PATH}"),
    "a body came in plaintext, and sealed ones are required. Give that client a sealing transport "
    "(server_keys.client), or protect the app without required=True",
)
NOT_V1 = Refusal(
    "not_v1",
    problem(400, f"this server takes requests of wire version 1 only: its key is at {KEY_CONFIG_PATH}"),
    "a request was not sealed by version 1 of the wire, which is required. Give that client a transport of "
    'server_keys.client, name paths that stay open (open_paths=), or protect the app without required="v1"',
)
KEY_PATH_METHOD = Refusal(
    "key_path_method",
    plain_text(405, "Method Not Allowed", (b"allow", b"GET, HEAD")),
    f"{KEY_CONFIG_PATH} was asked for with another method than GET. Look for a client with a wrong URL",
)

KEY_NOT_SIGNED = "key_not_signed"
REPLAYED = Refusal(
    "replayed",
    problem(
        409,
        "this sealed request was received before, and each is served once: seal the message anew to send it again",
        # The OpenAI SDK repeats a 409. Its transport would seal the message anew, and the message be served twice.
        more_headers=((b"x-should-retry", b"false"),),
    ),
    "a sealed request came a second time. Either somebody sends again what was recorded, or a proxy on the way repeats "
    "requests by itself (nginx: proxy_next_upstream non_idempotent): let the client repeat them, which seals them anew",
)
_FULL_ADVICE = (
    "more requests were sealed to one key than can be remembered (262144). The next key comes early, and clients go on "
    "with it by themselves. If it happens again and again, shorten the refresh time, and look for a client that floods "
    "the server"
)
_LOST_ADVICE = (
    "it is not known any more which requests were sealed to a key, so none is taken that is. The next key comes early, "
    "and clients go on with it by themselves. Look for what removes or changes the files in the folder by which the "
    "processes share their keys (status.sharing.store), and whether its file system is full"
)
REPLAY_STORE_AWAY = Refusal(
    "replay_store_away",
    problem(
        503,
        "the server cannot find out whether it has received this request before: try again in a moment",
        more_headers=((b"retry-after", b"1"),),
    ),
    "the store did not say within 20 ms whether another host had received a request. Bring it back "
    '(status.sharing.store); or serve requests meanwhile that this host did not receive (store_away="allow")',
)
_MEMORY_ADVICE = (
    "what arrives of unfinished requests has reached max_buffered_bytes. Look for a client that sends half of a frame "
    "and then nothing, limit connections and the time for a body in front of the server, let clients seal frames of "
    "64 KiB, which none of this touches, or raise max_buffered_bytes"
)
BUFFERS_FULL = Refusal(
    "buffers_full",
    problem(
        503,
        "the server has no memory for this request at the moment: send it again, or seal smaller frames",
        more_headers=((b"retry-after", b"1"),),
    ),
    f"there was no memory for what arrived of it, and no other client was idle: {_MEMORY_ADVICE}",
)
GIVEN_UP = Refusal(
    "given_up",
    replace(problem(408, "the rest of the request did not come, and others needed its memory"), waits_for_body=False),
    f"its client had sent nothing for a second or longer, and others needed its memory: {_MEMORY_ADVICE}",
)

REASONS = (
    "key_mismatch",
    "malformed",
    "frame_too_large",
    "wrong_place",
    "plaintext",
    "not_v1",
    "keys_unavailable",
    "key_path_method",
    KEY_NOT_SIGNED,
    "replayed",
    "replay_table_full",
    "replay_table_lost",
    "replay_store_away",
    "buffers_full",
    "given_up",
)
"""All names that refusals are counted by."""


def refusal_of(error: Exception) -> Refusal:
    """Return the refusal of a request that failed with `error`."""
    match error:
        case KeysUnavailableError():
            answer = problem(500, "the server has no key at the moment")
            return Refusal("keys_unavailable", answer, f"there is no key: {error}")
        case KeyMismatchError():
            return KEY_MISMATCH
        case FrameTooLargeError():
            answer = problem(413, f"{error}: seal the body in smaller frames")
            advice = f"{error}. Let the client seal smaller frames, or raise max_frame_bytes"
            return Refusal("frame_too_large", answer, advice)
        case BuffersFullError():
            return BUFFERS_FULL
        case GivenUpError():
            return GIVEN_UP
        case _:
            return MALFORMED


def key_not_signed(why: str, *, retry_in_s: int) -> Refusal:
    """Return the refusal of a request for the key, while there is none that the server's identity has signed.

    Args:
        why: why there is none.
        retry_in_s: whole seconds after which a client may ask again.
    """
    answer = problem(
        503,
        "the server's keys are not signed at the moment: ask again",
        more_headers=((b"retry-after", b"%d" % retry_in_s),),
    )
    advice = f"no key is published, because none is signed: {why}. Repair what signs; it is tried again by itself"
    return Refusal(KEY_NOT_SIGNED, answer, advice)


def without_memory(error: ReplayTableError, *, has_newer_key: bool, retry_after_s: int) -> Refusal:
    """Return the refusal of a request that cannot be remembered.

    Args:
        error: why it cannot.
        has_newer_key: whether another key is published than the one that the request is sealed to. Then clients shall
            fetch that, as if this one had ended. Else the answer is for sealing.
        retry_after_s: seconds after which a newer key is published.
    """
    is_full = isinstance(error, ReplayTableFullError)
    reason, advice = ("replay_table_full", _FULL_ADVICE) if is_full else ("replay_table_lost", _LOST_ADVICE)
    if has_newer_key:
        return Refusal(reason, KEY_MISMATCH.answer, advice)
    answer = problem(
        503,
        "the server takes no more requests that are sealed to this key, and will have another one in a moment",
        more_headers=((b"retry-after", b"%d" % retry_after_s),),
    )
    return Refusal(reason, answer, advice)


def wrong_place(meant: str, arrived: str) -> Refusal:
    """Return the refusal of a request that arrived elsewhere than its client meant it to. Its answer is for sealing.

    Args:
        meant: the method and the target that the client sealed.
        arrived: the method and the path that the server sees.
    """
    return Refusal(
        "wrong_place",
        problem(
            400,
            f"the request was sealed for {meant} and arrived as {arrived}: nothing on the way may change the path, the "
            "query or the method. A path is sealed as it is below the key's URL",
        ),
        "a request arrived elsewhere than its client meant it to. Look for a proxy that rewrites paths or queries. If "
        "one takes a prefix away, let it pass the key under that prefix, too, and let clients fetch it there "
        '(key_url=); or protect the app with place="suffix"',
    )
