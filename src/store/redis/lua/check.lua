-- Calls the commands that the other scripts call, on keys of its own, which it deletes.
--
-- KEYS  as for each script, with names that nothing else uses
-- Returns what failed: its name, the error, …

local failed = {}
local function fails(name, answer)
  -- Without XADD there is no stream, so 'no such key' is expected.
  if type(answer) ~= 'table' or not answer.err or string.find(answer.err, 'no such key') then return end
  failed[#failed + 1] = name
  failed[#failed + 1] = answer.err
end
local function try(name, ...)
  fails(name, redis.pcall(...))
end
local function has(name, use)
  local answered, found = pcall(use)
  if not answered or not found then fails(name, { err = 'ERR the server\'s scripts have no ' .. name }) end
end

try('DEL', 'DEL', unpack(KEYS))
-- Keys that cannot be deleted are not created.
if #failed > 0 then return failed end

try('XADD', 'XADD', stream, '*', 'a', '1')
try('XLEN', 'XLEN', stream)
try('XRANGE', 'XRANGE', stream, '-', '+', 'COUNT', 1)
try('XREVRANGE', 'XREVRANGE', stream, '+', '-', 'COUNT', 1)
try('XTRIM', 'XTRIM', stream, 'MAXLEN', '~', '1')
try('XTRIM', 'XTRIM', stream, 'MINID', '~', '0-1', 'LIMIT', '100')
try('EXISTS', 'EXISTS', stream)
try('HSET', 'HSET', headKey, 'a', '1')
try('HMGET', 'HMGET', headKey, 'a')
try('HGETALL', 'HGETALL', headKey)
try('HGET', 'HGET', headKey, 'a')
try('TIME', 'TIME')
try('INFO', 'INFO', 'memory')
try('ZADD', 'ZADD', windowKey, '1', 'a')
try('ZRANGE', 'ZRANGE', windowKey, 0, -1)
try('ZREVRANGE', 'ZREVRANGE', windowKey, 0, 0)
try('ZRANGEBYSCORE', 'ZRANGEBYSCORE', windowKey, '1', '1')
try('ZREM', 'ZREM', windowKey, 'a')
try('ZREMRANGEBYSCORE', 'ZREMRANGEBYSCORE', windowKey, '-inf', '1')
try('SET', 'SET', readersKey, '1', 'PX', '1000')
try('RPUSH', 'RPUSH', filtersKey, 'a')
try('LREM', 'LREM', filtersKey, 0, 'b')
try('LTRIM', 'LTRIM', filtersKey, -20, -1)
has('cmsgpack', function() return cmsgpack.unpack_limit(cmsgpack.pack('a'), 1, 0) end)

try('HINCRBY', 'HINCRBY', missedKey, 'a', 1)
has('cjson', function() return cjson.decode('{}') end)
has('redis.acl_check_cmd', function() return redis.acl_check_cmd end)
try('XINFO', 'XINFO', 'GROUPS', stream)
try('XINFO', 'XINFO', 'STREAM', stream)
try('MEMORY USAGE', 'MEMORY', 'USAGE', stream)
redis.call('DEL', unpack(KEYS))
return failed
