-- How a stream stands at one moment, for people. What this server or user may not ask is left out.
--
-- Returns added, first number, epoch, its reason, entries, first id, last id, bytes, groups

local head = redis.call('HMGET', headKey, 'added', 'first_number', 'epoch', 'epoch_reason')
local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local bytes = redis.pcall('MEMORY', 'USAGE', stream)
local groups = redis.pcall('XINFO', 'GROUPS', stream)
return {
  head[1], head[2], head[3], head[4], redis.call('XLEN', stream), first and first[1] or false,
  last and last[1] or false, type(bytes) == 'number' and bytes, groups.err and {} or groups,
}
