//! `Script`: what Redis does in one step, so that no two hosts can do it at once.
//!
//! Times are Redis's own, so that the clocks of hosts do not matter. Each script names all its keys,
//! and these are of one slot of a Cluster.

use std::sync::LazyLock;

/// A Lua script and the name that Redis has for it.
pub(super) struct Script {
    pub(super) text: &'static str,
    pub(super) name: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        let name = redis::Script::new(text).get_hash().to_owned();
        Self { text, name }
    }
}

/// How far the site has come: its history, count, latest event, base, floor, number of marks as it
/// was noted and as it is.
pub(super) static HELLO: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local s = redis.call('HMGET', KEYS[1], 'history', 'count', 'last', 'base', 'floor', 'marks')
return {s[1] or '', tonumber(s[2] or 0), s[3] or '', tonumber(s[4] or 0), tonumber(s[5] or 0),
    tonumber(s[6] or -1), redis.call('ZCARD', KEYS[2])}",
    )
});

/// Says how far a host has followed the log: its origin, its count, after how many ms of silence all
/// are forgotten.
pub(super) static FOLLOW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now, ARGV[2]))
return redis.call('PEXPIRE', KEYS[1], ARGV[3])",
    )
});

/// How many hosts have not followed up to the count `ARGV[1]` that were heard of in the last `ARGV[2]`
/// ms.
pub(super) static BEHIND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local behind = 0
for _, said in ipairs(redis.call('HVALS', KEYS[1])) do
    local at, count = string.match(said, '^(%d+) (%d+)')
    if at and tonumber(at) > now - ARGV[2] and tonumber(count) < tonumber(ARGV[1]) then
        behind = behind + 1
    end
end
return behind",
    )
});

/// Says that a host is there: its origin, its name, its count, after how many ms of silence one is
/// gone. The time, the site's count and latest event, and all hosts.
pub(super) static BEAT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s %s', now, ARGV[3], ARGV[2]))
local all = redis.call('HGETALL', KEYS[1])
local live = {}
for i = 1, #all, 2 do
    local at = tonumber(string.match(all[i + 1], '^%d+'))
    if at and at > now - ARGV[4] then
        live[#live + 1] = {all[i], all[i + 1]}
    else
        redis.call('HDEL', KEYS[1], all[i])
        redis.call('HDEL', KEYS[3], all[i])
    end
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local s = redis.call('HMGET', KEYS[2], 'count', 'last')
return {now, tonumber(s[1] or 0), s[2] or '', live}",
    )
});

/// Begins a history in place of `ARGV[1]`, unless another host has: its name, base, count and floor.
pub(super) static FOUND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local before = redis.call('HGET', KEYS[1], 'history') or ''
if before ~= ARGV[1] then return 0 end
local s = redis.call('HMGET', KEYS[1], 'count', 'floor')
local count = math.max(tonumber(s[1] or 0), tonumber(ARGV[4]))
local floor = math.max(tonumber(s[2] or 0), tonumber(ARGV[5]))
if before == '' then redis.call('DEL', KEYS[3]) end
redis.call('HSET', KEYS[1], 'history', ARGV[2], 'last', ARGV[2], 'base', ARGV[3],
    'count', string.format('%.0f', count), 'floor', string.format('%.0f', floor),
    'marks', redis.call('ZCARD', KEYS[2]))
redis.call('XADD', KEYS[3], string.format('%.0f-1', count), 'h', ARGV[2])
return 1",
    )
});

