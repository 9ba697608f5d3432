"""The scripts that the server runs: each is one step for all members, which nothing comes between.

`#!lua` has the server refuse a script before it begins, not in its middle: on a replica, and when memory is full. Then
also a member that only reads learns that it talks to a replica. `allow-oom` is for scripts that store nothing.

The keys of all scripts: the register, a string; the asks, a hash of 13 digits (when it was asked, in milliseconds) and
the ask, by names; the names of those who wait, a set; the boxes, a hash by names. Whoever may write to the store may
have put anything there: lengths and numbers are looked at before contents.
"""

import hashlib
from dataclasses import dataclass, field

from server_keys._sharing.store import MOST_ASK_BYTES, MOST_ASKS, MOST_BOX_BYTES, MOST_REGISTER_BYTES

CROWDED = b"crowded"
"""The answer of a script that found too many asks."""

_STAMP_BYTES = 13
_MOST_NAME_BYTES = 64

_LIBRARY = f"""
local REGISTER, ASKS, WAITING, BOXES = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function register()
  if redis.call('STRLEN', REGISTER) > {MOST_REGISTER_BYTES} then return '' end
  return redis.call('GET', REGISTER) or ''
end

local function stamped_ask(name)
  if #name > {_MOST_NAME_BYTES} then return nil end
  local length = redis.call('HSTRLEN', ASKS, name)
  if length < {_STAMP_BYTES} or length > {_STAMP_BYTES + MOST_ASK_BYTES} then return nil end
  return redis.call('HGET', ASKS, name)
end

local function keep_at_least(key, keep_ms)
  if redis.call('PTTL', key) < tonumber(keep_ms) then redis.call('PEXPIRE', key, keep_ms) end
end

local function append(found, name, stamped)
  found[#found + 1] = name
  found[#found + 1] = string.sub(stamped, {_STAMP_BYTES + 1})
end
"""


@dataclass(frozen=True)
class Script:
    """A script, and the name by which a server that has it runs it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


def _writes(body: str) -> Script:
    return Script(f"#!lua\n{_LIBRARY}\n{body}")


def _stores_nothing(body: str) -> Script:
    return Script(f"#!lua flags=allow-oom\n{_LIBRARY}\n{body}")


LOOK = _stores_nothing("""
return {
  register(), redis.call('HLEN', ASKS), redis.call('SCARD', WAITING), redis.call('HEXISTS', ASKS, ARGV[1]), now()
}
""")
"""Arguments: the member's name."""

COMMIT = _writes(f"""
if register() ~= ARGV[1] then return 0 end
local keep_ms = tonumber(ARGV[3])
redis.call('UNLINK', WAITING, BOXES)
for i = 4, #ARGV, 2 do redis.call('HSET', BOXES, ARGV[i], ARGV[i + 1]) end
if #ARGV > 3 then redis.call('PEXPIRE', BOXES, ARGV[3]) end
-- After the boxes: should a rule of the server end this script between two commands, the old register stays.
redis.call('SET', REGISTER, ARGV[2], 'PX', ARGV[3])

-- A crowd of asks is not looked through: the next member that wants to read them has them removed.
if redis.call('HLEN', ASKS) > {MOST_ASKS} then return 1 end
local at = now()
for _, name in ipairs(redis.call('HKEYS', ASKS)) do
  local stamped = stamped_ask(name)
  local asked = stamped and tonumber(string.sub(stamped, 1, {_STAMP_BYTES}))
  -- Also an ask from the future goes: the server's clock jumped back, or somebody wrote it by hand.
  if not (asked and asked <= at and at - asked <= keep_ms) then redis.call('HDEL', ASKS, name) end
end
return 1
""")
"""Arguments: the expected register, the new one, milliseconds to keep, and each box after its name."""

RESTORE = _writes("""
if register() ~= ARGV[1] then return 0 end
redis.call('SET', REGISTER, ARGV[2], 'PX', ARGV[3])
return 1
""")
"""Arguments: the expected register, the new one, milliseconds to keep."""

ASK = _writes(f"""
if redis.call('HLEN', ASKS) >= {MOST_ASKS} and redis.call('HEXISTS', ASKS, ARGV[1]) == 0 then
  return '{CROWDED.decode()}'
end
redis.call('HSET', ASKS, ARGV[1], string.format('%0{_STAMP_BYTES}d', now()) .. ARGV[2])
keep_at_least(ASKS, ARGV[4])
if ARGV[3] == '1' then
  redis.call('SADD', WAITING, ARGV[1])
  keep_at_least(WAITING, ARGV[4])
else
  redis.call('SREM', WAITING, ARGV[1])
end
return 1
""")
"""Arguments: the name, the ask, 1 if its member waits, milliseconds to keep."""

ASKS = _stores_nothing(f"""
if redis.call('HLEN', ASKS) > {MOST_ASKS} then return '{CROWDED.decode()}' end
local found = {{}}
for _, name in ipairs(redis.call('HKEYS', ASKS)) do
  local stamped = stamped_ask(name)
  if stamped then append(found, name, stamped) end
end
return found
""")

WAITING = _stores_nothing(f"""
if redis.call('SCARD', WAITING) > {MOST_ASKS} then return '{CROWDED.decode()}' end
local found = {{}}
for _, name in ipairs(redis.call('SMEMBERS', WAITING)) do
  local stamped = stamped_ask(name)
  -- Nobody can be served who has no ask: such a name would have all members look here at each poll.
  if stamped then append(found, name, stamped) else redis.call('SREM', WAITING, name) end
end
return found
""")

SERVE = _writes("""
redis.call('SREM', WAITING, ARGV[1])
local is_new = redis.call('HSETNX', BOXES, ARGV[1], ARGV[2])
if is_new == 1 then keep_at_least(BOXES, ARGV[3]) end
return is_new
""")
"""Arguments: the name, the box, milliseconds to keep."""

TAKE = _stores_nothing(f"""
local length = redis.call('HSTRLEN', BOXES, ARGV[1])
if length == 0 or length > {MOST_BOX_BYTES} then
  -- One that is too long would keep everybody from putting another.
  redis.call('HDEL', BOXES, ARGV[1])
  return false
end
local box = redis.call('HGET', BOXES, ARGV[1])
redis.call('HDEL', BOXES, ARGV[1])
redis.call('HDEL', ASKS, ARGV[1])
redis.call('SREM', WAITING, ARGV[1])
return {{box, now()}}
""")
"""Arguments: the name."""

LEAVE = _stores_nothing("""
redis.call('HDEL', ASKS, ARGV[1])
redis.call('HDEL', BOXES, ARGV[1])
redis.call('SREM', WAITING, ARGV[1])
return 1
""")
"""Arguments: the name."""

FORGET_ASKS = _stores_nothing("""
redis.call('UNLINK', ASKS, WAITING)
return 1
""")

REMOVE_OTHER_TYPES = _stores_nothing("""
local types = {[REGISTER] = 'string', [ASKS] = 'hash', [WAITING] = 'set', [BOXES] = 'hash'}
for key, expected in pairs(types) do
  if redis.call('TYPE', key)['ok'] ~= expected then redis.call('UNLINK', key) end
end
return 1
""")
"""Removes the keys that somebody else put there as another type: every other script fails on them."""

SEE = Script("""#!lua
local before = {}
for i, key in ipairs(KEYS) do
  before[i] = redis.call('SET', key, ARGV[2 * i - 1], 'NX', 'GET', 'PX', ARGV[2 * i])
end
return before
""")
"""The keys: those of requests. Arguments: for each a token, and how many milliseconds to keep it. Answers for each the
token that was there before, or nil."""
