-- The members of a fleet, and which member holds which shard. Times are those of the server's clock.
--
-- KEYS  members (sorted set: description → until when it counts as present, in ms), holds (hash: shard → "until who"),
--       reports (hash: chain → "since report"); one slot
-- ARGV  verb, time to live (ms), who, its description, shards …
-- Returns held shards, present members. `list`: every hold as "shard who".
-- `reports`: chain, age (ms), report … of those that are younger than the time to live.

local verb, ttl, me, description = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local members, holds, reports = KEYS[1], KEYS[2], KEYS[3]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function ms(number) return string.format('%.0f', number) end

local function holderOf(value)
  local till, who = string.match(value or '', '^(%d+) (.*)$')
  if till and tonumber(till) > now then return who, tonumber(till) end
end

local function holder(shard) return holderOf(redis.call('HGET', holds, shard)) end

local function present() return redis.call('ZRANGEBYSCORE', members, '(' .. ms(now), '+inf') end

-- A write that Redis accepts at its memory limit: after it, the script may write whatever it needs.
local function begin() redis.call('ZREMRANGEBYSCORE', members, '-inf', ms(now)) end

-- Takes shards that are free, and keeps those that are held already.
if verb == 'hold' then
  begin()
  -- After the clock was set back, what was granted before it would last too long.
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', members, '(' .. ms(now + ttl), '+inf')) do
    redis.call('ZADD', members, ms(now + ttl), member)
  end
  local held, fields = {}, {}
  local shards = { unpack(ARGV, 5) }
  -- One call for all: a replica of a large fleet keeps many.
  local values = #shards > 0 and redis.call('HMGET', holds, unpack(shards)) or {}
  for i, shard in ipairs(shards) do
    local who, till = holderOf(values[i])
    local isMine = who == nil or who == me
    if isMine then held[#held + 1] = shard end
    if isMine or till > now + ttl then
      fields[#fields + 1] = shard
      fields[#fields + 1] = ms(now + ttl) .. ' ' .. (who or me)
    end
  end
  if #fields > 0 then redis.call('HSET', holds, unpack(fields)) end
  redis.call('ZADD', members, ms(now + ttl), description)
  for _, key in ipairs({ members, holds }) do redis.call('PEXPIRE', key, 100 * ttl) end
  return { held, present() }
end

if verb == 'release' or verb == 'leave' then
  local released = { unpack(ARGV, 5) }
  if verb == 'leave' then
    redis.call('ZREM', members, description)
    released = redis.call('HKEYS', holds)
  end
  for _, shard in ipairs(released) do
    if holder(shard) == me then redis.call('HDEL', holds, shard) end
  end
end

-- Stores reports, which are given as chain, report … in place of shards.
if verb == 'report' then
  begin()
  local since, fields = ms(now) .. ' ', { unpack(ARGV, 5) }
  for i = 2, #fields, 2 do fields[i] = since .. fields[i] end
  redis.call('HSET', reports, unpack(fields))
  redis.call('PEXPIRE', reports, 100 * ttl)
  return { {}, {} }
end

if verb == 'reports' then
  local list, all = {}, redis.call('HGETALL', reports)
  for i = 1, #all, 2 do
    local since, report = string.match(all[i + 1], '^(%d+) (.*)$')
    local age = now - tonumber(since)
    if age <= ttl then
      for _, value in ipairs({ all[i], ms(age), report }) do list[#list + 1] = value end
    end
  end
  return { list, {} }
end

if verb == 'list' then
  local list, all = {}, redis.call('HGETALL', holds)
  for i = 1, #all, 2 do
    local who = holderOf(all[i + 1])
    if who then list[#list + 1] = all[i] .. ' ' .. who end
  end
  return { list, present() }
end

return { {}, present() }