/// Counts one invalidation and tells all hosts. `ARGV`: history, origin, its latest number, whether
/// everything is meant, how many marks are kept, how long the log is, how many pages that were replaced
/// are kept, the marks. The count, or -1 when the history is another one. Pages that were replaced are
/// no marks, so that hosts of the first version have nothing to do with them.
pub(super) static RAISE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HGET', KEYS[1], 'history') ~= ARGV[1] then return -1 end
local n = redis.call('HINCRBY', KEYS[1], 'count', 1)
local before = redis.call('HGET', KEYS[1], 'last') or ''
local entry = {'o', ARGV[2], 'l', ARGV[3], 'p', before}
local replaced = false
for i = 8, #ARGV do
    local at, key = string.match(ARGV[i], '^r(%d+) (.*)$')
    if at then
        redis.call('ZADD', KEYS[4], 'GT', at, key)
        entry[#entry + 1] = 'r'
        entry[#entry + 1] = string.sub(ARGV[i], 2)
        replaced = true
    else
        redis.call('ZADD', KEYS[2], n, ARGV[i])
        entry[#entry + 1] = 'm'
        entry[#entry + 1] = ARGV[i]
    end
end
if replaced then redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -1 - ARGV[7]) end
local floor = tonumber(redis.call('HGET', KEYS[1], 'floor') or 0)
if ARGV[4] == '1' then floor = n end
local over = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[5])
if over > 0 then
    local gone = redis.call('ZPOPMIN', KEYS[2], over)
    floor = math.max(floor, tonumber(gone[#gone]))
end
entry[#entry + 1] = 'f'
entry[#entry + 1] = string.format('%.0f', floor)
redis.call('HSET', KEYS[1], 'floor', string.format('%.0f', floor),
    'last', ARGV[2] .. ':' .. ARGV[3], 'marks', redis.call('ZCARD', KEYS[2]))
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], string.format('%.0f-1', n), unpack(entry))
return n",
    )
});

/// Asks to make a page. `ARGV`: owner, lease in ms, what the host has (count, time), the least
/// count that will do, the count from which it would be made. Answers `made`, `busy` with the ms
/// left and the count of the one who makes it, or `lead` with a token.
pub(super) static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local p = redis.call('HMGET', KEYS[1], 'count', 'made', 'until', 'token')
if p[1] then
    local count, made = tonumber(p[1]), tonumber(p[2])
    local newer = count > tonumber(ARGV[3]) or (count == tonumber(ARGV[3]) and made > tonumber(ARGV[4]))
    if newer and count >= tonumber(ARGV[5]) and (p[3] == '' or tonumber(p[3]) > now) then
        return {'made', 0, 0}
    end
end
local l = redis.call('HMGET', KEYS[2], 'owner', 'expires', 'token', 'count')
if l[1] and tonumber(l[2]) > now then
    return {'busy', tonumber(l[2]) - now, tonumber(l[4])}
end
local token = math.max(tonumber(p[4] or 0), tonumber(l[3] or 0)) + 1
redis.call('HSET', KEYS[2], 'owner', ARGV[1], 'expires', string.format('%.0f', now + ARGV[2]),
    'token', token, 'count', ARGV[6])
redis.call('PEXPIRE', KEYS[2], 3600000)
return {'lead', token, 0}",
    )
});

/// Prolongs a lease: owner, lease in ms.
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], 'expires', string.format('%.0f', now + ARGV[2]))
redis.call('PEXPIRE', KEYS[1], 3600000)
return 1",
    )
});

/// Gives a lease back: owner. Its token stays, for as long as a paused owner may come back.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'owner', 'expires', 'count')
return 1",
    )
});

/// Stores a page under a lease and gives that back: owner, token, ms that it is kept, count, time,
/// until when it is fresh, meta record, body record. 0 when somebody else has made it since.
pub(super) static COMMIT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local token = tonumber(ARGV[2])
local p = redis.call('HMGET', KEYS[1], 'token', 'count')
local l = redis.call('HMGET', KEYS[2], 'token', 'owner')
if tonumber(p[1] or 0) >= token or tonumber(l[1] or 0) > token
    or tonumber(p[2] or 0) > tonumber(ARGV[4]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'token', token, 'count', ARGV[4], 'made', ARGV[5], 'until', ARGV[6],
    'meta', ARGV[7])
if ARGV[8] ~= '' then redis.call('HSET', KEYS[1], 'body', ARGV[8]) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if l[2] == ARGV[1] then redis.call('HDEL', KEYS[2], 'owner', 'expires', 'count') end
return 1",
    )
});

/// The meta record of a page and that of its bodies, which is kept for at least so many ms more.
pub(super) static GET: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "redis.call('PEXPIRE', KEYS[1], ARGV[1], 'GT')
return redis.call('HMGET', KEYS[1], 'meta', 'body')",
    )
});

/// Forgets a page.
pub(super) static DISCARD: LazyLock<Script> =
    LazyLock::new(|| Script::new("return redis.call('DEL', KEYS[1])"));
